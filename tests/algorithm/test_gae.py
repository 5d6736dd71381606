"""Credit by a critic: numbers by hand, a second implementation, and what must not matter."""

import math
from dataclasses import replace

import pytest
import torch
from conftest import make_batch
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor

from grpo.algorithm.credit import credit_by_critic
from grpo.algorithm.gae import explained_variance, gae, token_rewards, value_loss, whiten
from grpo.algorithm.table import ALGORITHMS

ALL = torch.ones(1, 3, dtype=torch.bool)


def close(found, expected, tolerance=1e-6):
    torch.testing.assert_close(found, tensor(expected, dtype=found.dtype), rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "discount,decay,expected",
    [
        (1.0, 0.5, [1 / 16, 5 / 8, 1 / 4]),
        (1.0, 1.0, [1 / 2, 3 / 4, 1 / 4]),
        (1.0, 0.0, [-1 / 4, 1 / 2, 1 / 4]),
        (0.5, 1.0, [-1 / 4, 1 / 4, 1 / 4]),
    ],
)
def test_three_tokens_by_hand(discount, decay, expected):
    """Rewards (0, 0, 1), values (1/2, 1/4, 3/4)."""
    found = gae(tensor([[0.0, 0.0, 1.0]]), tensor([[0.5, 0.25, 0.75]]), ALL, discount, decay)
    close(found, [expected], 0)


def test_returns_of_the_decay_one_half():
    values = tensor([[0.5, 0.25, 0.75]])
    close(gae(tensor([[0.0, 0.0, 1.0]]), values, ALL, 1.0, 0.5) + values, [[9 / 16, 7 / 8, 1]], 0)


@pytest.mark.parametrize(
    "decay,expected",
    [
        (1.0, [-1.45119, -4.45575, 2.53965, 0.5249, -0.49]),
        (0.7, [-0.67698, -5.24817, 2.48461, 0.67043, -0.49]),
        (0.4, [0.56732, -6.04212, 2.34312, 0.81596, -0.49]),
    ],
)
def test_the_numbers_of_rlax(decay, expected):
    """DeepMind's rlax, whose value after the end, -0.5 discounted, stands here in the last reward: -1 - 0.49."""
    rewards, values = tensor([[0.0, 0.0, 1.0, 0.0, -1.49]]), tensor([[1.0, 4.0, -3.0, -2.0, -1.0]])
    close(gae(rewards, values, torch.ones(1, 5, dtype=torch.bool), 0.99, decay), [expected], 1e-5)


def by_loop(rewards, values, discount, decay):
    """The sum of eq. 16 as it stands, of one response: A_t = sum of (discount decay)^k delta_{t+k}."""
    after = [*values[1:], 0.0]
    deltas = [r + discount * n - v for r, v, n in zip(rewards, values, after, strict=True)]
    return [sum((discount * decay) ** k * delta for k, delta in enumerate(deltas[t:])) for t in range(len(deltas))]


numbers = st.floats(-3, 3)
share = st.floats(0, 1)


@given(st.lists(st.tuples(numbers, numbers, st.booleans()), min_size=1, max_size=9), share, share)
def test_gaps_are_skipped_and_nothing_outside_the_mask_is_read(steps, discount, decay):
    mask = tensor([[kept for _, _, kept in steps]])
    junk = float("nan")
    rewards, values = (tensor([[step[i] if step[2] else junk for step in steps]], dtype=torch.float64) for i in (0, 1))
    found = gae(rewards, values, mask, discount, decay)
    assert not found[~mask].any()
    kept = [(r, v) for r, v, here in steps if here]
    expected = by_loop([r for r, _ in kept], [v for _, v in kept], discount, decay) if kept else []
    close(found[mask], expected, 1e-9)


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8), share, numbers)
def test_what_the_values_and_the_reward_have_in_common_does_not_matter(steps, decay, shift):
    """c on the last reward and on every value, without a discount; padding changes nothing either."""
    rewards, values = (tensor([[step[i] for step in steps]], dtype=torch.float64) for i in (0, 1))
    mask = torch.ones_like(rewards, dtype=torch.bool)
    plain = gae(rewards, values, mask, 1.0, decay)
    moved = rewards.clone()
    moved[:, -1] += shift
    torch.testing.assert_close(gae(moved, values + shift, mask, 1.0, decay), plain, rtol=0, atol=1e-9)
    wide = [torch.nn.functional.pad(each, (2, 3)) for each in (rewards, values, mask)]
    torch.testing.assert_close(gae(*wide, 1.0, decay)[:, 2:-3], plain, rtol=0, atol=0)


