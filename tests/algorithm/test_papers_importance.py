"""What is done about a sampler that is not the trainer, from the definitions: truncated (TIS), masked (IcePop), or by
the geometric mean of a response. And a fault: log-probabilities that are 5 nats off, one token in a thousand."""

import math
from dataclasses import replace

import pytest
import torch
from conftest import make_batch
from hypothesis import given
from hypothesis import strategies as st

from grpo.algorithm.choices import IMPORTANCE
from grpo.algorithm.importance import importance_weight
from grpo.algorithm.losses import policy_token_loss
from grpo.algorithm.objective import Objective
from grpo.algorithm.table import ALGORITHMS
from grpo.algorithm.token_inputs import TokenInputs

ROW = ALGORITHMS["dr_grpo"]
RESPONSES = st.lists(st.lists(st.floats(-2, 2), min_size=1, max_size=5), min_size=1, max_size=3)
LIMITED = st.one_of(st.none(), st.floats(0.2, 3))


def padded(responses):
    """Ragged lists -> [B, T] float64 with 9 where there is no token, and the mask."""
    width = max(map(len, responses))
    mask = torch.tensor([[t < len(response) for t in range(width)] for response in responses])
    return torch.tensor([r + [9.0] * (width - len(r)) for r in responses], dtype=torch.float64), mask


def inputs(gaps, mask, **given):
    """old - sampler = gaps; the policy is the one that sampled."""
    old = -torch.ones_like(gaps)
    return TokenInputs(old, old, torch.ones_like(gaps), mask, sampler_logprobs=old - gaps, **given)


# The definitions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", IMPORTANCE)
@given(RESPONSES, LIMITED, LIMITED)
def test_the_definitions(kind, responses, low, high):
    """w = pi_trainer / pi_sampler of a token. TIS: min(w, C), C = 2. IcePop: w in [alpha, beta] = [0.5, 5], else 0.
    Sequence mask: all tokens of a response, or none, by exp(mean log w) in [0.99, 1.01], w truncated at 2."""
    default_low, default_high = {"mask": (0.5, 5.0), "sequence_mask": (0.99, 1.01)}.get(kind, (0.0, 2.0))
    row = replace(ROW, importance=kind, importance_low=low, importance_cap=high)
    low, high = default_low if low is None else low, default_high if high is None else high
    gaps, mask = padded(responses)
    found = importance_weight(inputs(gaps, mask), row)
    for b, response in enumerate(responses):
        mean = math.exp(sum(response) / len(response))
        for t, gap in enumerate(response):
            w = math.exp(gap)
            weight, cut = {
                "truncate": (min(w, high), w > high),
                "mask": (w, False) if low <= w <= high else (0.0, True),
                "sequence_mask": (min(w, 2.0), w > 2) if low <= mean <= high else (0.0, True),
                "none": (1.0, False),
            }[kind]
            assert found.weight[b, t].item() == pytest.approx(weight)
            assert found.cut[b, t].item() == cut


@pytest.mark.parametrize("kind", IMPORTANCE)
def test_nothing_is_corrected_at_a_cap_of_0_or_where_nobody_knows_the_sampler(kind):
    gaps, mask = padded([[3.0, -3.0], [0.5]])
    known = inputs(gaps, mask)
    unknown = replace(known, sampler_logprobs=None)
    row = replace(ROW, importance=kind)
    for given_, its_row in ((known, replace(row, importance_cap=0.0)), (unknown, row)):
        found = importance_weight(given_, its_row)
        assert found.weight.eq(1).all() and not found.cut.any()


@pytest.mark.parametrize("kind", IMPORTANCE)
def test_the_weight_is_on_the_policys_term_alone_and_is_held_fixed(kind):
    """Second reading: "detached, multiplies the policy term and not the KL". Nor the entropy, nor PPO's penalty."""
    gaps, mask = padded([[3.0, -3.0, 0.1], [0.004, -0.004], [0.7]])
    old = torch.full_like(gaps, -1.0).requires_grad_()
    sampler = (old.detach() - gaps).requires_grad_()
    row = replace(ROW, importance=kind, kl_coef=0.3, entropy_coef=0.2, old_kl_coef=0.1)
    ours = inputs(gaps, mask, ref_logprobs=old.detach() + 0.8, entropy=torch.full_like(gaps, 2.0))
    ours = replace(ours, old_logprobs=old, sampler_logprobs=sampler)
    found = policy_token_loss(ours, row)
    weight = importance_weight(ours, row).weight
    others = 0.3 * (math.exp(0.8) - 1 - 0.8) - 0.2 * 2.0  # k3 at d = -0.8, and the entropy; PPO's penalty is 0 here
    torch.testing.assert_close((found.loss - others)[mask], -weight[mask])  # ratio 1, advantage 1
    gradients = torch.autograd.grad(found.loss.sum(), (old, sampler), allow_unused=True)
    assert not weight.requires_grad and gradients[1] is None
    torch.testing.assert_close(gradients[0][mask], weight[mask])  # of -w exp(l - l_old) with w held fixed


