"""Held-out problems through real vLLM and real verifiers, and what the results come to, by hand."""

import json
import resource

import pytest
from conftest import make_policy

from grpo.errors import UserError
from grpo.evaluation import accuracy_by, compare, evaluate, measure, training_metrics
from grpo.evaluation.intervals import Estimate
from grpo.evaluation.results import (
    ProblemResult,
    ResponseResult,
    append_results,
    read_results,
    write_results,
)
from grpo.files import cut_torn_line
from grpo.logs.metrics import METRICS
from grpo.records import Problem
from grpo.verifiers.verify import Verifiers


def response(correct, answer="?", tokens=10, truncated=False, failure=None):
    return ResponseResult("text", correct, {"first": float(correct)}, tokens, truncated, answer, failure)


def problem(index, *responses, prompt=None, level=None, subject=None):
    return ProblemResult(index, f"id-{index}", prompt or f"problem {index}", "7", level, subject, responses)


RESULTS = [
    problem(0, response(True, "7", 10), response(True, "7", 20), response(False, "8", 40), level=1, subject="Algebra"),
    problem(1, response(False, "8", 60), response(False, None, 99, True), response(True, "7", 30), level=5),
    problem(
        2, *[response(False, "9", 50)] * 2, response(False, "7", 50, failure="timeout"), level=5, subject="Algebra"
    ),
]


# What results come to ---------------------------------------------------------------------------------------------


def test_measures_by_hand():
    found = measure(RESULTS, [1, 2, 3, 4])
    assert (found.problems, found.responses, found.failures) == (3, 3, 1)
    assert found.accuracy.value == pytest.approx((2 / 3 + 1 / 3 + 0) / 3)
    assert found.accuracy.low == 0.0 and found.accuracy.high == pytest.approx(2 / 3)  # of 27 resamples: the ends
    # pass@2: of three pairs, all hold one of two right ones; two hold the single right one; none.
    assert {k: e.value for k, e in found.pass_at.items()} == pytest.approx({1: 1 / 3, 2: (1 + 2 / 3) / 3, 3: 2 / 3})
    # maj@3: 7 twice: right. 8 and 7 tie, and the truncated one has no vote: a half. 9 twice: wrong.
    # maj@2, the first two: right; 8 alone: wrong; wrong.
    assert {k: e.value for k, e in found.maj_at.items()} == pytest.approx({1: 1 / 3, 2: 1 / 3, 3: 0.5})
    assert found.length == pytest.approx((10 + 20 + 40 + 60 + 99 + 30 + 150) / 9)
    assert (found.length_correct, found.length_incorrect) == pytest.approx((20, (40 + 60 + 99 + 150) / 6))
    assert found.truncated == pytest.approx(1 / 9)


def test_k_is_the_number_of_responses_unless_told():
    assert set(measure(RESULTS).pass_at) == set(measure(RESULTS).maj_at) == {3}
    assert measure([problem(0, response(True))]).pass_at == {}


def test_without_final_answers_there_is_no_vote():
    silent = [problem(0, response(True, None), response(False, None))]
    assert measure(silent).maj_at == {} and set(measure(silent).pass_at) == {2}


def test_a_truncated_response_has_no_vote_even_with_an_answer():
    cut = [problem(0, response(False, "8", truncated=True), response(False, "8", truncated=True), response(True, "7"))]
    assert measure(cut).maj_at[3].value == 1.0


def test_problems_need_equally_many_responses():
    with pytest.raises(UserError, match=r"equally many responses, not \[1, 3\]"):
        measure([*RESULTS, problem(3, response(True))])


def test_accuracy_by_level_and_subject():
    assert accuracy_by(RESULTS, "level") == {
        1: (1, Estimate(pytest.approx(2 / 3), None, None)),
        5: (2, pytest.approx((1 / 6, 0, 1 / 3))),
    }
    assert {k: count for k, (count, _) in accuracy_by(RESULTS, "subject").items()} == {"Algebra": 2}
    assert accuracy_by([problem(0, response(True))], "level") == {}
    assert accuracy_by([problem(i, response(True), level=float("nan")) for i in range(2)], "level") == {}


def test_a_problem_that_is_asked_twice_is_no_further_evidence():
    """Two problems, each four times: the exact intervals are those of two, and so is the p-value."""
    right = [problem(i, *[response(True)] * 2, prompt=f"p{i % 2}", level=1) for i in range(8)]
    wrong = [problem(i, *[response(False)] * 2, prompt=f"p{i % 2}", level=1) for i in range(8)]
    two = (1.0, pytest.approx(0.025**0.5), 1.0)
    found = measure(right)
    assert (found.problems, found.accuracy, found.pass_at[2], found.maj_at[2]) == (8, two, two, two)
    assert accuracy_by(right, "level") == {1: (8, two)}
    assert (compare(wrong, right).problems, compare(wrong, right).p_value) == (8, 0.5)


