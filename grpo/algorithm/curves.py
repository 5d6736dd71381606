"""What the loss of an algorithm does to a batch, as curves, and a sentence on each that is made of its numbers.

Made-up rewards, lengths and ratios go through the functions that train. `pull` is what gradient descent adds to a
token's log-probability, up to the learning rate: minus the derivative of the loss.

    >>> token_weights(ALGORITHMS["dr_grpo"], torch.tensor([100, 1000]), responses=8, correct=2, constant=1000).incorrect
    tensor([0.0003, 0.0003], dtype=torch.float64)  # and under grpo 0.0054 and 0.0005

P problems, G responses a problem, N points of a curve.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from grpo.algorithm.advantages import AdvantageInputs
from grpo.algorithm.choices import limits
from grpo.algorithm.gae import gae
from grpo.algorithm.importance import TOKEN_CAP
from grpo.algorithm.ingredients import load_advantage, load_aggregation
from grpo.algorithm.kl import KL_ESTIMATORS
from grpo.algorithm.preference_losses import PREFERENCE_LOSSES, slopes
from grpo.algorithm.ratios import RATIOS, token_ratio
from grpo.algorithm.row import Algorithm
from grpo.algorithm.surrogates import SURROGATES
from grpo.algorithm.token_inputs import TokenInputs


@dataclass(frozen=True)
class Curves:
    """One quantity of correct and of incorrect answers, [N] each; NaN where there is no such answer."""

    correct: Tensor
    incorrect: Tensor


# The numbers -----------------------------------------------------------------------------------------------------


def token_weights(row: Algorithm, lengths: Tensor, responses: int, correct: int, constant: float) -> Curves:
    """|advantage| * weight * B of a token: the size of its pull while the ratio is 1, in units of 1 / B.

    One batch has a group for each of the N lengths: G responses of that length, the first `correct` of them correct.
    """
    rewards = (torch.arange(responses) < correct).double().repeat(len(lengths), 1)  # [P, G]
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).repeat_interleave(responses, dim=0)  # [P * G, T]
    groups = torch.zeros(len(mask), dtype=torch.int64)  # of one problem: lengths differ within it
    weights = load_aggregation(row.aggregation, constant)(mask, groups)[:, 0].view_as(rewards)
    each = lengths[:, None].expand_as(rewards).double()
    cut = torch.zeros_like(rewards, dtype=torch.bool)
    inputs = AdvantageInputs(
        rewards, each, mask.view(*rewards.shape, -1), cut, {"verifier": rewards}, 0 * rewards, row.dpo_beta
    )
    pull = load_advantage(row.advantage)(inputs).abs() * weights * len(mask)
    return Curves(pull[:, 0], pull[:, -1])


def group_advantages(row: Algorithm, responses: int) -> Curves:
    """Advantage of a correct and of an incorrect answer where 0, 1 ... G of G are correct: a group for each."""
    rewards = (torch.arange(responses) < torch.arange(responses + 1)[:, None]).double()
    inputs = replace(AdvantageInputs.of_rewards(rewards), dpo_beta=row.dpo_beta)
    advantages = load_advantage(row.advantage)(inputs)
    correct, incorrect = advantages[:, 0].clone(), advantages[:, -1].clone()
    correct[0], incorrect[-1] = math.nan, math.nan
    return Curves(correct, incorrect)


def surrogates(row: Algorithm, ratios: Tensor) -> tuple[Curves, Curves]:
    """What is maximised, and its pull, against the ratio; advantage +1 for correct and -1 for incorrect answers."""

    def one(advantage: float) -> tuple[Tensor, Tensor]:
        logprobs = ratios.log()[:, None].requires_grad_()  # old log-probability 0: each point a response of one token
        mask = torch.ones_like(logprobs, dtype=torch.bool)
        old = torch.zeros_like(logprobs)
        ratio = RATIOS[row.ratio](logprobs, old, mask)
        inputs = TokenInputs(logprobs, old, torch.full_like(logprobs, advantage), mask)
        loss = SURROGATES[row.surrogate](inputs, ratio, row).loss
        (gradient,) = torch.autograd.grad(loss.sum(), logprobs)
        return 0.0 - loss.detach()[:, 0], 0.0 - gradient[:, 0]  # 0 - 0 is 0, but -(0) is -0

    (correct, pull_correct), (incorrect, pull_incorrect) = one(1.0), one(-1.0)
    return Curves(correct, incorrect), Curves(pull_correct, pull_incorrect)


def ratio_grid(row: Algorithm) -> Tensor:
    """Ratios around what the row does to them, spaced so that no limit falls on a point."""
    half = {
        "clipped": max(3 * max(row.clip_low, row.clip_high), 1.2 * row.dual_clip),
        "cispo": 1.2 * row.ratio_cap,
        "geometric": 1.0,
        "soft_gate": 4.0,
    }.get(row.surrogate, 1.0)
    grid = 1 + half * (torch.arange(-600, 600, dtype=torch.float64) + 0.5) / 600
    return grid[grid > 0]


def kl_curves(name: str, differences: Tensor) -> tuple[Tensor, Tensor]:
    """Value of an estimator and its pull, on-policy, against d = log-probability - the reference's."""
    logprobs = differences[:, None].clone().requires_grad_()
    ratio = token_ratio(logprobs, logprobs.detach(), torch.ones_like(logprobs, dtype=torch.bool))
    value = KL_ESTIMATORS[name](logprobs, torch.zeros_like(logprobs), ratio)
    (gradient,) = torch.autograd.grad(value.sum(), logprobs)
    return value.detach()[:, 0], 0.0 - gradient[:, 0]


