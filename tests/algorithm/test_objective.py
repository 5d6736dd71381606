"""The mapping from a row to the loss: every cell of the row reaches it, and so does every tensor of the batch."""

from dataclasses import fields, replace

import pytest
import torch
from conftest import make_batch

from grpo.algorithm.losses import policy_token_loss
from grpo.algorithm.objective import Objective
from grpo.algorithm.row import Algorithm
from grpo.algorithm.table import ALGORITHMS
from grpo.algorithm.token_inputs import TokenInputs

MASK = torch.tensor([[False, True, True, True], [True, True, False, False]])


def tensor(seed, scale=0.6):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 4, generator=generator, dtype=torch.float64) * scale - 1


LOGPROBS, ENTROPY = tensor(0), tensor(1).abs()
BATCH = make_batch(
    MASK,
    old_logprobs=tensor(2),
    ref_logprobs=tensor(3),
    sampler_logprobs=tensor(4),
    advantages=torch.tensor([[0.7], [-0.9]]).double() * MASK,
    token_weights=tensor(5).abs() * MASK,
)
ROW = replace(ALGORITHMS["grpo"], kl_coef=0.3, entropy_coef=0.1, importance_cap=1.1)


def loss(row, **changed):
    return Objective(row)(replace(BATCH, **changed), LOGPROBS, ENTROPY).loss.item()


CHANGES = dict(
    surrogate="unclipped", ratio="sequence", clip_low=0.01, clip_high=0.01, kl_coef=0.5, kl_estimator="k2",
    kl_in="reward", entropy_coef=0.0, importance_cap=0.0, importance="none", old_kl_coef=0.7,
)  # fmt: skip
ELSEWHERE = {
    "advantage": "credit", "aggregation": "the token weights", "truncated": "credit and the mask",
    "penalties": "the verifiers", "dynamic_sampling": "the draws", "uniform_groups": "the mask",
    "max_kl": "the trust region",
    "discount": "credit", "gae_lambda": "credit", "critic_lambda": "credit",
    "whiten": "credit", "value_clip": "the critic",
    "dpo_beta": "credit", "ratio_cap": "cispo, below", "dual_clip": "below",
    "gate_positive": "soft_gate, below", "gate_negative": "soft_gate, below",
    "importance_low": "mask, below", "paper": "words", "departures": "words", "notes": "words",
}  # fmt: skip


def test_every_cell_is_accounted_for():
    assert {field.name for field in fields(Algorithm)} == {*CHANGES, *ELSEWHERE}


@pytest.mark.parametrize("cell", CHANGES)
def test_every_cell_of_the_row_reaches_the_loss(cell):
    assert abs(loss(ROW) - loss(replace(ROW, **{cell: CHANGES[cell]}))) > 1e-3


@pytest.mark.parametrize(
    "surrogate,change",
    [
        ("cispo", {"ratio_cap": 0.5}),
        ("soft_gate", {"gate_positive": 2.0}),
        ("soft_gate", {"gate_negative": 2.0}),
        ("geometric", {"clip_low": 0.01}),
        ("geometric", {"clip_high": 0.01}),
    ],
)
def test_limits_of_other_surrogates_reach_the_loss(surrogate, change):
    row = replace(ROW, surrogate=surrogate)
    assert abs(loss(row) - loss(replace(row, **change))) > 1e-4


def test_the_dual_clip_reaches_the_loss():
    """Where the advantage is negative and the ratio above it: here in the first response, with its sign turned."""
    turned = -BATCH.advantages
    assert torch.exp(LOGPROBS - BATCH.old_logprobs)[0][MASK[0]].max() > 1.5
    assert abs(loss(ROW, advantages=turned) - loss(replace(ROW, dual_clip=1.5), advantages=turned)) > 1e-3


def test_the_lower_limit_reaches_the_mask():
    row = replace(ROW, importance="mask", importance_cap=9.0)
    assert abs(loss(row) - loss(replace(row, importance_low=0.9))) > 1e-3


@pytest.mark.parametrize("name", ["old_logprobs", "ref_logprobs", "sampler_logprobs", "advantages", "token_weights"])
def test_every_tensor_of_the_batch_reaches_the_loss(name):
    assert abs(loss(ROW) - loss(ROW, **{name: getattr(BATCH, name) + 0.3 * MASK})) > 1e-3


def test_the_number_is_the_weighted_sum_of_the_token_losses():
    inputs = TokenInputs(
        LOGPROBS, BATCH.old_logprobs, BATCH.advantages, MASK, BATCH.sampler_logprobs, BATCH.ref_logprobs, ENTROPY
    )
    expected = (BATCH.token_weights * policy_token_loss(inputs, ROW).loss).sum()
    assert loss(ROW) == pytest.approx(expected.item(), rel=1e-12)


def test_without_old_logprobs_the_ratio_is_one_and_the_gradient_is_not_zero():
    logprobs = LOGPROBS.clone().requires_grad_()
    batch = replace(BATCH, old_logprobs=None, sampler_logprobs=LOGPROBS)
    row = replace(ALGORITHMS["dr_grpo"], importance_cap=2.0)
    found = Objective(row)(batch, logprobs, ENTROPY)
    found.loss.backward()
    torch.testing.assert_close(logprobs.grad, -batch.token_weights * batch.advantages)
    assert found.means["clip_low"] == found.means["clip_high"] == 0


def test_what_is_measured():
    found = Objective(ROW)(BATCH, LOGPROBS, ENTROPY)
    assert found.count == 5
    assert found.means["entropy"].item() == pytest.approx(ENTROPY[MASK].sum().item())
    gap = (BATCH.old_logprobs - BATCH.sampler_logprobs)[MASK].abs().sum()
    assert found.means["engine_gap"].item() == pytest.approx(gap.item())
    surrogate = (BATCH.token_weights * BATCH.advantages * LOGPROBS).sum()
    assert found.sums["surrogate"].item() == pytest.approx(surrogate.item())
    assert "kl" not in Objective(ALGORITHMS["dr_grpo"])(replace(BATCH, ref_logprobs=None), LOGPROBS, ENTROPY).means


def test_a_users_term_comes_on_top():
    plain, more = (
        Objective(ROW, term)(BATCH, LOGPROBS, ENTROPY).loss for term in (None, lambda logprobs, _: 0 * logprobs + 2.0)
    )
    assert (more - plain).item() == pytest.approx(2 * BATCH.token_weights.sum().item())
