"""Aggregation weights, clip and KL against hand-computed numbers, finite differences and exact expectations."""

import math

import pytest
import torch

from grpo.losses import AGGREGATIONS, KL_ESTIMATORS, clipped_token_loss, constant_length, k3, sequence_mean, token_mean

# Two responses in a batch padded to four: three tokens and one.
MASK = torch.tensor([[False, True, True, True], [True, False, False, False]])
CLIP = dict(clip_low=0.2, clip_high=0.2)


def token_loss(logprobs, old, advantages, **kwargs):
    return clipped_token_loss(
        torch.as_tensor(logprobs, dtype=torch.float64),
        torch.as_tensor(old, dtype=torch.float64),
        torch.as_tensor(advantages, dtype=torch.float64),
        **{**CLIP, **kwargs},
    )


# Aggregation -----------------------------------------------------------------------------------------------------


def test_sequence_mean_by_hand():
    # 1 / (B |o|): 1/6 three times, 1/2 once.
    expected = torch.tensor([[0, 1 / 6, 1 / 6, 1 / 6], [1 / 2, 0, 0, 0]])
    torch.testing.assert_close(sequence_mean(MASK, 0), expected)


def test_token_mean_by_hand():
    expected = torch.tensor([[0, 1 / 4, 1 / 4, 1 / 4], [1 / 4, 0, 0, 0]])
    torch.testing.assert_close(token_mean(MASK, 0), expected)


def test_constant_by_hand():
    # 1 / (B C) with C = 10, the budget: neither the longest response (3) nor the width (4).
    expected = torch.tensor([[0, 1 / 20, 1 / 20, 1 / 20], [1 / 20, 0, 0, 0]])
    torch.testing.assert_close(constant_length(MASK, 10), expected)


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_weights_ignore_padding(name):
    wide = torch.nn.functional.pad(MASK, (0, 5))
    weights = AGGREGATIONS[name](wide, 10)
    torch.testing.assert_close(weights[:, :4], AGGREGATIONS[name](MASK, 10))
    assert not weights[:, 4:].any()


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_a_fully_masked_sequence_weighs_nothing_and_stays_in_b(name):
    mask = torch.cat([MASK, torch.zeros(2, 4, dtype=torch.bool)])
    weights = AGGREGATIONS[name](mask, 10)
    assert torch.isfinite(weights).all() and not weights[2:].any()
    if name != "token_mean":  # B is 4 and not 2, so the others count half; token mean knows no B
        torch.testing.assert_close(weights[:2], AGGREGATIONS[name](MASK, 10) / 2)


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_all_masked_is_zero_not_nan(name):
    assert not AGGREGATIONS[name](torch.zeros(2, 3, dtype=torch.bool), 10).any()


# Ratio and clip --------------------------------------------------------------------------------------------------


def test_clip_by_hand():
    # Ratios 1.5 and 0.5, advantages +2 and -2, clip 0.8 .. 1.2.
    up, down = math.log(1.5), math.log(0.5)
    token = token_loss([[up, down], [up, down]], [[0.0, 0.0]] * 2, [2.0, -2.0])
    # A = +2: min(3, 2.4) and min(1, 1.6); A = -2: min(-3, -2.4) and min(-1, -1.6).
    expected = [[-2.4, -1.0], [3.0, 1.6]]
    torch.testing.assert_close(token.loss, torch.tensor(expected, dtype=torch.float64))
    assert token.clip_high.tolist() == [[True, False], [False, False]]
    assert token.clip_low.tolist() == [[False, False], [False, True]]
    assert token.importance.tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert token.kl is None


def test_clip_sides_are_separate():
    up, down = math.log(1.25), math.log(0.75)
    high = token_loss([[up]], [[0.0]], [1.0], clip_high=0.28)
    torch.testing.assert_close(high.loss, torch.tensor([[-1.25]], dtype=torch.float64))  # inside 1.28
    assert not high.clip_high.any()
    low = token_loss([[down]], [[0.0]], [-1.0], clip_low=0.3)
    torch.testing.assert_close(low.loss, torch.tensor([[0.75]], dtype=torch.float64))  # inside 0.7
    assert not low.clip_low.any()


