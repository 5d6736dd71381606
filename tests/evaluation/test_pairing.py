"""Differences between evaluations: over shared problems, of files, and of models under their best templates."""

import pytest
from synthetic_evaluations import cell, named, problem, response

from grpo.errors import UserError
from grpo.evaluation.pairing import PairedDifference, evaluated, file_differences, model_differences, paired
from grpo.intervals import Difference, Estimate


def test_a_difference_is_over_shared_problems_in_whatever_order():
    incorrect = [response(False)] * 2
    first = [problem(i, *incorrect) for i in range(3)]
    second = [problem(5, response(True), prompt="problem 2"), problem(6, response(False), prompt="problem 0")]
    problems, found = paired(first, second)
    assert problems == 2 and found.estimate.value == 0.5
    assert paired(first, [problem(0, response(True), prompt="another")]) is None


def test_a_set_that_asks_the_same_twice_is_paired_in_order():
    first = [problem(0, response(False), prompt="same"), problem(1, response(True), prompt="same")]
    second = [problem(0, response(True), prompt="same"), problem(1, response(True), prompt="same")]
    assert paired(first, second)[1].estimate.value == 0.5


def test_each_model_less_the_first_and_under_its_best_template():
    """The base is best under `plain`, the trained model under `chat`: there the gain is 50 points, not 100."""
    found = [
        named(cell("base", "chat"), [[False]] * 4),
        named(cell("base", "plain"), [[True], [True], [False], [False]]),
        named(cell("new", "chat"), [[True]] * 4),
        named(cell("new", "plain"), [[False]] * 4),
    ]
    differences = model_differences(found)
    values = {(each.where, each.second, each.first): each.difference.estimate.value for each in differences}
    assert values == {
        ("set, chat, sampled", "new", "base"): 1.0,
        ("set, plain, sampled", "new", "base"): -0.5,
        ("set, best templates, sampled", "new (chat)", "base (plain)"): 0.5,
    }
    assert {each.problems for each in differences} == {4}
    assert model_differences(found[:2]) == []


def test_files_on_different_data_are_refused():
    other = evaluated({"file": "b"}, [problem(0, response(True), prompt="x")], None)
    with pytest.raises(UserError, match="b and a have no problem in common"):
        file_differences([named({"file": "a"}, [[True]]), other])


def test_each_file_less_the_first():
    found = [
        named({"file": name}, [[i < correct] for i in range(6)]) for name, correct in (("a", 1), ("b", 3), ("c", 0))
    ]
    shown = [(each.second, each.first, each.problems) for each in file_differences(found)]
    assert shown == [("b", "a", 6), ("c", "a", 6)]
    assert [each.difference.estimate.value for each in file_differences(found)] == pytest.approx([2 / 6, -1 / 6])


@pytest.mark.parametrize(
    "value,p_value,verdict", [(0.1, 0.01, "higher"), (-0.1, 0.01, "lower"), (0.1, 0.06, "within noise")]
)
def test_a_verdict_is_by_the_p_value(value, p_value, verdict):
    difference = Difference(Estimate(value, None, None), p_value)
    assert PairedDifference("", "b", "a", 9, difference).verdict == verdict
