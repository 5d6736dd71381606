"""Ratio, surrogates, importance and the whole loss against hand-computed numbers and finite differences."""

import doctest
import math
from dataclasses import replace

import pytest
import torch

from grpo.algorithm import losses
from grpo.algorithm.aggregations import AGGREGATIONS
from grpo.algorithm.kl import KL_ESTIMATORS
from grpo.algorithm.losses import RATIOS, SURROGATES, TokenInputs, policy_token_loss, sequence_ratio, token_ratio
from grpo.algorithm.table import Algorithm

ROW = Algorithm(advantage="centered", aggregation="constant", importance_cap=0)
MASK = torch.tensor([[False, True, True, True], [True, False, False, False]])


def loss_of(logprobs, old, advantages, mask=None, row=ROW, sampler=None, reference=None, entropy=None, **cells):
    """The loss of a row with some cells changed; `advantages` are of responses, [B]."""
    logprobs, old, advantages = (torch.as_tensor(x, dtype=torch.float64) for x in (logprobs, old, advantages))
    mask = torch.ones_like(logprobs, dtype=torch.bool) if mask is None else mask
    spread = advantages[:, None].expand_as(logprobs)
    inputs = TokenInputs(logprobs, old, spread, mask, sampler, reference, entropy)
    return policy_token_loss(inputs, replace(row, **cells))


def test_worked_examples():
    failed, attempted = doctest.testmod(losses)
    assert failed == 0 and attempted > 0


# Ratio -----------------------------------------------------------------------------------------------------------


def test_ratios_by_hand():
    logprobs, old = torch.tensor([[-1.0, -2.0, -3.0]]), torch.tensor([[-1.5, -1.0, 7.0]])
    mask = torch.tensor([[True, True, False]])
    token = token_ratio(logprobs, old, mask)[0, :2].tolist()
    assert token == pytest.approx([math.exp(0.5), math.exp(-1.0)])
    # Mean difference over the response's two tokens: (0.5 - 1) / 2; what stands outside the mask does not count.
    assert sequence_ratio(logprobs, old, mask)[0].tolist() == pytest.approx([math.exp(-0.25)] * 3)


def test_sequence_ratio_of_an_empty_response_is_one():
    assert sequence_ratio(torch.ones(1, 2), torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.bool)).tolist() == [[1, 1]]


# Surrogates ------------------------------------------------------------------------------------------------------


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
    assert set(SURROGATES) == {"naive", "unclipped", "clipped", "cispo"}


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
    torch.testing.assert_close(logprobs.grad, torch.full((1, 3), -0.7).double())


@pytest.fixture
def off_policy():
    """Everything that a loss reads, with ratios inside and outside the limits."""
    torch.manual_seed(0)
    old, reference, sampler = (torch.randn(2, 4, dtype=torch.float64) * 0.3 - 1 for _ in range(3))
    new = old + 0.25 * torch.randn(2, 4, dtype=torch.float64)
    assert torch.exp(new - old).max() > 1.2 and torch.exp(new - old).min() < 0.8
    return new, old, reference, sampler


def whole(logprobs, off_policy, aggregation, **kwargs):
    """The number that is differentiated: every term is there."""
    _, old, reference, sampler = off_policy
    token = loss_of(
        logprobs, old, [0.8, -1.1], mask=MASK, sampler=sampler, importance_cap=2.0, reference=reference,
        kl_coef=0.3, entropy=logprobs.square(), entropy_coef=0.2, **kwargs,
    )  # fmt: skip
    return (AGGREGATIONS[aggregation](MASK, 10).double() * token.loss).sum()


@pytest.mark.parametrize("estimator", KL_ESTIMATORS)
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("ratio,surrogate", [(r, s) for r in RATIOS for s in SURROGATES if s != "cispo"])
def test_gradient_equals_finite_differences(off_policy, estimator, aggregation, ratio, surrogate):
    options = dict(kl_estimator=estimator, ratio=ratio, surrogate=surrogate)
    start = off_policy[0].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda new: whole(new, off_policy, aggregation, **options), (start,))


@pytest.mark.parametrize("ratio", RATIOS)
def test_cispos_gradient_is_that_of_a_fixed_weight(off_policy, ratio):
    """Its ratio is detached, which a finite difference cannot see: compare with the weight computed beforehand."""
    new, old, _, sampler = off_policy
    logprobs = new.clone().requires_grad_()
    token = loss_of(
        logprobs, old, [0.8, -1.1], mask=MASK, sampler=sampler, importance_cap=2.0, ratio_cap=1.1, ratio=ratio,
        surrogate="cispo",
    )  # fmt: skip
    (found,) = torch.autograd.grad((token.loss * MASK).sum(), logprobs)
    weight = RATIOS[ratio](new, old, MASK).clamp(max=1.1) * torch.exp(old - sampler).clamp(max=2.0)
    torch.testing.assert_close(found, -weight * torch.tensor([[0.8], [-1.1]]).double() * MASK)


