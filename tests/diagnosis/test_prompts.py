"""Prompts under made-up tokenizers and templates: BOS, markers, text that is lost, and lengths."""

import math

import pytest
from chat_tokenizers import REFUSES, bos_tokenizer, chat_tokenizer
from conftest import make_tokenizer
from made_up import bad, one

from grpo.diagnosis.prompts import encode_all, length_findings, prompt_findings, read_tokenizer, shown_ids
from grpo.errors import UserError


def found(tokenizer, *problems, template="auto"):
    rows = [{"problem": problem} for problem in problems or ("What is 1+1?", "And 2+2?")]
    return list(prompt_findings(encode_all(rows, tokenizer, template), tokenizer, template=template))


def test_the_first_prompt_is_shown_as_text_and_as_ids():
    text, ids, *rest = found(chat_tokenizer(), "1+1?")
    assert text.found.endswith(r"as text: <|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n")
    assert ids.found.startswith("the same as ids: 259 ") and not bad(rest)


def test_ids_of_a_long_prompt_are_cut_in_the_middle():
    assert shown_ids(range(5), ends=2) == "0 1 ... 3 4 (5 ids)" and shown_ids(range(4), ends=2) == "0 1 2 3"


def test_bos_once_is_well():
    assert not bad(found(bos_tokenizer()))
    assert not bad(found(bos_tokenizer("{{ bos_token + messages[0]['content'] }}")))


@pytest.mark.parametrize(
    "tokenizer,problem",
    [
        (bos_tokenizer(), "<bos>1+1?"),  # data that has been put under a template already, and a tokenizer that adds it
        (bos_tokenizer("{{ bos_token + bos_token + messages[0]['content'] }}"), "1+1?"),
        (bos_tokenizer("{{ bos_token + messages[0]['content'] }}"), "<bos>1+1?"),
    ],
)
def test_a_doubled_bos_is_a_fault(tokenizer, problem):
    findings = [f for f in found(tokenizer, problem, "no") if "<bos> (" in f.found and f.level != "ok"]
    assert [f.level for f in findings] == ["fault"] and "with <bos> (259) twice" in findings[0].found


def test_a_template_that_leaves_bos_out():
    finding = one(found(bos_tokenizer("{{ messages[0]['content'] }}")), "warning")
    assert "2 of 2 prompts begin without it under template chat" in finding.found
    assert "has no chat template" in one(found(bos_tokenizer(), template="r1"), "warning").advice


def test_markers_that_the_tokenizer_reads_as_text():
    finding = one(found(make_tokenizer(), template="qwen_math"), "warning")
    assert "<|im_end|>, <|im_start|>, which this tokenizer does not know" in finding.found
    assert not bad(found(chat_tokenizer(), template="qwen_math"))


def test_a_template_that_drops_the_problem():
    tokenizer = chat_tokenizer("{{ 'Solve it.' }}")
    finding = one(found(tokenizer), "warning")
    assert "in 2 of the first 2 prompts" in finding.found and "What is 1+1?" in finding.found
    last = [{"role": "system", "content": "S"}, {"role": "user", "content": "1+1?"}]
    assert not bad(found(chat_tokenizer(), last))


def test_a_chat_template_that_refuses_a_problem_says_what_to_do():
    with pytest.raises(UserError, match=r"roles must alternate.*--template"):
        encode_all([{"problem": "1"}], chat_tokenizer(REFUSES), "chat")


def lengths(values, limit, positions=math.inf):
    numbers = dict(max_prompt_tokens=limit, max_response_tokens=100, positions=positions)
    return list(length_findings(values, what="prompts", **numbers))


def test_lengths_against_the_limit():
    (fine,) = lengths([3, 4, 5, 6, 20], limit=20)
    assert "5 prompts of 3 to 20 tokens, median 5, 95th percentile 20; none longer than" in fine.found
    assert fine.level == "ok" and lengths([5] * 99 + [30], 20)[0].level == "ok"
    few = one(lengths([5] * 90 + [30] * 10, 20), "warning")
    assert "10 (10.0%) longer than --max-prompt-tokens 20, and dropped" in few.found
    assert few.advice == "--max-prompt-tokens 30 keeps 99% of them."
    assert "lower that to 80" in one(lengths([5] * 90 + [40] * 10, 20, positions=120), "warning").advice
    assert "2 (100.0%)" in one(lengths([30, 30], 20), "fault").found


def test_a_tokenizer_that_is_not_there_is_a_fault(tmp_path):
    (finding,) = read_tokenizer(str(tmp_path / "nowhere"), trust_remote_code=False)
    assert finding.level == "fault" and "There is no model folder" in finding.found
