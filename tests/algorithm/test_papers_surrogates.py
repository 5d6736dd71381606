"""What the papers say of a token's loss: SAPO, GMPO, LUSPO, dual clip, the product ratio, PPO's KL penalty."""

import math
from dataclasses import replace

import pytest
import torch
from conftest import make_batch
from hypothesis import given
from hypothesis import strategies as st

from grpo.algorithm.aggregations import constant_length, sequence_mean
from grpo.algorithm.kl_weight import KLCoefficient, OldKLCoefficient
from grpo.algorithm.losses import policy_token_loss
from grpo.algorithm.objective import Objective
from grpo.algorithm.ratios import RATIOS
from grpo.algorithm.table import ALGORITHMS
from grpo.algorithm.token_inputs import TokenInputs

SAPO, GMPO, GSPO, LUSPO = (ALGORITHMS[name] for name in ("sapo", "gmpo", "gspo", "luspo"))
DIFFERENCES = st.lists(st.floats(-1.5, 1.5), min_size=1, max_size=6)
ADVANTAGES = st.floats(-3, 3).filter(lambda a: abs(a) > 0.01)


def token_losses(row, differences, advantage):
    """Of one response whose tokens' log-probabilities are off the old ones by so much: loss and gradient [T] each.

    The gradient is that of the sum of the losses.
    """
    old = -1 - torch.arange(len(differences), dtype=torch.float64)[None] / 7
    logprobs = (old + torch.tensor([differences], dtype=torch.float64)).requires_grad_()
    mask = torch.ones(old.shape, dtype=torch.bool)
    loss = policy_token_loss(TokenInputs(logprobs, old, torch.full_like(old, advantage), mask), row).loss
    (gradient,) = torch.autograd.grad(loss.sum(), logprobs)
    return loss.detach()[0], gradient[0]


# SAPO ------------------------------------------------------------------------------------------------------------


@given(ADVANTAGES, st.floats(0.1, 20), st.floats(0.1, 20))
def test_sapo_on_policy_is_the_policy_gradient(advantage, positive, negative):
    """SAPO, section 3: at r = 1 the weight of the policy gradient is 1, whatever tau is; eq. 5: the value is
    4 / tau sigma(0) A = 2 A / tau, to be maximized."""
    row = replace(SAPO, gate_positive=positive, gate_negative=negative)
    loss, gradient = token_losses(row, [0.0], advantage)
    assert gradient.item() == pytest.approx(-advantage)
    assert loss.item() == pytest.approx(-2 * advantage / (positive if advantage > 0 else negative))


@given(st.floats(-2, 1.5), ADVANTAGES)
def test_sapo_pulls_as_sech_squared(difference, advantage):
    """SAPO, eq. 6: the weight of the policy gradient is r * sech^2(tau / 2 (r - 1)) = r * 4 s (1 - s); tau is 1 for
    positive and 1.05 for negative advantages. And the gradient is that of the loss: a difference quotient."""
    ratio, tau = math.exp(difference), 1.0 if advantage > 0 else 1.05
    gate = 1 / (1 + math.exp(-tau * (ratio - 1)))
    loss, gradient = token_losses(SAPO, [difference], advantage)
    assert loss.item() == pytest.approx(-advantage * 4 / tau * gate)
    assert gradient.item() == pytest.approx(-advantage * ratio / math.cosh(tau / 2 * (ratio - 1)) ** 2)
    assert gradient.item() == pytest.approx(-advantage * ratio * 4 * gate * (1 - gate))
    above, below = (token_losses(SAPO, [difference + step], advantage)[0].item() for step in (1e-5, -1e-5))
    assert gradient.item() == pytest.approx((above - below) / 2e-5, rel=1e-4, abs=1e-6)


@given(st.floats(0.01, 0.95), ADVANTAGES)
def test_the_gate_closes_alike_on_both_sides(step, advantage):
    """... symmetric in r - 1, and closing sooner for negative advantages: tau_neg > tau_pos."""

    def gate(ratio, a):
        return token_losses(SAPO, [math.log(ratio)], a)[1].item() / (-a * ratio)

    assert gate(1 + step, advantage) == pytest.approx(gate(1 - step, advantage))
    assert gate(1 + step, -1.0) < gate(1 + step, 1.0) < 1


# GMPO ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-0.39, 0.39), min_size=1, max_size=6), ADVANTAGES)
def test_gmpo_within_the_range_is_the_sequence_ratio_unclipped(differences, advantage):
    """GMPO: the geometric mean of token ratios is exp(1/|o| sum log r) - GSPO's ratio. Value and gradient."""
    plain = replace(GSPO, surrogate="unclipped")
    for found, expected in zip(*(token_losses(row, differences, advantage) for row in (GMPO, plain)), strict=True):
        torch.testing.assert_close(found, expected)


