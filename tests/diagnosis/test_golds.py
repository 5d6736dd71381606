"""Gold answers through real verifiers: those that fit, golds that no response can meet, and verifiers that take all."""

import pytest
from made_up import bad, one

from grpo.diagnosis.golds import gold_findings
from grpo.verifiers.verify import Verifiers

ROWS = [{"problem": f"{i}+1=", "answer": str(i + 1)} for i in range(20)]


@pytest.fixture
def written(tmp_path):
    """A verifier of the test's own, from the body of its function."""

    def write(body, name="mine"):
        path = tmp_path / f"{name}.py"
        path.write_text(f"def reward(response, answer):\n    {body}\n")
        return str(path)

    return write


def found(rows, *specs):
    with Verifiers(specs, workers=1, max_failure_share=1.0) as verifiers:
        return list(gold_findings(verifiers, specs, rows, "mine.jsonl"))


def test_golds_that_fit():
    findings = found(ROWS, "math_answer")
    assert [f.level for f in findings] == ["ok", "ok"]
    assert findings[0].found == r"math_answer: 20 of 20 gold answers get full marks, written as \boxed{ANSWER}"
    assert findings[1].found == "math_answer: none of 20 changed answers gets full marks"


def test_a_list_is_several_answers_and_large_data_is_sampled():
    rows = [{"problem": "a half?", "answer": ["1/2", "0.5"]}] * 1000
    assert found(rows, "math_answer")[0].found.startswith("math_answer: 126 of 126 gold answers")


@pytest.mark.parametrize(
    "body,form",
    [
        ("return response == answer", "ANSWER"),
        ("return response == f'#### {answer}'", "#### ANSWER"),
        ("return '<think>' in response and response.endswith('{' + answer + '}</answer>')", "<think>"),
    ],
)
def test_the_form_that_a_verifier_reads_is_found(written, body, form):
    findings = found(ROWS, written(body))
    assert not bad(findings) and f"written as {form}" in findings[0].found


def test_golds_that_no_response_can_meet_are_a_fault():
    """Gold answers in words, and a verifier that reads letters of a choice: each call raises."""
    rows = [{"problem": "?", "answer": "12,5 %"}] * 4
    finding = one(found(rows, "choice"), "fault")
    assert "choice: none of 4 gold answers gets full marks, in any of 5 forms" in finding.found
    assert "must be a choice" in finding.found and "python -m grpo.verifiers --reward 'choice'" in finding.advice


@pytest.mark.parametrize("wrong,level", [(1, "warning"), (2, "fault")])
def test_some_golds_that_fail(wrong, level):
    """Below a tenth it is a warning."""
    rows = [{"problem": "?", "answer": "B"}] * (20 - wrong) + [{"problem": "?", "answer": "12"}] * wrong
    (finding,) = [f for f in found(rows, "choice") if "gold answers get full marks" in f.found]
    assert finding.level == level and f"choice: {20 - wrong} of 20" in finding.found and "12" in finding.found


def test_a_verifier_that_takes_anything_is_a_fault_and_behind_the_first_a_warning(written):
    anything = written("return 1.0", "anything")
    finding = one(found(ROWS, anything), "fault")
    assert "20 of 20 changed answers get full marks too" in finding.found
    assert one(found(ROWS, "math_answer", anything), "warning").found.startswith("anything: 20 of 20 changed")


def test_a_graded_verifier_may_give_a_changed_answer_something():
    rows = [{"problem": "3 1 2=", "answer": "1 2 3"}]
    assert not bad(found(rows, "sorted_list"))


def test_what_cannot_be_asked():
    (finding,) = found(ROWS, "think_format")
    assert finding.level == "not checked" and "no parameter 'answer'" in finding.found
    (finding,) = found([{"problem": "?", "nums": [1], "target": 1}], "countdown")
    assert finding.level == "not checked" and "no column 'answer'" in finding.found


def test_a_verifier_to_which_no_gold_applies(written):
    (finding,) = found(ROWS, written("return None"))
    assert finding.level == "not checked" and "does not apply" in finding.found


def test_a_hostile_response_is_shown_escaped(written):
    rows = [{"problem": "?", "answer": "\x1b[2J2"}]
    finding = one(found(rows, written("return 0.0")), "fault")
    assert "\x1b" not in finding.found and "[2J2" in finding.found
