"""Advantages against numbers computed by hand, and how each behaves under shift and scale."""

import doctest
import math
from dataclasses import replace

import formulas
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grpo.algorithm import advantages
from grpo.algorithm.advantages import ADVANTAGES, EPSILON, AdvantageInputs, equal_rewards
from grpo.algorithm.ingredients import load_advantage

WITHIN_THE_GROUP = [name for name in ADVANTAGES if name not in ("raw", "max_only", "gae")]
BATCH = ["batch_normalized", "batch_scaled"]
REWARDS = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
# Group means 1/4 and 1/2. Centred squares: 9/16 + 3/16 = 3/4 and 4/4 = 1. Deviations with ddof 1: sqrt(3/4 / 3) = 1/2,
# sqrt(1/3), and over the batch of eight, whose centred mean is 0, sqrt(7/4 / 7) = 1/2. With ddof 0: others.
HALF, THIRD, RAW = 0.5 + EPSILON, math.sqrt(1 / 3) + EPSILON, math.sqrt(15 / 56) + EPSILON
LENGTHS = torch.tensor([[1.0, 2.0, 3.0, 4.0]] * 2)
BY_HAND = {
    "raw": [[1, 0, 0, 0], [1, 1, 0, 0]],
    "gae": [[1, 0, 0, 0], [1, 1, 0, 0]],
    "max_only": [[1, 0, 0, 0], [1, 1, 0, 0]],
    "centered": [[0.75, -0.25, -0.25, -0.25], [0.5, 0.5, -0.5, -0.5]],
    "leave_one_out": [[1, -1 / 3, -1 / 3, -1 / 3], [2 / 3, 2 / 3, -2 / 3, -2 / 3]],
    "group_normalized": [[0.75 / HALF, *[-0.25 / HALF] * 3], [0.5 / THIRD] * 2 + [-0.5 / THIRD] * 2],
    "batch_normalized": [[0.75 / HALF, *[-0.25 / HALF] * 3], [0.5 / HALF] * 2 + [-0.5 / HALF] * 2],
    # The raw rewards: three of eight are 1, squares 8 * 3/8 * 5/8 = 15/8, ddof 1: sqrt(15/8 / 7).
    "batch_scaled": [[0.75 / RAW, *[-0.25 / RAW] * 3], [0.5 / RAW] * 2 + [-0.5 / RAW] * 2],
    "mean_normalized": [[3, -1, -1, -1], [1, 1, -1, -1]],
    # Lengths 1, 2, 3, 4: baselines 1/10 and 3/10.
    # beta 0.1 and a policy that is the reference: half of beta for the first best, and minus that for the last worst.
    "best_worst": [[0.05, 0, 0, -0.05], [0.05, 0, 0, -0.05]],
    "optimal_baseline": [[0.9, -0.1, -0.1, -0.1], [0.7, 0.7, -0.3, -0.3]],
}


def advantage(name, rewards, lengths=None):
    """By name, as the trainer calls it; responses of one token where no lengths are given."""
    inputs = AdvantageInputs.of_rewards(rewards)
    return load_advantage(name)(inputs if lengths is None else replace(inputs, lengths=lengths))


@pytest.mark.parametrize("name", ADVANTAGES)
def test_by_hand(name):
    assert EPSILON == 1e-4
    torch.testing.assert_close(
        advantage(name, REWARDS, LENGTHS), torch.tensor(BY_HAND[name]).float(), rtol=1e-6, atol=1e-7
    )


@given(st.lists(st.lists(st.integers(-5, 5), min_size=4, max_size=4), min_size=2, max_size=4))
def test_equal_the_formulas_written_by_another_hand(rewards):
    found = torch.tensor(rewards, dtype=torch.float64)
    lengths = [[1 + (3 * p + 5 * g) % 7 for g in range(4)] for p in range(len(rewards))]
    for name in ADVANTAGES:
        expected = torch.tensor(formulas.advantages(name, rewards, lengths), dtype=torch.float64)
        ours = advantage(name, found, torch.tensor(lengths, dtype=torch.float64))
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