def test_the_limits_of_the_decay():
    """1: the reward to go less the value; 0: the error of one step; values of 0: the reward to go."""
    rewards, values = tensor([[0.1, -0.2, 1.0]]), tensor([[0.3, 0.6, 0.2]])
    to_go = tensor([[0.9, 0.8, 1.0]])
    torch.testing.assert_close(gae(rewards, values, ALL, 1.0, 1.0), to_go - values)
    torch.testing.assert_close(gae(rewards, 0 * values, ALL, 1.0, 1.0), to_go)
    close(gae(rewards, values, ALL, 1.0, 0.0), [[0.1 + 0.6 - 0.3, -0.2 + 0.2 - 0.6, 1.0 - 0.2]])


def test_the_expected_advantage_does_not_depend_on_the_decay_of_a_true_critic():
    """Two fair coins, 1 for two heads: V is 1/4, then 1/2 after heads and 0 after tails. Every path, each decay."""
    for decay in (0.0, 0.3, 1.0):
        first = {}
        for a in (0, 1):
            paths = [
                gae(tensor([[0.0, float(a and b)]]), tensor([[0.25, 0.5 * a]]), ALL[:, :2], 1.0, decay)[0, 0]
                for b in (0, 1)
            ]
            first[a] = sum(paths).item() / 2
        assert first == {0: pytest.approx(-0.25), 1: pytest.approx(0.25)}


def test_rewards_of_tokens():
    """beta 0.1, d (.2, -.1, .3), reward 1; the pad after the end gets nothing, nor does a response without a token."""
    mask = tensor([[True, True, True, False], [False, True, False, False], [False] * 4])
    kl = tensor([[0.2, -0.1, 0.3, 7.0], [7.0, 0.5, 7.0, 7.0], [7.0] * 4])
    found = token_rewards(tensor([1.0, -2.0, 5.0]), mask, kl, 0.1)
    close(found, [[-0.02, 0.01, 0.97, 0], [0, -2.05, 0, 0], [0] * 4])
    close(token_rewards(tensor([1.0, -2.0, 5.0]), mask), [[0, 0, 1, 0], [0, -2, 0, 0], [0] * 4], 0)


def test_whitening_by_hand_and_with_any_padding():
    row = tensor([[1.0, 2.0, 3.0, 6.0]])
    expected = [-0.925777, -0.462889, 0.0, 1.388666]
    close(whiten(row, torch.ones(1, 4, dtype=torch.bool)), [expected])
    padded = tensor([[9.0, 1.0, 2.0], [3.0, 6.0, -50.0]])
    mask = tensor([[False, True, True], [True, True, False]])
    close(whiten(padded, mask), [[0, *expected[:2]], [*expected[2:], 0]])
    close(whiten(tensor([[4.0, 7.0]]), tensor([[True, False]])), [[0, 0]], 0)  # one token is only centred
    close(whiten(tensor([[4.0]]), tensor([[False]])), [[0]], 0)


