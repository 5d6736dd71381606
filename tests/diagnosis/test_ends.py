"""Ends and padding under made-up tokenizers and chat templates."""

import pytest
from conftest import END, OTHER_END, make_tokenizer
from made_up import CHATML, ENDS_BY_END, ENDS_BY_TEXT, REFUSES, bad, chat_tokenizer, one

from grpo.diagnosis.ends import Marker, end_findings, template_marker

IM_END = chat_tokenizer().convert_tokens_to_ids("<|im_end|>")


def found(tokenizer, ends=(END,), template="auto", stop=(), engine="vllm"):
    return list(end_findings(tokenizer, ends, template=template, stop=stop, engine=engine))


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


def test_ends_that_agree():
    findings = found(chat_tokenizer(), (END, IM_END))
    assert not bad(findings)
    assert [f.found for f in findings][:2] == [
        f"a response ends at <end> (1), <|im_end|> ({IM_END})",
        f"template chat ends a response by <|im_end|> ({IM_END}), which is one of them",
    ]


def test_an_end_of_the_chat_template_that_ends_nothing_is_a_fault():
    """A base model, whose end of sequence is another one than its chat template writes."""
    finding = one(found(chat_tokenizer()), "fault")
    assert f"ends a response by <|im_end|> ({IM_END}), at which the engine does not stop" in finding.found
    assert f'"eos_token_id": [1, {IM_END}] into generation_config.json' in finding.advice


def test_under_a_named_template_it_is_a_warning():
    assert (
        "template qwen_math ends a response by" in one(found(chat_tokenizer(), template="qwen_math"), "warning").found
    )


def test_an_end_that_is_plain_text_wants_a_stop():
    tokenizer = chat_tokenizer(ENDS_BY_TEXT)
    assert one(found(tokenizer), "warning").advice.startswith("Give --stop '###'")
    assert not bad(found(tokenizer, stop=("###",)))
    assert "</answer>" in one(found(tokenizer, template="r1"), "warning").advice


def test_a_chat_template_that_does_not_show_its_end_is_not_checked():
    assert [f.level for f in found(chat_tokenizer(REFUSES))] == ["ok", "not checked", "ok"]


def test_nothing_that_ends_a_response():
    tokenizer = make_tokenizer()
    assert "nothing ends a response" in one(found(tokenizer, ends=()), "fault").found
    assert not bad(found(tokenizer, ends=(), stop=("\n\n",)))


def test_a_stop_text_that_vllm_never_sees():
    """Found by trying: vLLM looks for stop texts in a text without special tokens; transformers does see them."""
    tokenizer = chat_tokenizer(ENDS_BY_END)
    finding = one(found(tokenizer, stop=("<end2>",)), "fault")
    assert "--stop <end2> holds a special token" in finding.found and f"({OTHER_END})" in finding.advice
    assert not bad(found(tokenizer, stop=("<end2>",), engine="hf"))
    assert not bad(found(tokenizer, stop=("<end>",)))  # an end as it is


def test_padding():
    tokenizer = make_tokenizer()
    assert not bad(found(tokenizer))
    tokenizer.pad_token = "<end>"
    assert "the pad token <end> (1) also ends a response" in one(found(tokenizer), "warning").found
    assert "--engine vllm" in one(found(tokenizer, stop=("x",), engine="hf"), "fault").advice
    tokenizer.pad_token = None
    assert "has no pad token" in one(found(tokenizer), "fault").found