@given(st.lists(st.floats(-1.5, 1.5), min_size=1, max_size=6), ADVANTAGES)
def test_gmpo_is_the_formula_of_the_paper(differences, advantage):
    """GMPO, eq. 4: {prod_t (min[r^sgn(A), clip(r^sgn(A), e^-0.4, e^0.4)])^sgn(A)}^(1/|o|) A. Token by token."""
    sign, product = math.copysign(1, advantage), 1.0
    for difference in differences:
        power = math.exp(difference) ** sign
        product *= min(power, min(max(power, math.exp(-0.4)), math.exp(0.4))) ** sign
    loss, _ = token_losses(GMPO, differences, advantage)
    expected = -advantage * product ** (1 / len(differences))
    torch.testing.assert_close(loss, torch.full_like(loss, expected))


def test_gmpo_by_hand():
    """Clipped at the token, before the mean: log ratios 0.6 and 0.1 become 0.4 and 0.1, whose mean is 0.25 - a
    clip of the mean, 0.35, would leave it. The clipped token stays in the exponent and has no gradient."""
    loss, gradient = token_losses(GMPO, [0.6, 0.1], 1.0)
    assert loss.tolist() == pytest.approx([-1.2840254167] * 2)
    assert gradient.tolist() == pytest.approx([0.0, -1.2840254167])
    loss, gradient = token_losses(GMPO, [0.6, -0.9], -2.0)  # below, and A < 0: (0.6 - 0.4) / 2 = 0.1
    assert loss.tolist() == pytest.approx([2.2103418362] * 2)
    assert gradient.tolist() == pytest.approx([2.2103418362, 0.0])


@pytest.mark.parametrize("advantage, difference, pulls", [(-1, 0.6, 1), (-1, -0.6, 0), (1, 0.6, 0), (1, -0.6, 1)])
def test_gmpo_is_one_sided(advantage, difference, pulls):
    """As the minimum in PPO: only what would overshoot in the direction of the advantage is cut."""
    _, gradient = token_losses(GMPO, [difference], float(advantage))
    assert gradient.item() == pytest.approx(-advantage * math.exp(difference) * pulls)


# LUSPO -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(DIFFERENCES, ADVANTAGES), min_size=1, max_size=3))
def test_luspo_is_gspo_times_the_length(responses):
    """LUSPO, eq. 7: 1/G sum_i |o_i| min(s_i A_i, clip(s_i) A_i), GSPO's loss scaled by its length. The row divides
    by C = 10 on top. Response by response, value and gradient; both at LUSPO's clip range."""
    gspo, count, constant = replace(GSPO, clip_low=LUSPO.clip_low, clip_high=LUSPO.clip_high), len(responses), 10.0
    width = max(len(differences) for differences, _ in responses)
    mask = torch.tensor([[t < len(d) for t in range(width)] for d, _ in responses])
    advantages = torch.tensor([[a] for _, a in responses], dtype=torch.float64) * mask
    old = -torch.ones(count, width, dtype=torch.float64)
    padded = torch.tensor([d + [0.0] * (width - len(d)) for d, _ in responses], dtype=torch.float64)
    results = {}
    for name, row, weights in (
        ("gspo", gspo, sequence_mean(mask, 0.0)),
        ("luspo", LUSPO, constant_length(mask, constant)),
    ):
        logprobs = (old + padded).requires_grad_()
        loss = policy_token_loss(TokenInputs(logprobs, old, advantages, mask), row).loss * weights.double()
        results[name] = loss.sum(1).detach(), torch.autograd.grad(loss.sum(), logprobs)[0]
    lengths = mask.sum(1)
    torch.testing.assert_close(results["luspo"][0], results["gspo"][0] * lengths / constant, rtol=1e-5, atol=1e-7)
    scaled = results["gspo"][1] * lengths[:, None] / constant
    torch.testing.assert_close(results["luspo"][1], scaled, rtol=1e-5, atol=1e-7)


# CISPO -----------------------------------------------------------------------------------------------------------


@given(st.floats(-3, 3), ADVANTAGES)
def test_cispo_clips_the_weight_and_keeps_the_gradient(difference, advantage):
    """MiniMax-M1, eq. 4 and 5: sg(clip(r)) A log pi, and "we did not impose a lower bound on the IS weight": the
    gradient is the policy gradient times min(r, cap), "from all tokens"."""
    _, gradient = token_losses(ALGORITHMS["cispo"], [difference], advantage)
    assert gradient.item() == pytest.approx(-advantage * min(math.exp(difference), 5.0))


# Dual clip -------------------------------------------------------------------------------------------------------


