"""Advantages against numbers computed by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grpo.advantages import ADVANTAGES, EPSILON, centred, equal_rewards, group_normalised

REWARDS = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]])


def test_centred_by_hand():
    # Means 1/4 and 1/2.
    expected = torch.tensor([[0.75, -0.25, -0.25, -0.25], [0.5, 0.5, -0.5, -0.5]])
    torch.testing.assert_close(centred(REWARDS), expected, rtol=0, atol=0)


def test_group_normalised_by_hand():
    # Row 1: squares 9/16 + 3/16 = 3/4, over G - 1 = 3: variance 1/4, std 1/2. With ddof 0 it would be sqrt(3/16).
    # Row 2: squares 4/4, over 3: std sqrt(1/3).
    first = [0.75 / (0.5 + EPSILON), *[-0.25 / (0.5 + EPSILON)] * 3]
    std = math.sqrt(1 / 3)
    second = [0.5 / (std + EPSILON)] * 2 + [-0.5 / (std + EPSILON)] * 2
    torch.testing.assert_close(group_normalised(REWARDS), torch.tensor([first, second]), rtol=1e-6, atol=0)
    assert EPSILON == 1e-4


@pytest.mark.parametrize("name", ADVANTAGES)
@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -3.3, 1e6])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
def test_equal_rewards_give_exactly_zero(name, value, size):
    # 0.1 * 3 / 3 is not 0.1 in floating point: an inexact mean must not turn into an advantage.
    advantages = ADVANTAGES[name](torch.full((2, size), value))
    assert torch.equal(advantages, torch.zeros(2, size))


def test_groups_do_not_touch_each_other():
    for advantage in ADVANTAGES.values():
        alone = torch.cat([advantage(REWARDS[:1]), advantage(REWARDS[1:])])
        torch.testing.assert_close(advantage(REWARDS), alone, rtol=0, atol=0)


@given(
    rewards=st.lists(st.integers(-8, 8), min_size=2, max_size=8),
    shift=st.integers(-8, 8),
    scale=st.sampled_from([0.5, 2.0, 4.0]),
)
def test_shift_and_scale(rewards, shift, scale):
    """Both ignore a shift; a scale goes through `centred`, and out of `group_normalised` but for epsilon."""
    rewards = torch.tensor([rewards], dtype=torch.float64)
    for advantage in ADVANTAGES.values():
        torch.testing.assert_close(advantage(rewards + shift), advantage(rewards), atol=1e-9, rtol=0)
    torch.testing.assert_close(centred(scale * rewards), scale * centred(rewards), atol=1e-9, rtol=0)
    torch.testing.assert_close(group_normalised(scale * rewards), group_normalised(rewards), atol=1e-2, rtol=1e-3)


def test_equal_rewards():
    assert equal_rewards(torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.5, 0.5]])).tolist() == [True, False, True]


@pytest.mark.parametrize("wrong", [torch.ones(4), torch.ones(2, 2, 2), torch.ones(2, 2, dtype=torch.int64)])
def test_wrong_shape_or_type_is_refused(wrong):
    for advantage in ADVANTAGES.values():
        with pytest.raises(ValueError, match=r"\[P, G\]"):
            advantage(wrong)
