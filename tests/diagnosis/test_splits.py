"""Counts, contamination, and a step that asks more than there is."""

from made_up import bad, one

from grpo.diagnosis.splits import split_findings


def rows(*numbers):
    return [{"problem": f"{number}+1="} for number in numbers]


def found(train, test, problems_per_step=2, steps=5):
    return list(split_findings(train, test, data="mine", problems_per_step=problems_per_step, steps=steps))


def test_splits_that_are_apart():
    (finding,) = found(rows(1, 2, 3, 4), rows(5))
    assert finding.found == "mine: 4 problems to train on, 1 held out; 5 steps of 2 ask each about 2.5 times"


def test_contamination_and_a_step_larger_than_the_data():
    assert "2 held-out problems are also trained on" in one(found(rows(1, 2, 3), rows(2, 3, 9)), "warning").found
    assert "--problems-per-step to 3" in one(found(rows(1, 2, 3), [], problems_per_step=4), "warning").advice
    assert not bad(found(rows(1, 2, 3), [], problems_per_step=3))
