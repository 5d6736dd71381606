"""Every row of the table, end to end, against its paper's formula in plain arithmetic: two problems of two responses.

credit -> optimizer batch -> objective must come to the number that `RIGHT` has for the row. Each formula is written
out by itself, from the paper and the row's stated departures; `l` is a token's new log-probability, `old` that of the
policy that sampled, `w` the importance weight. Rewards are 1 and 1/4 (cut at the limit) for the first problem, 1 and
1/2 for the second: where a cut response scores at most 0 the first are 1 and 0.
"""

from dataclasses import replace
from itertools import pairwise
from math import exp, log, sqrt

import pytest
import torch
from paper_steps import make_groups, make_rewards

from grpo.algorithm.credit import credit
from grpo.algorithm.dynamic_sampling import dropped, score
from grpo.algorithm.ingredients import load_advantage, load_aggregation
from grpo.algorithm.objective import Objective
from grpo.algorithm.table import ALGORITHMS
from grpo.model.batching import collate, optimizer_batches

OLD = [[-1.0, -0.5], [-2.0], [-0.7, -1.2, -0.4], [-0.9, -1.6]]
MOVED = [[0.3, -0.1], [-0.45], [1.8, 0.001, -0.3], [0.5, -0.25]]
"""l - old: inside and outside of every clip range, and above the cap of 5 = e^1.61."""
GAP = [[0.0, 1.0], [0.2], [-0.3, 0.0, 0.1], [0.9, 0.0]]
"""old - sampler: above log 2 twice."""
AHEAD = [[0.4, -0.2], [0.0], [1.0, 0.3, -0.6], [-0.5, 0.1]]
"""l - reference."""
CONSTANT = 6.0

l = [[o + m for o, m in zip(*rows, strict=True)] for rows in zip(OLD, MOVED, strict=True)]  # noqa: E741
w = [[min(exp(gap), 2.0) for gap in row] for row in GAP]
ratio = [[exp(m) for m in row] for row in MOVED]
lengths, B, N = [2, 1, 3, 2], 4, 8
tokens = [(i, t) for i in range(B) for t in range(lengths[i])]
eps = 1e-4


def clip(x, low, high):
    return min(max(x, low), high)


def ppo(r, a, low, high):
    """The objective of PPO, to be maximized."""
    return min(r * a, clip(r, low, high) * a)


def reinforce():
    """Lecture 17: the mean over tokens of r log pi, on the raw rewards."""
    r = [1, 0, 1, 0.5]
    return -sum(w[i][t] * r[i] * l[i][t] for i, t in tokens) / N


def max_reward():
    """Lecture 17: the best of the group keeps its reward; ratio clipped to 0.99 .. 1.01."""
    r = [1, 0, 1, 0]
    return -sum(w[i][t] * ppo(ratio[i][t], r[i], 0.99, 1.01) for i, t in tokens) / N


def rloo():
    """Eq. 8: r minus the mean of the others, times the response's log-probability; a ratio, and C, are departures."""
    a = [1 - 0, 0 - 1, 1 - 0.5, 0.5 - 1]
    return -sum(sum(w[i][t] * ratio[i][t] for t in range(lengths[i])) * a[i] for i in range(B)) / (B * CONSTANT)


def grpo():
    """Eq. 3 and 4: 1/G sum 1/|o| sum min(..) - 0.04 (ref/pi - log ref/pi - 1); A = (r - mean) / std."""
    first, second = 0.5 / (sqrt(0.5) + eps), 0.25 / (sqrt(0.125) + eps)
    a, total = [first, -first, second, -second], 0.0
    for i, t in tokens:
        kl = exp(-AHEAD[i][t]) + AHEAD[i][t] - 1
        total += (w[i][t] * ppo(ratio[i][t], a[i], 0.8, 1.2) - 0.04 * kl) / lengths[i]
    return -total / B


def dr_grpo():
    """Section 3.2: A = r - mean, no 1/|o| but a constant."""
    a = [0.5, -0.5, 0.25, -0.25]
    return -sum(w[i][t] * ppo(ratio[i][t], a[i], 0.8, 1.2) for i, t in tokens) / (B * CONSTANT)