@pytest.mark.parametrize("extreme", [1e3, -1e3])
@pytest.mark.parametrize("advantage", [1.0, -1.0, 0.0])
@pytest.mark.parametrize("ratio,surrogate", [(r, s) for r in RATIOS for s in SURROGATES])
def test_extreme_ratios_stay_finite(extreme, advantage, ratio, surrogate):
    logprobs = torch.tensor([[extreme]], requires_grad=True)
    token = loss_of(
        logprobs, torch.zeros(1, 1), [advantage], sampler=torch.full((1, 1), -extreme), importance_cap=2.0,
        reference=torch.zeros(1, 1), kl_coef=0.1, kl_estimator="k3_ratio", ratio=ratio, surrogate=surrogate,
    )  # fmt: skip
    token.loss.sum().backward()
    assert torch.isfinite(token.loss).all() and torch.isfinite(logprobs.grad).all()


# Importance correction -------------------------------------------------------------------------------------------


def test_importance_weight_by_hand():
    """min(exp(old - sampler), cap): 1.5 passes, 3 is cut to 2; on the policy term and not on the KL."""
    old = [[0.0, 0.0]]
    sampler = torch.tensor([[-math.log(1.5), -math.log(3.0)]], dtype=torch.float64)
    reference = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    token = loss_of(old, old, [1.0], sampler=sampler, importance_cap=2.0, reference=reference, kl_coef=0.5)
    kl = math.exp(1.0) - 1 - 1.0  # k3 at d = -1
    torch.testing.assert_close(token.importance, torch.tensor([[1.5, 2.0]], dtype=torch.float64))
    torch.testing.assert_close(token.loss, torch.tensor([[-1.5 + 0.5 * kl, -2.0 + 0.5 * kl]], dtype=torch.float64))


def test_importance_weight_is_detached():
    logprobs = torch.tensor([[-1.0]], dtype=torch.float64, requires_grad=True)
    token = loss_of(logprobs, logprobs.detach(), [1.0], sampler=torch.tensor([[-1.5]]).double(), importance_cap=2.0)
    token.loss.sum().backward()
    torch.testing.assert_close(logprobs.grad, torch.tensor([[-math.exp(0.5)]]).double())
    assert not token.importance.requires_grad


def test_no_cap_means_no_correction():
    token = loss_of([[0.0]], [[0.0]], [1.0], sampler=torch.tensor([[-5.0]]).double(), importance_cap=0)
    assert token.loss.item() == -1.0


# KL and entropy --------------------------------------------------------------------------------------------------


def test_kl_is_logged_as_k3_whatever_the_loss_uses():
    for estimator in KL_ESTIMATORS:
        reference = torch.tensor([[-1.5]]).double()
        token = loss_of([[-1.0]], [[-1.0]], [0.0], reference=reference, kl_coef=0.1, kl_estimator=estimator)
        assert token.kl.item() == pytest.approx(math.exp(-0.5) - 1 + 0.5)
        assert not token.kl.requires_grad


def test_entropy_bonus_lowers_the_loss():
    token = loss_of([[0.0]], [[0.0]], [1.0], entropy=torch.tensor([[0.5]]).double(), entropy_coef=0.1)
    assert token.loss.item() == pytest.approx(-1.0 - 0.05)


def test_a_kl_term_without_reference_is_refused():
    with pytest.raises(ValueError, match="reference"):
        loss_of([[0.0]], [[0.0]], [1.0], kl_coef=0.1)


@pytest.mark.parametrize("name", ["old_logprobs", "advantages", "sampler_logprobs", "ref_logprobs", "entropy"])
def test_a_wrong_shape_is_refused_by_name(name):
    """[B, 1] would broadcast, and [B] would not; both are named."""
    right = dict.fromkeys(["logprobs", "old_logprobs", "advantages", "entropy", "ref_logprobs"], torch.zeros(2, 3))
    right |= {"sampler_logprobs": torch.zeros(2, 3), "mask": torch.ones(2, 3, dtype=torch.bool)}
    TokenInputs(**right)
    for wrong in (torch.zeros(2, 1), torch.zeros(2), torch.zeros(3, 2)):
        with pytest.raises(ValueError, match=rf"{name} must be \[B, T\] = \[2, 3\], as logprobs is"):
            TokenInputs(**right | {name: wrong})
    with pytest.raises(ValueError, match=r"mask must be a bool tensor \[B, T\], not torch.float32"):
        TokenInputs(**right | {"mask": torch.ones(2, 3)})


def test_an_entropy_bonus_without_entropies_is_refused():
    with pytest.raises(ValueError, match="entropies"):
        loss_of([[0.0]], [[0.0]], [1.0], entropy_coef=0.1)
