"""Rewards [P, G] -> advantages [P, G]: how much better a response is than its group.

P problems a step, G responses a problem. Pure functions; a group of equal rewards, or of one response, gives exactly
zero from every function that compares within the group (all but `raw` and `max_only`), never NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from grpo.algorithm.preference_losses import sigmoid, slopes
from grpo.shapes import same_shape

AdvantageFunction = Callable[..., Tensor]
"""Rewards [P, G], and whatever else of `AdvantageInputs` it names as a parameter -> advantages [P, G]."""


@dataclass(frozen=True)
class AdvantageInputs:
    """What an advantage function may ask for by the name of a parameter."""

    rewards: Tensor
    """[P, G]: what is compared. The first parameter, whatever its name."""
    lengths: Tensor
    """[P, G] float: response tokens."""
    mask: Tensor
    """[P, G, T] bool: response tokens that are trained on."""
    truncated: Tensor
    """[P, G] bool: responses cut at the token limit."""
    by_verifier: dict[str, Tensor] = field(default_factory=dict)
    """Verifier -> [P, G] its own reward, before its weight; NaN where it does not apply."""
    log_ratio: Tensor | None = None
    """[P, G]: log-probability of the response under the policy that sampled less that under the reference; None where
    there is no reference."""
    dpo_beta: float = 0.1
    """The row's cell."""

    @classmethod
    def of_rewards(cls, rewards: Tensor) -> AdvantageInputs:
        """Rewards alone: responses of one token each, none of them cut."""
        ones = torch.ones_like(rewards)
        return cls(
            rewards, ones, ones.bool()[..., None], torch.zeros_like(ones.bool()), {"verifier": rewards}, ones * 0
        )


EPSILON = 1e-4
"""Added to a standard deviation before dividing, as TRL does; published values run from 1e-9 to 1e-4."""


def centered(rewards: Tensor) -> Tensor:
    """r - mean_G: the advantage of Dr. GRPO (arXiv 2503.20783, section 3.1).

    >>> centered(torch.tensor([[1.0, 0.0, 0.0, 1.0]]))
    tensor([[ 0.5000, -0.5000, -0.5000,  0.5000]])
    """
    _check(rewards)
    centre = rewards - rewards.mean(dim=1, keepdim=True)
    # The mean of G equal floats can differ from them in the last bit; equal rewards must give exactly nothing to learn.
    return torch.where(equal_rewards(rewards)[:, None], torch.zeros_like(centre), centre)


def group_normalized(rewards: Tensor) -> Tensor:
    """(r - mean_G) / (std_G + eps), std with ddof 1: the advantage of GRPO (arXiv 2402.03300, section 4.1.2).

    Dividing by the group's deviation is the "difficulty bias" that Dr. GRPO removes: problems that are nearly always
    or nearly never solved weigh more than those in between.

    >>> group_normalized(torch.tensor([[1.0, 0.0, 0.0, 1.0]]))
    tensor([[ 0.8659, -0.8659, -0.8659,  0.8659]])
    """
    centre = centered(rewards)
    if rewards.shape[1] == 1:  # ddof 1 of a single value is 0/0
        return centre
    return centre / (rewards.std(dim=1, correction=1, keepdim=True) + EPSILON)


def batch_normalized(rewards: Tensor) -> Tensor:
    """(r - mean_G) / (std of that over the batch + eps): REINFORCE++ with baseline (arXiv 2501.03262, section 3.2).

    >>> batch_normalized(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    tensor([[ 1.2244, -1.2244],
            [ 0.0000,  0.0000]])
    """
    centre = centered(rewards)
    if rewards.numel() == 1:
        return centre
    return centre / (centre.std(correction=1) + EPSILON)


def leave_one_out(rewards: Tensor) -> Tensor:
    """r minus the mean of the other G - 1, which is G / (G - 1) (r - mean_G): RLOO (arXiv 2402.14740, eq. 8).

    >>> leave_one_out(torch.tensor([[1.0, 0.0, 0.0, 1.0]]))
    tensor([[ 0.6667, -0.6667, -0.6667,  0.6667]])
    """
    size = rewards.shape[1] if rewards.ndim == 2 else 1
    return centered(rewards) * (size / max(1, size - 1))


def raw(rewards: Tensor) -> Tensor:
    """r itself: plain REINFORCE (CS336 lecture 17, `rewards`). Positive rewards reinforce whatever was sampled.

    >>> raw(torch.tensor([[1.0, 0.0]]))
    tensor([[1., 0.]])
    """
    _check(rewards)
    return rewards


def max_only(rewards: Tensor) -> Tensor:
    """r where it equals the group's maximum (all ties), else 0; not centred (CS336 lecture 17, `max_rewards`).

    >>> max_only(torch.tensor([[1.0, 0.5, 1.0]]))
    tensor([[1., 0., 1.]])
    """
    _check(rewards)
    return torch.where(rewards == rewards.amax(dim=1, keepdim=True), rewards, torch.zeros_like(rewards))


