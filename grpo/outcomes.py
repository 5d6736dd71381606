"""What *correct* and *truncated* mean, once: for training, evaluation, replay and the logs.

P problems a step, G responses a problem.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from grpo.records import Group, Rewards

FULL_MARKS = 1.0
"""The reward of the first verifier from which on a response is correct, where `--correct-at` says no other."""


def is_correct(reward: float | None, at: float = FULL_MARKS) -> bool:
    """Full marks from the first verifier, whatever formats and penalties add to the total. None ("does not apply") and
    NaN are not."""
    return reward is not None and reward >= at


def correct(rewards: Rewards) -> Tensor:
    """[P, G] bool: full marks from the first verifier."""
    return first_of(rewards.by_verifier) >= rewards.correct_at  # `is_correct` of each


def first_of(by_verifier: dict[str, Tensor]) -> Tensor:
    """[P, G]: the rewards of the first verifier, which says what is correct; 0 where it does not apply."""
    return next(iter(by_verifier.values())).nan_to_num(0.0)


def passes(reward: float | None, truncated: bool, at: float = FULL_MARKS) -> bool:
    """What an evaluation counts: correct, and not cut at the token limit, whatever the text until there holds.

    Training's `length/correct` and `length/incorrect` ask for the verdict alone: they say what the verifier thinks of
    responses that grow, cut or not.
    """
    return is_correct(reward, at) and not truncated


def truncated(groups: Sequence[Group]) -> Tensor:
    """[P, G] bool: responses cut at the token limit, as the engine says (`Rollout.truncated`)."""
    return torch.tensor([[rollout.truncated for rollout in group.rollouts] for group in groups])


def lengths(groups: Sequence[Group]) -> Tensor:
    """[P, G] float: response tokens, the end of sequence included."""
    return torch.tensor([[float(len(rollout.tokens)) for rollout in group.rollouts] for group in groups])
