"""What the results of an evaluation come to, by hand."""

import json
from dataclasses import replace

import pytest
from synthetic_evaluations import RESULTS, problem, response

from grpo.errors import UserError
from grpo.evaluation.measures import accuracy_by, measure, training_metrics
from grpo.evaluation.pairing import paired
from grpo.evaluation.results import read_results
from grpo.intervals import Estimate
from grpo.logs.metric_names import METRICS

WEIGHTS = {"exact": 2.0}


def test_measures_by_hand():
    found = measure(RESULTS, [1, 2, 3, 4])
    assert (found.problems, found.responses, found.failures) == (3, 3, 1)
    assert found.accuracy.value == pytest.approx((2 / 3 + 1 / 3 + 0) / 3)
    assert found.accuracy.low == 0.0 and found.accuracy.high == pytest.approx(2 / 3)  # of 27 resamples: the ends
    # pass@2: of three pairs, all hold one of two correct ones; two hold the single correct one; none.
    assert {k: e.value for k, e in found.pass_at.items()} == pytest.approx({1: 1 / 3, 2: (1 + 2 / 3) / 3, 3: 2 / 3})
    # maj@3: 7 twice: correct. 8 and 7 tie, and the truncated one has no vote: a half. 9 twice: incorrect.
    # maj@2, the first two: correct; 8 alone: incorrect; incorrect.
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
    correct = [problem(i, *[response(True)] * 2, prompt=f"p{i % 2}", level=1) for i in range(8)]
    incorrect = [problem(i, *[response(False)] * 2, prompt=f"p{i % 2}", level=1) for i in range(8)]
    two = (1.0, pytest.approx(0.025**0.5), 1.0)
    found = measure(correct)
    assert (found.problems, found.accuracy, found.pass_at[2], found.maj_at[2]) == (8, two, two, two)
    assert accuracy_by(correct, "level") == {1: (8, two)}
    problems, difference = paired(incorrect, correct)
    assert (problems, difference.p_value) == (8, 0.5)


def test_the_keys_of_training_are_explained_and_by_hand():
    found = training_metrics({"a": RESULTS}, WEIGHTS)
    assert set(found) <= set(METRICS) and {"eval/pass@k", "eval/maj@k"} <= set(found)
    assert found["eval/accuracy"] == pytest.approx(1 / 3) and found["eval/accuracy_high"] == pytest.approx(2 / 3)
    assert (found["eval/pass@k"], found["eval/maj@k"], found["eval/failures"]) == (pytest.approx(2 / 3), 0.5, 1.0)
    single = training_metrics({"a": [problem(0, response(True)), problem(1, response(False))]}, WEIGHTS)
    assert not {"eval/pass@k", "eval/maj@k"} & set(single)
    assert single["eval/accuracy"] == 0.5 and single["eval/length_incorrect"] == 10.0
    assert training_metrics({"a": [problem(0, response(True))]}, WEIGHTS)["eval/length_incorrect"] is None


def test_several_sets_have_keys_of_their_own_beside_those_of_all_their_problems():
    sets = {"easy": [problem(0, response(True))], "hard": [problem(1, response(False)), problem(2, response(False))]}
    found = training_metrics(sets, WEIGHTS)
    assert {key.rpartition("/")[0] for key in found} == {"eval", "eval/easy", "eval/hard"}
    assert (found["eval/easy/accuracy"], found["eval/hard/accuracy"]) == (1.0, 0.0)
    assert found["eval/accuracy"] == pytest.approx(1 / 3)  # of the three problems
    assert (found["eval/easy/reward"], found["eval/hard/reward"]) == (2.0, 0.0)
    assert found["eval/reward"] == pytest.approx(2 / 3)


def test_the_reward_is_the_weighted_sum_and_what_does_not_apply_is_0():
    graded = replace(response(False), rewards={"grade": 0.5, "form": None})
    formed = replace(response(False), rewards={"grade": 0.25, "form": 1.0})
    found = training_metrics({"a": [problem(0, graded, formed)]}, {"grade": 1.0, "form": 0.1})
    assert found["eval/reward"] == pytest.approx((0.5 + 0.25 + 0.1) / 2)


def test_a_training_evaluation_writes_what_it_measured(tmp_path, monkeypatch):
    """Also with several responses, and of each step by itself."""
    from grpo.train import main

    monkeypatch.chdir(tmp_path)
    flags = "--problems-per-step 2 --responses-per-problem 2 --steps 1 --wandb off --name run --engine hf".split()
    assert main([*flags, "--eval-problems", "6", "--eval-responses", "3"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "runs" / "run" / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        results = read_results(tmp_path / "runs" / "run" / "evaluations" / f"step-{row['step']:06d}.jsonl")
        assert len(results) == 6 and {len(result.responses) for result in results} == {3}
        assert {key: value for key, value in row.items() if key.startswith("eval/")} == training_metrics(
            {"arithmetic": results}, {"math_answer": 1.0}
        )
        assert row["eval/accuracy_low"] < row["eval/accuracy"] < row["eval/accuracy_high"]