def pair_curves(row: Algorithm, margins: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Loss of a pair and its pull, in units of beta, against the margin beta h, at the row's beta: what training does
    (sigmoid), with a tenth of the labels smoothed, and IPO. The chosen gets the pull, the rejected minus it."""
    beta = row.dpo_beta
    losses = {
        "sigmoid": lambda h: PREFERENCE_LOSSES["sigmoid"](h, beta, 0.0),
        "smoothed 0.1": lambda h: PREFERENCE_LOSSES["sigmoid"](h, beta, 0.1),
        "ipo": lambda h: beta**2 * PREFERENCE_LOSSES["ipo"](h, beta, 0.0),  # in units of its own margin
    }
    h = margins / beta
    return {name: (loss(h), -slopes(h, loss) / beta) for name, loss in losses.items()}


# What they say ---------------------------------------------------------------------------------------------------


def length_sentence(name: str, lengths: Tensor, curves: Curves, short: int, long: int) -> str:
    at_short, at_long = (curves.incorrect[(lengths == length).nonzero()[0, 0]].item() for length in (short, long))
    if not at_short:
        return f"under {name} an incorrect answer weighs nothing, whatever its length"
    times = at_short / at_long
    less = "the same as" if abs(times - 1) < 1e-3 else f"{times:.3g}x less than"
    return f"under {name} a token of an incorrect answer of {long:,} tokens weighs {less} one of {short:,}"


def accuracy_sentence(name: str, curves: Curves) -> str:
    size = len(curves.correct) - 1
    counts = torch.arange(size + 1)
    pulls = counts * curves.correct.abs().nan_to_num() + counts.flip(0) * curves.incorrect.abs().nan_to_num()
    one, half, whole = (pulls[k].item() for k in (1, size // 2, size))
    every = f"one with all correct {whole / half:.3g} times" if whole else "one with all correct not at all"
    return (
        f"under {name} a group with 1 of {size} correct pulls {one / half:.3g} times as hard as one with {size // 2} "
        f"of {size} (|advantages| add up to {one:.3g} and {half:.3g}), {every}"
    )


def clip_sentence(name: str, row: Algorithm) -> str:
    ratios = ratio_grid(row)
    _, pull = surrogates(row, ratios)
    above, below = edges(ratios, pull.correct == 0), edges(ratios, pull.incorrect == 0)
    if above or below:
        low, *dual = below
        return (
            f"under {name} a token of a correct answer has no pull above a ratio of {', '.join(above)}, one of an "
            f"incorrect answer none below {low}{''.join(f' or above {ratio}' for ratio in dual)}"
        )
    most = pull.correct.max()
    first = int((pull.correct > most * (1 - 1e-9)).nonzero()[0, 0])
    size = f"is {most:.3g} from a ratio of {ratios[first]:.3g} on"
    if pull.correct[-1] < 0.9 * most:
        size = f"is largest, {most:.3g}, at a ratio of {ratios[first]:.2g} and fades beyond it,"
    if first in (0, len(ratios) - 1):
        size = "grows with the ratio" if first else f"is {most:.3g} at any ratio"
    return f"under {name} no token ever loses its pull, which {size} where the advantage is 1"


def importance_sentence(name: str, row: Algorithm) -> str:
    if row.importance == "none" or row.importance_cap == 0:
        return f"under {name} nothing corrects for a sampler whose log-probabilities are not the trainer's"
    low, high = limits(row)
    done = {
        "truncate": f"counts at most {high:g} times",
        "mask": f"counts as often, and not at all below {low:g} or above {high:g}",
        "sequence_mask": f"counts at most {TOKEN_CAP:g} times, and not at all where its response's geometric mean is "
        f"outside {low:g} to {high:g}",
    }[row.importance]
    return f"under {name} a token that the trainer finds w times as likely as the sampler did {done}"


def pair_sentence(name: str, row: Algorithm) -> str:
    _, pull = pair_curves(row, torch.tensor([-4.0, 0.0, 4.0], dtype=torch.float64))["sigmoid"]
    wrong, start, right = (row.dpo_beta * pull).tolist()
    return (
        f"under {name} the best and the worst of a group are pulled apart by {start:.3g} a token while the policy is "
        f"the reference, by {wrong:.3g} where the margin is -4, and by {right:.3g} where it is 4: what is learnt is "
        "left alone"
    )


def edges(ratios: Tensor, gone: Tensor) -> list[str]:
    """Where the pull goes or comes, to the digits that the grid can tell."""
    changes = (gone[1:] != gone[:-1]).nonzero()[:, 0].tolist()
    digits = [math.floor(-math.log10(ratios[i + 1] - ratios[i])) for i in changes]
    return [f"{round((ratios[i] + ratios[i + 1]).item() / 2, n):g}" for i, n in zip(changes, digits, strict=True)]


def kl_sentence(name: str, row: Algorithm) -> str:
    if not row.kl_coef:
        return f"under {name} nothing pulls towards the reference: the KL weighs 0"
    if row.kl_in == "reward":
        return f"under {name} the KL is part of the reward, with weight {row.kl_coef:g}: it acts through the advantage"
    _, pull = kl_curves(row.kl_estimator, torch.tensor([-2.0, 2.0]))
    up, down = (row.kl_coef * pull).tolist()
    return (
        f"under {name} the KL ({row.kl_coef:g} {row.kl_estimator}) pulls a token that is 2 nats less likely than under "
        f"the reference by {up:+.3g}, one 2 nats more likely by {down:+.3g}"
    )


def gae_weights(row: Algorithm, ahead: Tensor) -> Tensor:
    """[n] -> [n]: how much the δ of a token so many places later counts in a token's advantage, by gae itself."""
    longest = int(ahead.max()) + 1
    surprises, mask = torch.eye(longest, dtype=torch.float64), torch.ones(longest, longest, dtype=torch.bool)
    return gae(surprises, torch.zeros_like(surprises), mask, row.discount, row.gae_lambda)[:, 0][ahead]


def gae_sentence(name: str, row: Algorithm) -> str:
    """What the decay does to a response's tokens."""
    decay = row.discount * row.gae_lambda
    if decay == 1:
        return (
            f"under {name} a token is credited with all that comes after it, less what the critic expected: noisy, and "
            "right whatever the critic thinks (--gae-lambda below 1 looks less far ahead)"
        )
    if decay == 0:
        return f"under {name} a token is credited with what the critic thinks of the next: as right as it is"
    half = math.log(0.5) / math.log(decay)
    return f"under {name} what is seen {half:,.0f} tokens later counts half: less noise, and more of the critic's error"