@given(st.lists(numbers, min_size=3, max_size=9), numbers, st.floats(0.5, 5))
def test_whitening_forgets_shift_and_scale(values, shift, scale):
    row = tensor([values], dtype=torch.float64)
    if row.std() < 0.1:
        return
    mask = torch.ones_like(row, dtype=torch.bool)
    found, moved = whiten(row, mask), whiten(scale * row + shift, mask)
    torch.testing.assert_close(found, moved, rtol=1e-2, atol=1e-3)  # 1e-4 stands beside the standard deviation
    assert abs(found.mean().item()) < 1e-9


@pytest.mark.parametrize(
    "value,old,target,loss,slope",
    [(0.5, 0.0, 1.0, 0.32, 0.0), (0.5, 0.9, 1.0, 0.125, -0.5), (1.5, 1.0, 1.3, 0.02, 0.2)],
)
def test_the_clipped_value_loss_by_hand(value, old, target, loss, slope):
    v = tensor([[value]], requires_grad=True)
    found, clipped = value_loss(v, tensor([[old]]), tensor([[target]]), 0.2)
    found.sum().backward()
    assert found.item() == pytest.approx(loss, abs=1e-6) and v.grad.item() == pytest.approx(slope, abs=1e-6)
    assert clipped.item() == (slope == 0)
    assert value_loss(v, tensor([[old]]), tensor([[target]]), 0.0)[0].item() == pytest.approx((value - target) ** 2 / 2)


def test_explained_variance():
    targets, mask = tensor([[0.0, 1.0, 2.0, 99.0]]), tensor([[True, True, True, False]])
    found = [
        explained_variance(tensor([[*v, 5.0]]), targets, mask) for v in ([0.0, 1.0, 1.0], [7.0] * 3, [0, -1.0, -2])
    ]
    assert found == [pytest.approx(2 / 3), pytest.approx(0, abs=1e-9), pytest.approx(-3)]
    assert explained_variance(targets, torch.ones_like(targets), mask) is None


MASK = tensor([[False, True, True], [True, True, False]])
ROW = replace(ALGORITHMS["ppo"], whiten=False, kl_coef=0.0)


def test_credit_of_tokens_and_returns_before_whitening():
    values = tensor([[9.0, 0.5, 0.25], [0.75, 0.5, 9.0]])
    batch = make_batch(MASK, old_values=values)
    total = tensor([[1.0], [0.0]])
    found = credit_by_critic(batch, total, replace(ROW, gae_lambda=0.0, critic_lambda=1.0))
    close(found.of_tokens, [[0, -0.25, 0.75], [-0.25, -0.5, 0]])
    close(found.returns, [[0, 1, 1], [0, 0, 0]])
    close(found.of_responses, [[0.25], [-0.375]])
    white = credit_by_critic(batch, total, replace(ROW, gae_lambda=0.0, whiten=True))
    torch.testing.assert_close(white.of_tokens, whiten(found.of_tokens, MASK))
    assert torch.equal(white.returns, found.returns)
    assert torch.equal(white.on(batch).returns, found.returns) and white.on(batch).advantages is white.of_tokens


def test_each_token_pays_its_own_kl_and_only_there():
    old = tensor([[9.0, -1.0, -1.0], [-1.0, -1.0, 9.0]])
    ref = old - tensor([[5.0, 0.5, 1.0], [0.25, 0.0, 5.0]])
    batch = make_batch(MASK, old_logprobs=old, ref_logprobs=ref)
    found = credit_by_critic(batch, tensor([[1.0], [0.0]]), replace(ROW, kl_coef=0.1))
    close(found.of_tokens, [[0, 0.85, 0.9], [-0.025, 0, 0]])
    close(found.rewards, [[0.85], [-0.025]])
    in_loss = credit_by_critic(batch, tensor([[1.0], [0.0]]), replace(ROW, kl_coef=0.1, kl_in="loss"))
    close(in_loss.of_tokens, [[0, 1, 1], [0, 0, 0]])
    assert math.isclose(ALGORITHMS["ppo"].kl_coef, 0.02) and ALGORITHMS["ppo"].kl_in == "reward"