def test_the_keys_of_training_are_explained_and_by_hand():
    found = training_metrics(RESULTS)
    assert set(found) <= set(METRICS) and {"eval/pass@k", "eval/maj@k"} <= set(found)
    assert found["eval/accuracy"] == pytest.approx(1 / 3) and found["eval/accuracy_high"] == pytest.approx(2 / 3)
    assert (found["eval/pass@k"], found["eval/maj@k"], found["eval/failures"]) == (pytest.approx(2 / 3), 0.5, 1.0)
    single = training_metrics([problem(0, response(True)), problem(1, response(False))])
    assert not {"eval/pass@k", "eval/maj@k"} & set(single)
    assert single["eval/accuracy"] == 0.5 and single["eval/length_incorrect"] == 10.0
    assert training_metrics([problem(0, response(True))])["eval/length_incorrect"] is None


def test_comparison_is_over_shared_problems_in_whatever_order():
    wrong = [response(False)] * 2
    first = [problem(0, *wrong), problem(1, *wrong), problem(2, *wrong)]
    second = [problem(5, response(True), prompt="problem 2"), problem(6, response(False), prompt="problem 0")]
    found = compare(first, second)
    assert found.problems == 2 and found.estimate.value == 0.5
    assert compare(first, [problem(0, response(True), prompt="another")]) is None


def test_a_set_that_asks_the_same_twice_is_paired_in_order():
    first = [problem(0, response(False), prompt="same"), problem(1, response(True), prompt="same")]
    second = [problem(0, response(True), prompt="same"), problem(1, response(True), prompt="same")]
    assert compare(first, second).estimate.value == 0.5


# Files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["\ud800 lone", "a\u2028b\x85c", "NUL \x00", "new\nline\r"])
def test_results_come_back_from_their_file(tmp_path, text):
    results = [problem(0, ResponseResult(text, True, {"a": 1.0, "b": None}, 3, False, text, None), level=2)]
    path = tmp_path / "evaluations" / "step-000000.jsonl"
    write_results(path, results)
    append_results(path, RESULTS)
    assert read_results(path) == results + RESULTS
    assert len(path.read_bytes().split(b"\n")) == 5 and not list(path.parent.glob("*.part"))


def test_a_torn_line_is_cut_off(tmp_path):
    path = tmp_path / "r.jsonl"
    write_results(path, RESULTS)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:100])
    with pytest.raises(UserError, match="line 4 is not JSON"):
        read_results(path)
    cut_torn_line(path)
    assert path.read_bytes() == whole
    path.write_bytes(whole[:50])
    cut_torn_line(path)
    assert path.read_bytes() == b""


def test_a_disk_that_is_full_is_an_error_and_no_short_line(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError):
            append_results(tmp_path / "r.jsonl", RESULTS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "content",
    [b"[1]", b"{}", b'{"responses": []}', b'{"step": 1, "responses": [{"a": 1}]}', b"no json", b"7", b"\xff\xfe"],
)
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(content + b"\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 1 is .*Give a file of results"):
        read_results(path)


def test_no_file_and_an_empty_one_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.jsonl cannot be read: No such file.*Give a file of results"):
        read_results(tmp_path / "nowhere.jsonl")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UserError, match="is empty"):
        read_results(tmp_path / "empty.jsonl")


# Real responses ---------------------------------------------------------------------------------------------------

