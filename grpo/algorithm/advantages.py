"""Rewards [P, G] -> advantages [P, G]: how much better a response is than its group.

P problems a step, G responses a problem. Pure functions; a group of equal rewards, or of one response, gives exactly
zero from every function that compares within the group (all but `raw` and `max_only`), never NaN.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from grpo.shapes import same_shape

Advantage = Callable[[Tensor], Tensor]
"""Rewards [P, G] -> advantages [P, G]."""

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


ADVANTAGES: dict[str, Advantage] = {
    "raw": raw,
    "max_only": max_only,
    "centered": centered,
    "leave_one_out": leave_one_out,
    "group_normalized": group_normalized,
    "batch_normalized": batch_normalized,
}
"""What `--advantage` accepts, besides a function of your own: `./mine.py:rank`."""


def equal_rewards(rewards: Tensor) -> Tensor:
    """[P, G] -> bool [P]: groups whose rewards are all the same, from which nothing can be learnt."""
    same_shape("[P, G]", rewards=rewards)
    return (rewards == rewards[:, :1]).all(dim=1)


def _check(rewards: Tensor) -> None:
    if rewards.ndim != 2 or not rewards.is_floating_point():
        raise ValueError(f"rewards must be a float tensor [P, G], not {rewards.dtype} of shape {list(rewards.shape)}")
