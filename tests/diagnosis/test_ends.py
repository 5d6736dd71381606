"""Ends and padding under made-up tokenizers and chat templates."""

from chat_tokenizers import ENDS_BY_END, ENDS_BY_TEXT, REFUSES, chat_tokenizer
from conftest import END, OTHER_END, make_tokenizer
from made_up import bad, one

from grpo.diagnosis.ends import end_findings
from grpo.problems.markers import marker_ids

IM_END = chat_tokenizer().convert_tokens_to_ids("<|im_end|>")


def found(tokenizer, ends=(END,), template="auto", stop=(), engine="vllm"):
    ends = (*ends, *marker_ids(tokenizer, template))
    return list(end_findings(tokenizer, ends, template=template, stop=stop, engine=engine))


def test_ends_that_agree():
    findings = found(chat_tokenizer())
    assert not bad(findings)
    assert [f.found for f in findings][:2] == [
        f"a response ends at <end> (1), <|im_end|> ({IM_END})",
        f"template chat ends a response by <|im_end|> ({IM_END}), which is one of them",
    ]


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
    tokenizer.pad_token = None
    assert not bad(found(tokenizer))
