"""What the papers say of rewards and advantages, a sentence a test. Nothing here was written from the code."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from conftest import make_batch
from hypothesis import given
from hypothesis import strategies as st
from paper_steps import make_groups, make_rewards

from grpo.algorithm.advantages import AdvantageInputs
from grpo.algorithm.credit import credit, creditable
from grpo.algorithm.dynamic_sampling import score
from grpo.algorithm.ingredients import load_advantage
from grpo.algorithm.objective import Objective
from grpo.algorithm.table import ALGORITHMS
from grpo.model.batching import collate

ZERO = ALGORITHMS["dr_grpo"]
QUARTERS = st.integers(-8, 8).map(lambda n: n / 4)


@st.composite
def tables(draw, cells=QUARTERS, least=1, most=5):
    """[[cell, ...], ...]: P x G of them."""
    problems, responses = draw(st.integers(1, 3)), draw(st.integers(least, most))
    row = st.lists(cells, min_size=responses, max_size=responses)
    return draw(st.lists(row, min_size=problems, max_size=problems))


def advantages(name, rewards, **given):
    """Of rewards [P, G] as lists."""
    rewards = torch.tensor(rewards, dtype=torch.float64)
    return load_advantage(name)(replace(AdvantageInputs.of_rewards(rewards), **given))


# Truncation ------------------------------------------------------------------------------------------------------


@given(st.data(), tables())
def test_being_cut_off_never_beats_a_negative_score(data, rewards):
    """Second reading, 1: "min(total, 0) for truncated responses". What is credited to a cut response is at most what
    the verifiers said, and at most 0; the others keep what the verifiers said, to the bit."""
    total = torch.tensor(rewards)
    cut = torch.tensor([[data.draw(st.booleans()) for _ in row] for row in rewards])
    found = creditable(total, cut, ZERO)
    assert (found[cut] <= total[cut]).all() and (found[cut] <= 0).all()
    assert torch.equal(found[cut & (total <= 0)], total[cut & (total <= 0)])
    assert torch.equal(found[~cut], total[~cut])
    for other in ("keep", "mask"):
        assert torch.equal(creditable(total, cut, replace(ZERO, truncated=other)), total)


@given(st.data(), tables(st.sampled_from([0.0, 1.0])))
def test_for_rewards_of_0_and_1_a_cut_response_gets_exactly_0(data, rewards):
    """Dr. GRPO's release: "no eos, reward 0"."""
    cut = torch.tensor([[data.draw(st.booleans()) for _ in row] for row in rewards])
    found = creditable(torch.tensor(rewards), cut, ZERO)
    assert found[cut].eq(0).all() and torch.equal(found, torch.tensor(rewards) * ~cut)


COMPARED = ("raw", "max_only", "centered", "leave_one_out", "group_normalized", "batch_normalized", "optimal_baseline")


@pytest.mark.parametrize("name", COMPARED)
@given(data=st.data(), rewards=tables(least=2))
def test_no_response_gains_by_being_cut(name, data, rewards):
    """... and through the advantage: of the same response, cut and not cut, the cut one's is never the higher."""
    total = torch.tensor(rewards, dtype=torch.float64)
    cut = torch.tensor([[data.draw(st.booleans()) for _ in row] for row in rewards])
    p, i = data.draw(st.integers(0, len(rewards) - 1)), data.draw(st.integers(0, len(rewards[0]) - 1))
    one_more, one_less = cut.clone(), cut.clone()
    one_more[p, i], one_less[p, i] = True, False
    a, b = (advantages(name, creditable(total, c, ZERO).tolist()) for c in (one_more, one_less))
    assert a[p, i] <= b[p, i] + 1e-9


@given(data=st.data(), verdicts=tables(st.sampled_from([-1.0, 1.0]), least=2))
def test_with_a_verifier_of_minus_and_plus_1(data, verdicts):
    """End to end: a cut response that the verifier calls wrong has the advantage of a whole wrong one of its group,
    never more; one that it calls right less than any whole right one."""
    cut = [[data.draw(st.booleans()) for _ in row] for row in verdicts]
    groups = make_groups([[2] * len(row) for row in verdicts], cut)
    scored = score(groups, make_rewards(judge=verdicts), ZERO)
    credited = credit(collate(groups, 0), groups, scored.total, load_advantage("centered"), ZERO)
    for said, is_cut, found in zip(verdicts, cut, credited.of_responses.tolist(), strict=True):
        cells = list(zip(said, is_cut, found, strict=True))
        for verdict, _, advantage in (cell for cell in cells if cell[1]):
            whole = [other for said_too, cut_too, other in cells if said_too == verdict and not cut_too]
            assert all(advantage == other if verdict < 0 else advantage < other for other in whole)


# MaxRL -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3, 8])
def test_one_success_of_n_gets_n_minus_1(size):
    """Algorithm 1: the group's mean is subtracted and divided by; a group without a success gives no update."""
    rewards = [[1.0] + [0.0] * (size - 1), [0.0] * size, [1.0] * size]
    expected = [[size - 1.0] + [-1.0] * (size - 1), [0.0] * size, [0.0] * size]
    torch.testing.assert_close(advantages("mean_normalized", rewards), torch.tensor(expected).double())