def test_worked_examples():
    failed, attempted = doctest.testmod(advantages)
    assert failed == 0 and attempted == len(ADVANTAGES) - 1  # `gae` has its own in gae.py


@pytest.mark.parametrize("name", WITHIN_THE_GROUP)
@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -3.3, 1e6])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
def test_equal_rewards_give_exactly_zero(name, value, size):
    # 0.1 * 3 / 3 is not 0.1 in floating point: an inexact mean must not turn into an advantage.
    found = advantage(name, torch.full((2, size), value))
    assert torch.equal(found, torch.zeros(2, size))


@pytest.mark.parametrize("name", ADVANTAGES)
def test_a_group_of_one_is_finite(name):
    assert torch.isfinite(advantage(name, torch.tensor([[1.0]]))).all()
    assert torch.isfinite(advantage(name, torch.tensor([[1.0], [0.0]]))).all()


@pytest.mark.parametrize("name", [name for name in ADVANTAGES if name not in BATCH])
def test_groups_do_not_touch_each_other(name):
    alone = torch.cat([advantage(name, REWARDS[:1], LENGTHS[:1]), advantage(name, REWARDS[1:], LENGTHS[1:])])
    torch.testing.assert_close(advantage(name, REWARDS, LENGTHS), alone, rtol=0, atol=0)


SHIFT_PASSES_THROUGH = ["raw", "gae"]
SHIFT_IS_IGNORED = [name for name in WITHIN_THE_GROUP if name != "mean_normalized"]
SCALE_PASSES_THROUGH = ["raw", "gae", "max_only", "centered", "leave_one_out", "optimal_baseline"]


@given(
    rewards=st.lists(st.integers(-8, 8), min_size=2, max_size=8),
    shift=st.integers(-8, 8),
    scale=st.sampled_from([0.5, 2.0, 4.0]),
)
def test_shift_and_scale(rewards, shift, scale):
    rewards = torch.tensor([rewards], dtype=torch.float64)
    for name in ADVANTAGES:
        plain = advantage(name, rewards)
        if name in SHIFT_IS_IGNORED:
            torch.testing.assert_close(advantage(name, rewards + shift), plain, atol=1e-9, rtol=0)
        if name in SHIFT_PASSES_THROUGH:
            torch.testing.assert_close(advantage(name, rewards + shift), plain + shift)
        scaled = scale * plain if name in SCALE_PASSES_THROUGH else plain
        # A deviation cancels the scale but for the epsilon beside it.
        tolerance = 1e-9 if name in SCALE_PASSES_THROUGH else 1e-2
        torch.testing.assert_close(advantage(name, scale * rewards), scaled, atol=tolerance, rtol=1e-3)


def test_the_best_and_the_worst_are_pulled_by_dpos_slope():
    """h = 2 ln 3 under beta 1/2: beta h = ln 3, whose slope is -1/8; what stands between counts for nothing."""
    ratios = torch.tensor([[0.7, math.log(3), 9.0, -math.log(3)]])
    inputs = AdvantageInputs.of_rewards(torch.tensor([[0.5, 1.0, 0.5, 0.0]]))
    found = load_advantage("best_worst")(replace(inputs, log_ratio=ratios, dpo_beta=0.5))
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.125, 0.0, -0.125]]))
    shifted = load_advantage("best_worst")(replace(inputs, log_ratio=ratios + 5, dpo_beta=0.5))
    torch.testing.assert_close(shifted, found)


def test_equal_rewards():
    assert equal_rewards(torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.5, 0.5]])).tolist() == [True, False, True]


@pytest.mark.parametrize("name", ADVANTAGES)
@pytest.mark.parametrize("wrong", [torch.ones(4), torch.ones(2, 2, 2), torch.ones(2, 2, dtype=torch.int64)])
def test_wrong_shape_or_type_is_refused(name, wrong):
    with pytest.raises(ValueError, match=r"\[P, G\]"):
        advantage(name, wrong)