def batch_scaled(rewards: Tensor) -> Tensor:
    """(r - mean_G) / (std of the batch's raw rewards + eps), ddof 1: Lite PPO (arXiv 2508.08221, takeaway 3).

    The raw rewards differ between problems as well, so that this deviation is the larger one, and the advantages are
    the smaller ones, where easy and hard problems mix (`batch_normalized` has the deviation of what is centered).

    >>> batch_scaled(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    tensor([[ 0.9998, -0.9998],
            [ 0.0000,  0.0000]])
    """
    centre = centered(rewards)
    if rewards.numel() == 1:
        return centre
    return centre / (rewards.std(correction=1) + EPSILON)


def mean_normalized(rewards: Tensor) -> Tensor:
    """(r - mean_G) / mean_G, and 0 where the mean is not positive: MaxRL (arXiv 2602.02710, algorithm 1).

    For rewards of at least 0. The rarer a success, the more it weighs: one of G gets G - 1.

    >>> mean_normalized(torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
    tensor([[ 3., -1., -1., -1.]])
    """
    centre, mean = centered(rewards), rewards.mean(dim=1, keepdim=True)
    return torch.where(mean > 0, centre / mean.where(mean > 0, torch.ones_like(mean)), 0.0)


def optimal_baseline(rewards: Tensor, lengths: Tensor) -> Tensor:
    """r - sum(|o| r) / sum(|o|): the baseline of least variance, b* = E[g^2 r] / E[g^2], if g^2 grows as the length.

    g is the gradient of the response's summed log-probability, whose square is taken to be in proportion to its tokens
    (OPO, arXiv 2505.23585; verl `opo`). The response itself is in its baseline, as there. lengths [P, G], tokens.

    >>> optimal_baseline(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 3.0]]))
    tensor([[ 0.7500, -0.2500]])
    """
    _check(rewards)
    same_shape("[P, G]", rewards=rewards, lengths=lengths)
    baseline = (lengths * rewards).sum(dim=1, keepdim=True) / lengths.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.where(equal_rewards(rewards)[:, None], torch.zeros_like(rewards), rewards - baseline)


def best_worst(rewards: Tensor, log_ratio: Tensor, dpo_beta: float) -> Tensor:
    """Online DPO (arXiv 2402.04792): the best response of a group against its worst, 0 for all others and for a tie.

    With h = log_ratio of the best less that of the worst, the best gets beta sigmoid(-beta h) and the worst minus that,
    minus the slope of DPO's loss: the surrogate -A l has the gradient of -log sigmoid(beta h). Of equals it is the
    first best and the last worst; which these are is chance, because responses of a group are drawn alike.

    >>> best_worst(torch.tensor([[1.0, 0.0, 0.0, 1.0]]), torch.zeros(1, 4), dpo_beta=0.5)
    tensor([[ 0.2500,  0.0000, -0.2500,  0.0000]])
    """
    _check(rewards)
    same_shape("[P, G]", rewards=rewards, log_ratio=log_ratio)
    best = rewards.argmax(dim=1, keepdim=True)
    worst = rewards.shape[1] - 1 - rewards.flip(1).argmin(dim=1, keepdim=True)
    h = log_ratio.gather(1, best) - log_ratio.gather(1, worst)
    pull = -slopes(h, lambda values: sigmoid(values, dpo_beta)).to(rewards)
    found = torch.zeros_like(rewards).scatter(1, best, pull).scatter(1, worst, -pull)
    return torch.where(equal_rewards(rewards)[:, None], torch.zeros_like(rewards), found)


ADVANTAGES: dict[str, AdvantageFunction] = {
    "raw": raw,
    "max_only": max_only,
    "centered": centered,
    "leave_one_out": leave_one_out,
    "group_normalized": group_normalized,
    "batch_normalized": batch_normalized,
    "batch_scaled": batch_scaled,
    "mean_normalized": mean_normalized,
    "optimal_baseline": optimal_baseline,
    "best_worst": best_worst,
}
"""What `--advantage` accepts, besides a function of your own: `./mine.py:rank`."""


def equal_rewards(rewards: Tensor) -> Tensor:
    """[P, G] -> bool [P]: groups whose rewards are all the same, from which nothing can be learnt."""
    same_shape("[P, G]", rewards=rewards)
    return (rewards == rewards[:, :1]).all(dim=1)


def _check(rewards: Tensor) -> None:
    if rewards.ndim != 2 or not rewards.is_floating_point():
        raise ValueError(f"rewards must be a float tensor [P, G], not {rewards.dtype} of shape {list(rewards.shape)}")