def test_clipped_tokens_have_no_gradient_and_the_others_do():
    logprobs = torch.tensor([[math.log(1.5), math.log(0.5)]] * 2, dtype=torch.float64, requires_grad=True)
    token = clipped_token_loss(logprobs, torch.zeros(2, 2).double(), torch.tensor([2.0, -2.0]).double(), **CLIP)
    token.loss.sum().backward()
    # d(-ratio A)/dl = -ratio A where not clipped: row 1 (A=2): 0 and -1; row 2 (A=-2): 3 and 0.
    torch.testing.assert_close(logprobs.grad, torch.tensor([[0.0, -1.0], [3.0, 0.0]]).double())


def test_on_policy_gradient_is_the_plain_policy_gradient():
    """With old = current the loss is -A and its gradient -A, whatever the log-probability: not a ratio of logs."""
    logprobs = torch.tensor([[-0.1, -2.0, -30.0]], dtype=torch.float64, requires_grad=True)
    token = clipped_token_loss(logprobs, logprobs.detach(), torch.tensor([0.7]).double(), **CLIP)
    token.loss.sum().backward()
    torch.testing.assert_close(token.loss.detach(), torch.full((1, 3), -0.7).double())
    torch.testing.assert_close(logprobs.grad, torch.full((1, 3), -0.7).double())