@given(st.floats(-4, 4), st.floats(-3, 3), st.floats(1.21, 6))
def test_the_dual_clip(difference, advantage, c):
    """Ye et al., eq. 5: where A < 0, max(min(r A, clip(r, 1 - eps, 1 + eps) A), c A) is maximized, "where c > 1 is a
    constant indicating the lower bound"; elsewhere PPO's objective as it is. No gradient beyond c."""
    ratio = math.exp(difference)
    objective = min(ratio * advantage, min(max(ratio, 0.8), 1.2) * advantage)
    row = replace(ALGORITHMS["dr_grpo"], dual_clip=c)
    (loss, gradient), (plain, slope) = (
        token_losses(r, [difference], advantage) for r in (row, replace(row, dual_clip=0))
    )
    assert plain.item() == pytest.approx(-objective)
    assert loss.item() == pytest.approx(-(max(objective, c * advantage) if advantage < 0 else objective))
    beyond = advantage < 0 and ratio > c
    assert gradient.item() == pytest.approx(0.0 if beyond else slope.item())


# Ratio of the whole response -------------------------------------------------------------------------------------


@given(DIFFERENCES)
def test_the_product_ratio(differences):
    """DeepSeek-R1, eq. 1, pi(o|q) / pi_old(o|q): the product of the tokens' ratios; GSPO's is its |o|-th root, and of
    one token all three are the same."""
    new, old = torch.tensor([differences], dtype=torch.float64), torch.zeros(1, len(differences)).double()
    mask = torch.ones(new.shape, dtype=torch.bool)
    found = {name: ratio(new, old, mask) for name, ratio in RATIOS.items()}
    product = math.prod(math.exp(difference) for difference in differences)
    torch.testing.assert_close(found["product"], torch.full_like(new, product))
    torch.testing.assert_close(found["sequence"] ** len(differences), found["product"])
    first = RATIOS["product"](new[:, :1], old[:, :1], mask[:, :1])
    torch.testing.assert_close(first, found["token"][:, :1])


# PPO's penalty ---------------------------------------------------------------------------------------------------

OLD, NEW = torch.tensor([[0.3, -1.0, 2.0, 0.0], [1.0, 0.5, -0.2, -2.0]], dtype=torch.float64)


@pytest.mark.parametrize("new", [OLD, NEW])
def test_ppos_penalty_is_the_kl_of_the_old_policy_to_the_new(new):
    """PPO, eq. 8: beta KL[pi_old(.|s), pi(.|s)], by value and by gradient, with tokens that the old policy drew: all
    four tokens, each with its probability. No policy term: the advantage is 0. At r = 1 there is no gradient."""
    logits = new.clone().requires_grad_()
    old, logprobs = OLD.log_softmax(0), logits.log_softmax(0)
    row = replace(ALGORITHMS["dr_grpo"], old_kl_coef=0.7)
    mask = torch.ones(4, 1, dtype=torch.bool)
    batch = make_batch(
        mask,
        groups=torch.zeros(4),
        old_logprobs=old[:, None],
        advantages=torch.zeros(4, 1),
        token_weights=old.exp()[:, None],  # the chance of each: the sum is the expectation
    )
    found = Objective(row)(batch, logprobs[:, None], torch.zeros(4, 1)).loss
    exact = 0.7 * (old.exp() * (old - logprobs)).sum()
    torch.testing.assert_close(found, exact)
    gradients = [torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (found, exact)]
    torch.testing.assert_close(*gradients)
    assert (gradients[0].abs().max() < 1e-12) == (new is OLD)


@given(st.floats(1e-6, 10), st.floats(1e-4, 1), st.floats(1e-3, 5))
def test_the_weight_of_ppos_penalty(measured, target, weight):
    """PPO, section 4: "If d < d_targ / 1.5, beta <- beta / 2. If d > d_targ x 1.5, beta <- beta x 2"."""
    coefficient = OldKLCoefficient(weight, target)
    coefficient.update(measured)
    factor = 2 if measured > 1.5 * target else 0.5 if measured < target / 1.5 else 1
    assert coefficient.value == weight * factor
    for fixed, value in ((OldKLCoefficient(weight), measured), (OldKLCoefficient(weight, target), None)):
        fixed.update(value)
        assert fixed.value == weight


@given(st.floats(0, 10), st.floats(1e-4, 1), st.floats(1e-3, 5), st.integers(1, 5000))
def test_the_weight_of_the_kl_to_the_reference(measured, target, weight, responses):
    """Ziegler et al., section 2.2: e = clip((KL - target) / target, -0.2, 0.2), beta <- beta (1 + K e), K = 0.1; in
    their code K is the step's responses over a horizon of 10,000. The smaller of the two."""
    coefficient = KLCoefficient(weight, target)
    coefficient.update(measured, responses)
    error = min(max((measured - target) / target, -0.2), 0.2)
    gain = 0.1 if responses >= 1000 else responses / 10_000
    assert coefficient.value == pytest.approx(weight * (1 + gain * error), rel=1e-12)