# The fault -------------------------------------------------------------------------------------------------------

LENGTHS = [(100, 900), (497, 503), (498, 502), (502, 498), (503, 497), (1000,)]
"""Each adds up to 1,000 tokens; the first response of each has one token that is 5 nats off: 6 in 6,000."""
OUT = {5.0: {100, 497, 498, 502}, -5.0: {100, 497}}
"""Which of the faulty ones leave, by length: 5 / |o| > log 1.01 up to |o| = 502, 5 / |o| > -log 0.99 up to 497."""


def faulty_batch(gap):
    """On-policy; the sampler's log-probability of token 7 of the first response of each pair is `gap` too low."""
    lengths = [length for pair in LENGTHS for length in pair]
    mask = torch.arange(1000) < torch.tensor(lengths)[:, None]
    faulty = torch.zeros_like(mask)
    faulty[[b for b, length in enumerate(lengths) if b % 2 == 0], 7] = True
    generator = torch.Generator().manual_seed(0)
    logprobs = -torch.rand(mask.shape, generator=generator, dtype=torch.float64) - 0.1
    advantages = torch.randn(len(lengths), 1, generator=generator, dtype=torch.float64) * mask
    return mask, faulty, logprobs, make_batch(
        mask,
        groups=torch.arange(len(lengths)),
        sampler_logprobs=(logprobs - gap * faulty) * mask,
        ref_logprobs=logprobs - 0.3,
        advantages=advantages,
        token_weights=mask.double() / (len(lengths) * 1000),
    )  # fmt: skip


def gradient(row, batch, logprobs):
    logprobs = logprobs.clone().requires_grad_()
    found = Objective(row)(batch, logprobs, torch.zeros_like(logprobs))
    found.loss.backward()
    return logprobs.grad, (found.means["importance_cut"] / found.count).item()


@pytest.mark.parametrize("gap", [5.0, -5.0])
def test_one_token_in_a_thousand_that_is_5_nats_off(gap):
    """What each kind makes of the gradient, exactly, and the share that it reports as cut."""
    mask, faulty, logprobs, batch = faulty_batch(gap)
    assert faulty.sum() * 1000 == mask.sum()
    row = replace(ROW, kl_coef=0.1)
    sound = replace(batch, sampler_logprobs=logprobs * mask)
    whole, _ = gradient(replace(row, importance="none"), batch, logprobs)
    of_kl, _ = gradient(row, replace(sound, advantages=torch.zeros_like(batch.advantages)), logprobs)
    policy = whole - of_kl

    found, share = gradient(replace(row, importance="truncate"), batch, logprobs)
    weight = torch.where(faulty, min(math.exp(gap), 2.0), 1.0)  # 2, not 148; or 0.0067
    torch.testing.assert_close(found, of_kl + policy * weight)
    assert share == pytest.approx(6 / 6000 if gap > 0 else 0)

    found, share = gradient(replace(row, importance="mask"), batch, logprobs)
    without, _ = gradient(row, replace(sound, advantages=batch.advantages * ~faulty), logprobs)
    torch.testing.assert_close(found, without)  # these tokens' policy terms removed, no denominator changed
    assert share == pytest.approx(6 / 6000)

    found, share = gradient(replace(row, importance="sequence_mask"), batch, logprobs)
    gone = faulty.any(1) & torch.tensor([int(length) in OUT[gap] for length in mask.sum(1)])
    weight = torch.where(gone[:, None], 0.0, weight)
    torch.testing.assert_close(found, of_kl + policy * weight)
    capped = 2 if gap > 0 else 0  # the faulty tokens of the responses of 503 and 1,000, which stay
    assert share == pytest.approx((sum(OUT[gap]) + capped) / 6000)