MINE = """
def reward(tokens): return float(len(tokens) % 2)
def final_answer(response): return response[:1] or None
"""


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A verifier that likes an odd number of tokens, and takes the first character for the answer."""
    path = tmp_path_factory.mktemp("verifiers") / "mine.py"
    path.write_text(MINE)
    with Verifiers([str(path), "think_format=0.1"], workers=1) as verifiers:
        yield verifiers


SAMPLING = dict(temperature=1.0, max_tokens=24, seed=3)


def test_every_response_is_verified_and_kept(vllm_engine, tied_folder, problems, mine):
    vllm_engine.sync(make_policy(tied_folder))
    calls = []
    results = evaluate(vllm_engine, mine, problems, 6, first=10, on_response=lambda: calls.append(1), **SAMPLING)
    groups = vllm_engine.generate(problems, 6, **SAMPLING)
    assert len(calls) == 24 and [result.index for result in results] == [10, 11, 12, 13]
    assert [result.prompt for result in results] == [problem.prompt for problem in problems]
    assert [result.answer for result in results] == ["0", "1", "2", "3"]
    cut_but_odd = 0
    for result, group in zip(results, groups, strict=True):
        for found, rollout in zip(result.responses, group.rollouts, strict=True):
            odd = len(rollout.tokens) % 2 == 1
            assert (found.text, found.tokens, found.truncated) == (rollout.text, len(rollout.tokens), rollout.truncated)
            assert found.rewards == {"mine": float(odd), "think_format": 0.0} and found.failure is None
            assert found.correct == (odd and not rollout.truncated)
            assert found.final_answer == (rollout.text[:1] or None)
    assert {found.correct for result in results for found in result.responses} == {True, False}
    odd_budget = evaluate(vllm_engine, mine, problems, 6, **(SAMPLING | {"max_tokens": 5}))
    for found in (found for result in odd_budget for found in result.responses):
        cut_but_odd += found.truncated and found.rewards["mine"] == 1.0
        assert not (found.truncated and found.correct)
    assert cut_but_odd > 0


def test_what_came_before_changes_nothing(vllm_engine, tied_folder, mine):
    """A resumed evaluation begins with an empty prefix cache, an uninterrupted one with that of the chunk before. With
    these prompts a filled one would change which requests fit into a pass together, and so the draws."""
    vllm_engine.sync(make_policy(tied_folder))
    long = [Problem("", tuple(3 + (i * 7 + j * (i + 3)) % 200 for j in range(160)), {"answer": ""}) for i in range(64)]
    fresh = evaluate(vllm_engine, mine, long, 1, **SAMPLING)
    assert evaluate(vllm_engine, mine, long, 1, **SAMPLING) == fresh


def test_a_failing_verifier_is_counted_and_wrong(vllm_engine, tied_folder, problems, tmp_path):
    path = tmp_path / "moody.py"
    path.write_text("def reward(answer):\n    if answer == '2': raise RuntimeError('no')\n    return 1.0\n")
    vllm_engine.sync(make_policy(tied_folder))
    with Verifiers([str(path)], workers=1) as verifiers:
        results = evaluate(vllm_engine, verifiers, problems, 2, **(SAMPLING | {"max_tokens": 150}))
    assert [[r.failure for r in result.responses] for result in results] == [[None] * 2] * 2 + [
        ["error"] * 2,
        [None] * 2,
    ]
    assert not any(r.correct for r in results[2].responses)
    assert measure(results).failures == 2 and measure(results).maj_at == {}


@pytest.mark.parametrize(
    "body,message",
    [("raise KeyError('x')", "raised KeyError: 'x', on the response that begins"), ("return 5", "returned 5")],
)
def test_a_final_answer_that_will_not_do_ends_the_evaluation(tmp_path, body, message):
    path = tmp_path / "bad.py"
    path.write_text(f"def reward(response): return 1.0\ndef final_answer(response): {body}\n")
    with Verifiers([str(path)], workers=1) as verifiers, pytest.raises(UserError, match=message):
        verifiers.final_answer("some text")


def test_the_first_verifier_gives_the_answers(mine):
    with Verifiers(["think_format", "math_answer"], workers=1) as verifiers:
        assert verifiers.final_answer(r"\boxed{4}") is None
    assert mine.final_answer("xyz") == "x"


@pytest.mark.parametrize(
    "verifier,text,answer",
    [
        ("math_answer", r"so \boxed{\dfrac{1}{2}}.", r"\frac12"),
        ("math_answer", r"It is $\frac12$.", r"\frac12"),
        ("math_answer", r"\boxed{1,250}", "1250"),
        ("math_answer", r"\boxed{\$1,250}", "1250"),
        ("math_answer", r"\boxed{\text{(A)}}", "(A)"),
        ("math_answer", r"\boxed{\{1, 2\}}", "⦃1,2⦄"),
        ("math_answer", "So she pays $1,250 in total.", "1250"),
        ("math_answer", "The answer is 18 dollars.", "18"),
        ("math_answer", r"\boxed{1} and \boxed{2}", "1,2"),
        ("math_answer", r"first \boxed{1}. Then \boxed{2}", "2"),
        ("math_answer", r"\boxed{", None),
        ("math_answer", "", None),
        ("math_answer", r"\boxed{" + "9" * 2000 + "}", None),
        ("gsm8k", "#### 1,250.50", "2501/2"),
        ("gsm8k", r"\boxed{\frac{2}{4}}", "1/2"),
        ("gsm8k", "none", None),
        ("exact", r"\boxed{ Paris }", "Paris"),
        ("exact", "  ", None),
        ("choice", "the answer is (b).", "B"),
        ("choice", "B or C", None),
        ("sorted_list", "<answer>1, 2,3</answer>", "1 2 3"),
        ("sorted_list", "no", None),
        ("countdown", r"\boxed{1+2}", None),  # right answers differ: it has no final_answer
    ],
)
def test_final_answers(verifier, text, answer):
    with Verifiers([verifier], workers=1) as verifiers:
        assert verifiers.final_answer(text) == answer


def test_a_training_evaluation_writes_what_it_measured(tmp_path, monkeypatch):
    """Also with several responses; files of two runs or steps can be compared."""
    from grpo.train import main

    monkeypatch.chdir(tmp_path)
    flags = "--problems-per-step 2 --responses-per-problem 2 --steps 1 --wandb off --name run --engine hf".split()
    assert main([*flags, "--eval-problems", "6", "--eval-responses", "3"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "runs" / "run" / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        results = read_results(tmp_path / "runs" / "run" / "evaluations" / f"step-{row['step']:06d}.jsonl")
        assert len(results) == 6 and {len(result.responses) for result in results} == {3}
        assert {key: value for key, value in row.items() if key.startswith("eval/")} == training_metrics(results)
        assert row["eval/accuracy_low"] < row["eval/accuracy"] < row["eval/accuracy_high"]
