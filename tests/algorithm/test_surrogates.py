"""Surrogates against hand-computed numbers: values, gradients, and which tokens were clipped."""

import math

import pytest
import torch
from token_losses import loss_of

from grpo.algorithm.ratios import RATIOS
from grpo.algorithm.surrogates import SURROGATES


def test_clip_by_hand():
    # Ratios 1.5 and 0.5, advantages +2 and -2, clip 0.8 .. 1.2.
    up, down = math.log(1.5), math.log(0.5)
    token = loss_of([[up, down], [up, down]], [[0.0, 0.0]] * 2, [2.0, -2.0])
    # A = +2: min(3, 2.4) and min(1, 1.6); A = -2: min(-3, -2.4) and min(-1, -1.6).
    expected = [[-2.4, -1.0], [3.0, 1.6]]
    torch.testing.assert_close(token.loss, torch.tensor(expected, dtype=torch.float64))
    assert token.clip_high.tolist() == [[True, False], [False, False]]
    assert token.clip_low.tolist() == [[False, False], [False, True]]
    assert token.importance.tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert token.kl is None


def test_clip_sides_are_separate():
    up, down = math.log(1.25), math.log(0.75)
    high = loss_of([[up]], [[0.0]], [1.0], clip_high=0.28)
    torch.testing.assert_close(high.loss, torch.tensor([[-1.25]], dtype=torch.float64))  # inside 1.28
    assert not high.clip_high.any()
    low = loss_of([[down]], [[0.0]], [-1.0], clip_low=0.3)
    torch.testing.assert_close(low.loss, torch.tensor([[0.75]], dtype=torch.float64))  # inside 0.7
    assert not low.clip_low.any()


@pytest.mark.parametrize(
    "surrogate,loss,gradient,clip_high",
    [
        # Ratios 6 and 0.5 (log-probabilities log 6 - 1 and log 0.5 - 1 against -1), A = 2.
        ("naive", [-2 * (math.log(6) - 1), -2 * (math.log(0.5) - 1)], [-2, -2], [False, False]),
        ("unclipped", [-12, -1], [-12, -1], [False, False]),
        ("clipped", [-2.4, -1], [0, -1], [True, False]),
        ("cispo", [-5 * 2 * (math.log(6) - 1), -0.5 * 2 * (math.log(0.5) - 1)], [-10, -1], [True, False]),
    ],
)
def test_every_surrogate_by_hand(surrogate, loss, gradient, clip_high):
    logprobs = torch.tensor([[math.log(6) - 1, math.log(0.5) - 1]], dtype=torch.float64, requires_grad=True)
    token = loss_of(logprobs, [[-1.0, -1.0]], [2.0], surrogate=surrogate)
    token.loss.sum().backward()
    torch.testing.assert_close(token.loss.detach(), torch.tensor([loss], dtype=torch.float64))
    torch.testing.assert_close(logprobs.grad, torch.tensor([gradient], dtype=torch.float64))
    assert token.clip_high.tolist() == [clip_high] and not token.clip_low.any()


def test_clipped_tokens_have_no_gradient_and_the_others_do():
    logprobs = torch.tensor([[math.log(1.5), math.log(0.5)]] * 2, dtype=torch.float64, requires_grad=True)
    loss_of(logprobs, torch.zeros(2, 2), [2.0, -2.0]).loss.sum().backward()
    # d(-ratio A)/dl = -ratio A where not clipped: row 1 (A=2): 0 and -1; row 2 (A=-2): 3 and 0.
    torch.testing.assert_close(logprobs.grad, torch.tensor([[0.0, -1.0], [3.0, 0.0]]).double())


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("ratio", RATIOS)
def test_on_policy_gradient_is_the_plain_policy_gradient(surrogate, ratio):
    """With old = current the weighted gradient is that of -A l, whatever the log-probability: no quotient of logs."""
    logprobs = torch.tensor([[-0.1, -2.0, -30.0]], dtype=torch.float64, requires_grad=True)
    token = loss_of(logprobs, logprobs.detach(), [0.7], surrogate=surrogate, ratio=ratio)
    token.loss.sum().backward()
    each = 3 if ratio == "product" and surrogate not in ("naive", "cispo", "geometric") else 1
    torch.testing.assert_close(logprobs.grad, torch.full((1, 3), -0.7 * each).double(), rtol=1e-6, atol=0)


def test_dual_clip_by_hand():
    """Ratio 6 and A = -2: the clip lets the loss grow to 12; with c = 3 it stops at 6, without a gradient."""
    logprobs = torch.tensor([[math.log(6.0), math.log(2.0)]], dtype=torch.float64, requires_grad=True)
    token = loss_of(logprobs, [[0.0, 0.0]], [-2.0], dual_clip=3.0)
    token.loss.sum().backward()
    assert token.loss[0].tolist() == pytest.approx([6.0, 4.0]) and logprobs.grad[0].tolist() == pytest.approx([0, 4])
    assert token.clip_dual.tolist() == [[True, False]]
    assert loss_of([[math.log(6.0)]], [[0.0]], [-2.0]).loss.item() == pytest.approx(12.0)
    up = loss_of([[math.log(6.0)]], [[0.0]], [2.0], dual_clip=3.0)
    assert up.loss.item() == pytest.approx(-2.4) and not up.clip_dual.any() and up.clip_high.all()


def test_geometric_by_hand():
    """Differences 1.0, -0.2 and -1.0 under limits of 0.4: A > 0 cuts the first, A < 0 the last, before the mean."""
    logprobs = torch.tensor([[1.0, -0.2, -1.0]] * 2, dtype=torch.float64, requires_grad=True)
    token = loss_of(logprobs, torch.zeros(2, 3), [2.0, -2.0], surrogate="geometric", clip_low=0.4, clip_high=0.4)
    up, down = math.exp((0.4 - 0.2 - 1.0) / 3), math.exp((1.0 - 0.2 - 0.4) / 3)
    assert token.loss[0].tolist() == pytest.approx([-2 * up] * 3)
    assert token.loss[1].tolist() == pytest.approx([2 * down] * 3)
    token.loss[:, 0].sum().backward()  # one of the three equal losses: its gradient is shared by the tokens' means
    third = [2 * up / 3, 2 * down / 3]
    assert logprobs.grad[0].tolist() == pytest.approx([0, -third[0], -third[0]])
    assert logprobs.grad[1].tolist() == pytest.approx([third[1], third[1], 0])
    assert token.clip_high.tolist() == [[True, False, False], [False] * 3]
    assert token.clip_low.tolist() == [[False] * 3, [False, False, True]]


def test_soft_gate_by_hand():
    """At a ratio of 1 the value is -2 A / tau and the gradient -A; at 3, -A (4 / tau) sigmoid(2 tau)."""
    for advantage, tau in ((0.5, 1.0), (-0.5, 1.05)):
        logprobs = torch.tensor([[0.0, math.log(3.0)]], dtype=torch.float64, requires_grad=True)
        token = loss_of(logprobs, torch.zeros(1, 2), [advantage], surrogate="soft_gate")
        gate = 1 / (1 + math.exp(-2 * tau))
        assert token.loss[0].tolist() == pytest.approx([-2 * advantage / tau, -advantage * 4 / tau * gate])
        token.loss.sum().backward()
        assert logprobs.grad[0].tolist() == pytest.approx([-advantage, -advantage * 4 * gate * (1 - gate) * 3])
