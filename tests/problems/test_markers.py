"""The ends that templates write, and the ids that end a response for it."""

import pytest
from chat_tokenizers import CHATML, ENDS_BY_END, ENDS_BY_TEXT, REFUSES, chat_tokenizer
from conftest import END

from grpo.problems.markers import Marker, marker_ids, template_marker

IM_END = chat_tokenizer().convert_tokens_to_ids("<|im_end|>")


@pytest.mark.parametrize(
    "template,chat,expected",
    [
        ("chat", CHATML, Marker("<|im_end|>", IM_END)),
        ("auto", ENDS_BY_END, Marker("<end>", END)),
        ("chat", ENDS_BY_TEXT, Marker("###", None)),
        ("chat", "{% for m in messages %}{{ m['content'] }}{% endfor %}", Marker("", None)),
        ("chat", REFUSES, None),
        ("chat", "{{ messages[0]['content'] }}", None),  # drops what an assistant says
        ("qwen_math", CHATML, Marker("<|im_end|>", IM_END)),
        ("r1", CHATML, Marker("</answer>", None)),
        ("plain", CHATML, Marker("", None)),
    ],
)
def test_the_end_that_a_template_writes(template, chat, expected):
    assert template_marker(chat_tokenizer(chat), template) == expected


@pytest.mark.parametrize(
    "template,chat,ids",
    [
        ("auto", CHATML, (IM_END,)),
        ("plain", CHATML, ()),
        ("r1", CHATML, ()),
        ("chat", REFUSES, ()),
        ("qwen_math", None, (IM_END,)),
    ],
)
def test_the_ids_that_end_a_response(template, chat, ids):
    assert marker_ids(chat_tokenizer(chat), template) == ids


def test_files_show_their_ends(tmp_path):
    (tmp_path / "mine.jinja").write_text(ENDS_BY_END)
    (tmp_path / "mine.txt").write_text("<|im_start|>{problem}<|im_end|>")
    assert marker_ids(chat_tokenizer(), str(tmp_path / "mine.jinja")) == (END,)
    assert marker_ids(chat_tokenizer(), str(tmp_path / "mine.txt")) == (IM_END,)