def dapo():
    """Eq. 8 and 9: 1 / sum |o|, 0.8 .. 1.28; eq. 13: here half of -1 off the response that fills the budget, which
    is judged, cut or not: totals 1 and 1/4 - 1/2."""
    first, second = 0.625 / (1.25 / sqrt(2) + eps), 0.25 / (0.5 / sqrt(2) + eps)
    a = [first, -first, second, -second]
    return -sum(w[i][t] * ppo(ratio[i][t], a[i], 0.8, 1.28) for i, t in tokens) / N


def sequence_ratio(i):
    """(pi(y|x) / pi_old(y|x)) ^ (1/|y|)."""
    return exp(sum(MOVED[i])) ** (1 / lengths[i])


def gspo():
    """Eq. 5 to 7: 1/G sum min(s A, clip(s, 1 - 3e-4, 1 + 4e-4) A)."""
    first, second = 0.5 / (sqrt(0.5) + eps), 0.25 / (sqrt(0.125) + eps)
    a = [first, -first, second, -second]
    return -sum(sum(w[i]) / lengths[i] * ppo(sequence_ratio(i), a[i], 1 - 3e-4, 1 + 4e-4) for i in range(B)) / B


def luspo():
    """Eq. 7: 1/G sum |y| min(s A, clip(s, 1 - 2e-3, 1 + 2.5e-3) A), over C."""
    first, second = 0.5 / (sqrt(0.5) + eps), 0.25 / (sqrt(0.125) + eps)
    a = [first, -first, second, -second]
    total = sum(sum(w[i]) * ppo(sequence_ratio(i), a[i], 1 - 2e-3, 1 + 2.5e-3) for i in range(B))
    return -total / (B * CONSTANT)


def gmpo():
    """Eq. 4: the geometric mean over tokens, each cut at e^0.4 where A > 0, at e^-0.4 where A < 0, times A."""
    first, second, total = 0.5 / (sqrt(0.5) + eps), 0.25 / (sqrt(0.125) + eps), 0.0
    for i, a in enumerate([first, -first, second, -second]):
        product = 1.0
        for r in ratio[i]:
            product *= min(r, exp(0.4)) if a > 0 else max(r, exp(-0.4))
        total += sum(w[i]) / lengths[i] * product ** (1 / lengths[i]) * a
    return -total / B


def sapo():
    """Eq. 5: 1/G sum 1/|y| sum 4 / tau sigma(tau (r - 1)) A, tau 1.0 where A > 0 and 1.05 elsewhere."""
    first, second, total = 0.5 / (sqrt(0.5) + eps), 0.25 / (sqrt(0.125) + eps), 0.0
    for i, (a, tau) in enumerate([(first, 1.0), (-first, 1.05), (second, 1.0), (-second, 1.05)]):
        gates = [4 / tau / (1 + exp(-tau * (r - 1))) for r in ratio[i]]
        total += sum(w[i][t] * gates[t] for t in range(lengths[i])) * a / lengths[i]
    return -total / B


def cispo():
    """Eq. 4 and 5: sg(min(r, 5)) A log pi over all tokens; A as GRPO's."""
    first, second = 0.5 / (sqrt(0.5) + eps), 0.25 / (sqrt(0.125) + eps)
    a = [first, -first, second, -second]
    return -sum(w[i][t] * min(ratio[i][t], 5) * a[i] * l[i][t] for i, t in tokens) / N


def scale_rl():
    """Section 4: 1 / sum_g |y_g| of the prompt, the mean over prompts; A over the deviation of all A of the batch."""
    std = sqrt((2 * 0.5**2 + 2 * 0.25**2) / 3) + eps
    a, total = [0.5 / std, -0.5 / std, 0.25 / std, -0.25 / std], 0.0
    for prompt, size in (((0, 1), 3), ((2, 3), 5)):
        total += sum(w[i][t] * min(ratio[i][t], 5) * a[i] * l[i][t] for i, t in tokens if i in prompt) / size
    return -total / 2


def lite_ppo():
    """Takeaway 3 and eq. 6: the group's mean, the deviation of the rewards 1, 0, 1, 1/2 of the batch."""
    mean = 2.5 / 4
    std = sqrt(((1 - mean) ** 2 + mean**2 + (1 - mean) ** 2 + (0.5 - mean) ** 2) / 3) + eps
    a = [0.5 / std, -0.5 / std, 0.25 / std, -0.25 / std]
    return -sum(w[i][t] * ppo(ratio[i][t], a[i], 0.8, 1.2) for i, t in tokens) / N