@given(tables(st.integers(0, 5).map(float)), st.sampled_from([1e-3, 0.5, 7.0, 1e3]))
def test_maxrl_does_not_see_the_scale_of_rewards(rewards, scale):
    """r / mean - 1 has no unit."""
    scaled = [[r * scale for r in row] for row in rewards]
    torch.testing.assert_close(advantages("mean_normalized", scaled), advantages("mean_normalized", rewards))


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("theta", [-2.0, 0.3, 1.5])
def test_the_expected_gradient_of_maxrl(size, theta):
    """Appendix D, theorem 5: the estimator that centers and drops all-failure groups has the expectation
    [1 - (1 - p)^(N - 1)] / p * grad p, which is maximum likelihood's grad p / p as N grows.

    The row itself, on every group of N responses of one token, which is right with p = sigmoid(theta)."""
    row, mask = ALGORITHMS["maxrl"], torch.ones(size, 1, dtype=torch.bool)
    weights = torch.full((size, 1), 1 / size, dtype=torch.float64)
    p, expected = 1 / (1 + math.exp(-theta)), 0.0
    for right in product([0.0, 1.0], repeat=size):
        parameter = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
        logit = torch.nn.functional.logsigmoid
        logprobs = torch.stack([logit(parameter if r else -parameter) for r in right])[:, None]
        advantage = advantages("mean_normalized", [right]).view(size, 1)
        batch = make_batch(mask, groups=torch.zeros(size), advantages=advantage, token_weights=weights)
        batch = replace(batch, sampler_logprobs=logprobs.detach())
        Objective(row)(batch, logprobs, torch.zeros(size, 1)).loss.backward()
        expected -= p ** sum(right) * (1 - p) ** (size - sum(right)) * parameter.grad.item()
    assert expected == pytest.approx((1 - (1 - p) ** (size - 1)) / p * p * (1 - p), rel=1e-9)


# Lite PPO --------------------------------------------------------------------------------------------------------


def test_lite_ppo_by_hand():
    """Takeaway 3: "Calculating the mean at the local (group) level and the standard deviation at the global (batch)
    level", the deviation of eq. 6, which is that of the rewards.

    Rewards 1 0 | 1 1: group means 1/2 and 1, mean 3/4, squares 1/16 9/16 1/16 1/16 = 3/4, over 3: 1/4, deviation 1/2.
    Of what is centered, 1/2 -1/2 0 0, it is sqrt(1/6)."""
    rewards = [[1.0, 0.0], [1.0, 1.0]]
    expected = torch.tensor([[0.5, -0.5], [0.0, 0.0]]).double()
    torch.testing.assert_close(advantages("batch_scaled", rewards), expected / (0.5 + 1e-4))
    torch.testing.assert_close(advantages("batch_normalized", rewards), expected / (math.sqrt(1 / 6) + 1e-4))


@given(tables(least=2))
def test_the_deviation_of_raw_rewards_has_the_prompts_in_it(rewards):
    """Squares around the mean are those within the groups and those between them: Lite PPO's advantages are the smaller
    ones, by as much as prompts differ, and those of REINFORCE++ where all groups have the same mean."""
    table = torch.tensor(rewards, dtype=torch.float64)
    lite, plus = advantages("batch_scaled", rewards).abs(), advantages("batch_normalized", rewards).abs()
    assert (lite <= plus + 1e-12).all()
    between = (table.mean(1) - table.mean()).square().sum()
    within = plus > 0
    assert (lite[within] < plus[within]).all() or between < 1e-9
    level = (table - table.mean(1, keepdim=True)).tolist()
    torch.testing.assert_close(advantages("batch_scaled", level), advantages("batch_normalized", level))


# Optimal baseline ------------------------------------------------------------------------------------------------


@given(st.data(), tables())
def test_the_optimal_baseline_balances_tokens(data, rewards):
    """OPO: "the length-weighted reward of the group", b = sum l r / sum l. So sum l A = 0 in every group, and lengths
    that are alike make it the mean."""
    lengths = torch.tensor([[data.draw(st.integers(1, 9)) for _ in row] for row in rewards]).double()
    found = advantages("optimal_baseline", rewards, lengths=lengths)
    torch.testing.assert_close((lengths * found).sum(1), torch.zeros(len(rewards)).double(), atol=1e-9, rtol=0)
    alike = advantages("optimal_baseline", rewards, lengths=torch.full_like(lengths, 4))
    torch.testing.assert_close(alike, advantages("centered", rewards))


def test_the_optimal_baseline_has_the_least_variance():
    """OPO: b* = E[g^2 r] / E[g^2] minimizes the gradient's variance; where the gradients of tokens are orthogonal and
    alike in norm, g^2 is in proportion to the length.

    A policy of which that is true: a response of l fair coins with p = sigmoid(theta), theta 0: g is a sum of l terms
    of +-1/2. Lengths 1, 2 and 5, equally often, have rewards 1, 0 and 0.5; every response is enumerated."""
    lengths, rewards = [1, 2, 5], [1.0, 0.0, 0.5]
    found = advantages("optimal_baseline", [rewards], lengths=torch.tensor([lengths]).double())
    chosen = rewards[0] - found[0, 0].item()
    torch.testing.assert_close(torch.tensor([rewards]).double() - found, torch.full((1, 3), chosen).double())

    def variance(baseline):
        mean = square = 0.0
        for length, reward in zip(lengths, rewards, strict=True):
            for coins in product([-0.5, 0.5], repeat=length):
                estimate = sum(coins) * (reward - baseline)
                mean += estimate / 2**length / 3
                square += estimate**2 / 2**length / 3
        return square - mean**2

    others = [chosen + step / 50 for step in range(-40, 41) if step]
    assert all(variance(chosen) < variance(other) for other in others)
    assert variance(chosen) < variance(sum(rewards) / 3)  # the group mean
