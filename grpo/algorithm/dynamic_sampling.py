"""Dynamic sampling: draw anew for groups that teach nothing (DAPO, arXiv 2503.14476, section 3.2).

    pool = [scored]                                     # groups, their rewards, the totals [P, G]
    while not enough(pool, wanted): pool.append(...)    # further problems, generated and verified
    groups, rewards, total = select(pool, wanted)

P problems a step, G responses a problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from grpo.algorithm.advantages import equal_rewards
from grpo.records import Group, Rewards


class Scored(NamedTuple):
    """Groups, what the verifiers said of them, and the total [P, G] that advantages are computed from."""

    groups: list[Group]
    rewards: Rewards
    total: Tensor


def enough(pool: Sequence[Scored], wanted: int) -> bool:
    """Whether the pool holds `wanted` groups from which something can be learnt."""
    return sum(int((~equal_rewards(scored.total)).sum()) for scored in pool) >= wanted


def select(pool: Sequence[Scored], wanted: int) -> Scored:
    """The first `wanted` groups whose rewards differ, in order of arrival.

    Where there are fewer, groups of equal rewards complete them, so that a step always has P groups.
    """
    if len(pool) == 1:
        return pool[0]
    groups = [group for scored in pool for group in scored.groups]
    total = torch.cat([scored.total for scored in pool])
    uniform = equal_rewards(total)
    # Stable: the informative ones first, in order, then as many of the others as are needed.
    chosen = torch.argsort(uniform.int(), stable=True)[:wanted].sort().values
    rewards = join([scored.rewards for scored in pool])
    taken = replace(
        rewards,
        total=rewards.total[chosen],
        by_verifier={name: part[chosen] for name, part in rewards.by_verifier.items()},
    )
    return Scored([groups[i] for i in chosen.tolist()], taken, total[chosen])


def join(several: Sequence[Rewards]) -> Rewards:
    """The rewards of several batches of groups as those of one; failures add up."""
    names = several[0].by_verifier
    return Rewards(
        total=torch.cat([rewards.total for rewards in several]),
        by_verifier={name: torch.cat([rewards.by_verifier[name] for rewards in several]) for name in names},
        errors={name: sum(rewards.errors[name] for rewards in several) for name in names},
        timeouts={name: sum(rewards.timeouts[name] for rewards in several) for name in names},
    )