def maxrl():
    """Algorithm 1: (r - mean) / mean."""
    a = [0.5 / 0.5, -0.5 / 0.5, 0.25 / 0.75, -0.25 / 0.75]
    return -sum(w[i][t] * ppo(ratio[i][t], a[i], 0.8, 1.2) for i, t in tokens) / N


def reinforce_pp():
    """The variant with a baseline: (r - mean_G) / std of the batch, and k2 = (log pi / ref)^2 / 2 in the loss."""
    std = sqrt((2 * 0.5**2 + 2 * 0.25**2) / 3) + eps
    a, total = [0.5 / std, -0.5 / std, 0.25 / std, -0.25 / std], 0.0
    for i, t in tokens:
        total += w[i][t] * ppo(ratio[i][t], a[i], 0.8, 1.2) - 1e-3 * AHEAD[i][t] ** 2 / 2
    return -total / N


def online_dpo():
    """DPO, eq. 7 and its gradient: beta sigma(-beta h) (grad log pi(y_w) - grad log pi(y_l)) of each problem's best and
    worst, h = log pi / ref (y_w) - log pi / ref (y_l) of the policy that sampled; over G and C, a departure."""
    gained = [sum(AHEAD[i][t] - MOVED[i][t] for t in range(lengths[i])) for i in range(B)]
    total = 0.0
    for best, worst in ((0, 1), (2, 3)):
        pull = 0.1 / (1 + exp(0.1 * (gained[best] - gained[worst])))
        total += pull * (sum(l[best]) - sum(l[worst]))
    return -total / (B * CONSTANT)


RIGHT = {
    function.__name__: function
    for function in (
        reinforce, max_reward, rloo, grpo, dr_grpo, dapo, gspo, luspo, gmpo, sapo, cispo, scale_rl, lite_ppo, maxrl,
        reinforce_pp, online_dpo,
    )
}  # fmt: skip


def in_place(mask, rows):
    """Numbers of the response tokens, in their places."""
    flat = torch.tensor([value for row in rows for value in row], dtype=torch.float64)
    return torch.zeros(mask.shape, dtype=torch.float64).masked_scatter(mask, flat)


def loss_of(row):
    """What training makes of the step."""
    sampler = [[o - gap for o, gap in zip(*rows, strict=True)] for rows in zip(OLD, GAP, strict=True)]
    groups = make_groups([[2, 1], [3, 2]], [[False, True], [False, False]], [sampler[:2], sampler[2:]])
    parts = {"judge": [[1.0, 0.25], [1.0, 0.5]]}
    if row.penalties:
        parts["overlong"] = [[0.0, -1.0], [0.0, 0.0]]
    scored = score(groups, make_rewards({"overlong": 0.5}, **parts), row)
    left_out = dropped(scored.informative, row)
    batch = collate(groups, 0, mask_truncated=row.truncated == "mask", dropped=left_out)
    logprobs = in_place(batch.mask, l)
    batch = replace(
        batch,
        old_logprobs=in_place(batch.mask, OLD),
        ref_logprobs=logprobs - in_place(batch.mask, AHEAD),
    )
    credited = credit(batch, groups, scored.total, load_advantage(row.advantage), row, scored.rewards.by_verifier)
    batch = replace(batch, advantages=credited.of_tokens)
    (batch,) = optimizer_batches(batch, 1, 1, load_aggregation(row.aggregation, CONSTANT), seed=0)
    return Objective(row)(batch, logprobs, torch.zeros_like(logprobs)).loss.item()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_row_is_its_paper(name):
    assert loss_of(ALGORITHMS[name]) == pytest.approx(RIGHT[name](), abs=1e-6)  # float32 weights


def test_no_two_rows_are_the_same_number():
    """Else the step could not tell them apart."""
    found = sorted(function() for function in RIGHT.values())
    assert all(b - a > 1e-3 for a, b in pairwise(found))


def test_the_step_reaches_every_limit():
    assert log(5) < max(max(row) for row in MOVED) and sum(weight == 2 for row in w for weight in row) == 2