@pytest.mark.parametrize("estimator", KL_ESTIMATORS)
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_gradient_equals_finite_differences(estimator, aggregation):
    torch.manual_seed(0)
    old, reference, sampler = (torch.randn(2, 4, dtype=torch.float64) * 0.3 - 1 for _ in range(3))
    advantages = torch.tensor([0.8, -1.1], dtype=torch.float64)
    weights = AGGREGATIONS[aggregation](MASK, 10).double()

    def total(logprobs):
        token = clipped_token_loss(
            logprobs,
            old,
            advantages,
            sampler_logprobs=sampler,
            importance_cap=2.0,
            ref_logprobs=reference,
            kl_coef=0.3,
            kl_estimator=estimator,
            **CLIP,
        )
        return (weights * token.loss).sum()

    logprobs = (old + 0.25 * torch.randn(2, 4, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(total, (logprobs,))


@pytest.mark.parametrize("extreme", [1e3, -1e3])
@pytest.mark.parametrize("advantage", [1.0, -1.0, 0.0])
def test_extreme_ratios_stay_finite(extreme, advantage):
    logprobs = torch.tensor([[extreme]], requires_grad=True)
    token = clipped_token_loss(
        logprobs,
        torch.zeros(1, 1),
        torch.tensor([advantage]),
        sampler_logprobs=torch.full((1, 1), -extreme),
        importance_cap=2.0,
        ref_logprobs=torch.zeros(1, 1),
        kl_coef=0.1,
        **CLIP,
    )
    token.loss.sum().backward()
    assert torch.isfinite(token.loss).all() and torch.isfinite(logprobs.grad).all()


# Importance correction -------------------------------------------------------------------------------------------


def test_importance_weight_by_hand():
    """min(exp(old - sampler), cap): 1.5 passes, 3 is cut to 2; on the policy term and not on the KL."""
    old = [[0.0, 0.0]]
    sampler = torch.tensor([[-math.log(1.5), -math.log(3.0)]], dtype=torch.float64)
    reference = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    token = token_loss(
        old, old, [1.0], sampler_logprobs=sampler, importance_cap=2.0, ref_logprobs=reference, kl_coef=0.5
    )
    kl = math.exp(1.0) - 1 - 1.0  # k3 at d = -1
    torch.testing.assert_close(token.importance, torch.tensor([[1.5, 2.0]], dtype=torch.float64))
    torch.testing.assert_close(token.loss, torch.tensor([[-1.5 + 0.5 * kl, -2.0 + 0.5 * kl]], dtype=torch.float64))


def test_importance_weight_is_detached():
    logprobs = torch.tensor([[-1.0]], dtype=torch.float64, requires_grad=True)
    token = clipped_token_loss(
        logprobs,
        logprobs.detach(),
        torch.tensor([1.0]).double(),
        sampler_logprobs=torch.tensor([[-1.5]]).double(),
        importance_cap=2.0,
        **CLIP,
    )
    token.loss.sum().backward()
    torch.testing.assert_close(logprobs.grad, torch.tensor([[-math.exp(0.5)]]).double())
    assert not token.importance.requires_grad


def test_no_cap_means_no_correction():
    token = token_loss([[0.0]], [[0.0]], [1.0], sampler_logprobs=torch.tensor([[-5.0]]).double(), importance_cap=None)
    assert token.loss.item() == -1.0


# KL --------------------------------------------------------------------------------------------------------------


def test_kl_estimators_by_hand():
    logprobs, reference = torch.tensor([-1.0, -2.0]).double(), torch.tensor([-1.5, -1.0]).double()  # d = 0.5, -1
    values = {name: estimator(logprobs, reference).tolist() for name, estimator in KL_ESTIMATORS.items()}
    assert values["k1"] == [0.5, -1.0]
    assert values["k2"] == [0.125, 0.5]
    assert values["k3"] == pytest.approx([math.exp(-0.5) - 1 + 0.5, math.exp(1.0) - 1 - 1.0])


def test_k3_keeps_small_differences():
    d = torch.tensor([1e-6], dtype=torch.float32)
    assert k3(d, torch.zeros(1)).item() == pytest.approx(5e-13, rel=0.1)  # d^2/2; naive float32 gives 0 or 6e-8


@pytest.mark.parametrize("estimator", KL_ESTIMATORS)
def test_expected_gradient_over_a_small_vocabulary(estimator):
    """Enumerated: k1 has none, k2 that of KL(policy || reference), k3 that of KL(reference || policy)."""
    logits = torch.tensor([0.2, -0.4, 1.1, 0.0], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([0.9, 0.1, -0.3, 0.4], dtype=torch.float64).log_softmax(0)
    logprobs = logits.log_softmax(0)
    policy = logprobs.exp().detach()  # on-policy: tokens are drawn with these probabilities
    (found,) = torch.autograd.grad((policy * KL_ESTIMATORS[estimator](logprobs, reference)).sum(), logits)
    logprobs = logits.log_softmax(0)
    exact = {
        "k1": torch.zeros_like,
        "k2": lambda x: torch.autograd.grad((logprobs.exp() * (logprobs - reference)).sum(), x)[0],
        "k3": lambda x: torch.autograd.grad((reference.exp() * (reference - logprobs)).sum(), x)[0],
    }[estimator](logits)
    torch.testing.assert_close(found, exact, atol=1e-12, rtol=0)
    assert estimator == "k1" or exact.abs().max() > 0.05


def test_kl_is_logged_as_k3_whatever_the_loss_uses():
    for estimator in KL_ESTIMATORS:
        token = token_loss(
            [[-1.0]], [[-1.0]], [0.0], ref_logprobs=torch.tensor([[-1.5]]).double(), kl_coef=0.1, kl_estimator=estimator
        )
        assert token.kl.item() == pytest.approx(math.exp(-0.5) - 1 + 0.5)
        assert not token.kl.requires_grad


def test_a_kl_term_without_reference_is_refused():
    with pytest.raises(ValueError, match="reference"):
        token_loss([[0.0]], [[0.0]], [1.0], kl_coef=0.1)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\[B, T\]"):
        clipped_token_loss(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 3), **CLIP)
