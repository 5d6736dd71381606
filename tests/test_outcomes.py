"""What correct and truncated mean."""

import math

import pytest
import torch

from grpo.outcomes import correct, is_correct, lengths, passes, truncated
from grpo.records import Group, Problem, Rewards, Rollout

VALUES = [1.0, 1.5, 0.999, 0.0, -1.0, math.nan]


def rewards(values):
    first, second = torch.tensor([values]), torch.full((1, len(values)), 7.0)
    return Rewards(first + second, {"first": first, "second": second}, {}, {})


@pytest.mark.parametrize("value,expected", list(zip(VALUES, [True, True, False, False, False, False], strict=True)))
def test_full_marks_from_the_first_verifier_are_correct(value, expected):
    assert is_correct(value) is expected
    assert correct(rewards([value])).item() is expected


def test_a_verifier_that_does_not_apply_does_not_say_correct():
    assert not is_correct(None)


def test_an_evaluation_counts_no_response_that_was_cut():
    assert passes(1.0, truncated=False)
    assert not passes(1.0, truncated=True) and not passes(0.5, truncated=False)


def test_truncated_and_lengths_are_those_of_the_rollouts():
    rollouts = (Rollout((5, 6, 1), (0.0,) * 3, "", False), Rollout((5,) * 4, (0.0,) * 4, "", True))
    groups = [Group(Problem("", (), {}), rollouts), Group(Problem("", (), {}), rollouts[::-1])]
    assert truncated(groups).tolist() == [[False, True], [True, False]]
    assert lengths(groups).tolist() == [[3.0, 4.0], [4.0, 3.0]]
