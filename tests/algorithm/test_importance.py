"""Importance weights by hand: truncated, masked by token and by sequence; and a sampler that is off for few tokens."""

import math

import pytest
import torch
from token_losses import loss_of

from grpo.algorithm.choices import IMPORTANCE, LIMITS
from grpo.algorithm.importance import importance_weight
from grpo.algorithm.row import Algorithm
from grpo.algorithm.token_inputs import TokenInputs


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


def weights(sampler, importance, mask=None, **limits):
    """Of an old policy whose log-probabilities are 0."""
    sampler = torch.tensor(sampler, dtype=torch.float64)
    zeros = torch.zeros_like(sampler)
    mask = torch.ones_like(sampler, dtype=torch.bool) if mask is None else torch.tensor(mask)
    row = Algorithm("centered", "constant", importance=importance, **limits)
    return importance_weight(TokenInputs(zeros, zeros, zeros, mask, sampler), row)


# w = 1.5, 8, 1 and 0.25
SAMPLER = [[-math.log(1.5), -math.log(8.0), 0.0, math.log(4.0)]]


@pytest.mark.parametrize(
    "importance,expected,cut",
    [
        ("truncate", [1.5, 2.0, 1.0, 0.25], [False, True, False, False]),
        ("mask", [1.5, 0.0, 1.0, 0.0], [False, True, False, True]),
        ("none", [1.0, 1.0, 1.0, 1.0], [False] * 4),
    ],
)
def test_weights_of_tokens_by_hand(importance, expected, cut):
    found = weights(SAMPLER, importance)
    assert found.weight[0].tolist() == pytest.approx(expected) and found.cut.tolist() == [cut]


def test_a_sequence_is_masked_by_its_geometric_mean():
    """Means of log w over the response: 0.008, 0.02 and, of its two tokens, -0.009: exp of them 1.008, 1.02, 0.991."""
    sampler = [[-0.02, 0.0, 0.004, -0.016], [-0.02] * 4, [0.009, 0.009, 9.0, 9.0]]
    mask = [[True] * 4, [True] * 4, [True, True, False, False]]
    found = weights(sampler, "sequence_mask", mask)
    assert found.weight[0].tolist() == pytest.approx([math.exp(x) for x in (0.02, 0.0, -0.004, 0.016)])
    assert found.weight[1].tolist() == [0.0] * 4 and found.cut[1].all()
    assert found.weight[2, :2].tolist() == pytest.approx([math.exp(-0.009)] * 2)
    assert not found.cut[0].any() and not found.cut[2, :2].any()


def test_limits_are_the_rows_or_those_of_the_kind():
    assert weights(SAMPLER, "mask", importance_low=0.2, importance_cap=9.0).weight[0, 1].item() == pytest.approx(8.0)
    assert weights(SAMPLER, "truncate", importance_cap=1.2).weight[0, 0].item() == pytest.approx(1.2)
    assert weights(SAMPLER, "mask", importance_cap=0).weight.tolist() == [[1.0] * 4]
    assert set(LIMITS) | {"none"} == set(IMPORTANCE)


@pytest.mark.parametrize("off", [5.0, -5.0])
def test_a_sampler_that_is_off_for_one_token_in_a_thousand(off):
    """8 responses of 1,000 tokens, one token of each off by 5 nats: the mean gap, 0.005, hides it; the share cut does
    not, and no weight is as large as e^5 = 148."""
    sampler = torch.zeros(8, 1000)
    sampler[torch.arange(8), torch.arange(8) * 100] = -off
    found = {name: weights(sampler.tolist(), name) for name in IMPORTANCE}
    rare = sampler != 0
    assert sampler.abs().mean().item() == pytest.approx(0.005)
    assert torch.equal(found["mask"].cut, rare) and not found["mask"].weight[rare].any()
    assert torch.equal(found["truncate"].cut, rare & (off > 0))
    assert found["truncate"].weight[rare].tolist() == pytest.approx([min(math.exp(off), 2.0)] * 8)
    # exp(0.005) is inside 0.99 .. 1.01: the responses stay, and their one token is truncated as under `truncate`.
    assert torch.equal(found["sequence_mask"].weight, found["truncate"].weight)
    assert found["none"].weight.eq(1).all()
    for name in ("truncate", "mask", "sequence_mask"):
        assert torch.equal(found[name].weight[~rare], torch.ones_like(found[name].weight[~rare]))
