"""The whole loss of a token: gradients against finite differences, what stays finite, KL and entropy."""

import math

import pytest
import torch
from token_losses import loss_of

from grpo.algorithm.aggregations import AGGREGATIONS
from grpo.algorithm.ingredients import load_aggregation
from grpo.algorithm.kl import KL_ESTIMATORS
from grpo.algorithm.ratios import RATIOS
from grpo.algorithm.surrogates import SURROGATES

MASK = torch.tensor([[False, True, True, True], [True, False, False, False]])
GROUPS = torch.tensor([0, 0])


# Ratio -----------------------------------------------------------------------------------------------------------


# Surrogates ------------------------------------------------------------------------------------------------------


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
        kl_coef=0.3, old_kl_coef=0.4, entropy=logprobs.square(), entropy_coef=0.2, **kwargs,
    )  # fmt: skip
    return (load_aggregation(aggregation, 10.0)(MASK, GROUPS).double() * token.loss).sum()


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


def test_an_entropy_bonus_without_entropies_is_refused():
    with pytest.raises(ValueError, match="entropies"):
        loss_of([[0.0]], [[0.0]], [1.0], entropy_coef=0.1)
