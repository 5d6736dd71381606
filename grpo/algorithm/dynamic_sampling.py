"""Groups that teach nothing, and what a row does about them: DAPO's dynamic sampling (arXiv 2503.14476, section 3.2).

A group is informative where its responses are neither all correct nor all incorrect: where the first verifier, which
says what is correct, does not give all of them the same (DAPO, eq. 8 and 11; verl `filter_groups.metric: acc`). Neither
penalties of the row nor rewards for a format count: a group without a correct answer teaches nothing, however long one
of its answers is.

    pool = [scored]                                     # groups, their rewards, the totals [P, G]
    while not enough(pool, wanted): pool.append(...)    # further problems, generated and verified
    chosen = select(pool, wanted)

P problems a step, G responses a problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from grpo.algorithm.advantages import equal_rewards
from grpo.algorithm.credit import creditable
from grpo.algorithm.row import Algorithm
from grpo.outcomes import first_of, truncated
from grpo.records import Group, Rewards


class Scored(NamedTuple):
    """Groups and what was said of them."""

    groups: list[Group]
    rewards: Rewards
    total: Tensor
    """[P, G]: what advantages are computed from."""
    informative: Tensor
    """[P] bool: groups that are neither all correct nor all wrong."""


def score(groups: list[Group], rewards: Rewards, row: Algorithm) -> Scored:
    """Totals as the row credits truncated responses, and which groups something can be learnt from.

    With the verifiers math_answer (1, 0, 0) and overlong (0, -0.5, 0): total (1, -0.5, 0), informative.
    With                           (0, 0, 0)              (0, -0.5, 0): total (0, -0.5, 0), not informative.
    """
    cut = truncated(groups)
    told = informative(first_of(rewards.by_verifier), cut, row)
    return Scored(groups, rewards, creditable(rewards.total, cut, row), told)


def informative(first: Tensor, truncated: Tensor, row: Algorithm) -> Tensor:
    """[P] bool: groups in which the first verifier's rewards [P, G], credited as the row says, are not all equal.

    For rewards of 0 and 1: neither all correct nor all wrong.
    """
    return ~equal_rewards(creditable(first, truncated, row))


def enough(pool: Sequence[Scored], wanted: int) -> bool:
    """Whether the pool holds `wanted` groups from which something can be learnt."""
    return sum(int(scored.informative.sum()) for scored in pool) >= wanted


def select(pool: Sequence[Scored], wanted: int) -> Scored:
    """The first `wanted` informative groups, in order of arrival.

    Where there are fewer, others complete them, so that a step always has P groups; `dropped` says which of them the
    loss leaves out.
    """
    if len(pool) == 1:
        return pool[0]
    groups = [group for scored in pool for group in scored.groups]
    informative = torch.cat([scored.informative for scored in pool])
    # Stable: the informative ones first, in order, then as many of the others as are needed.
    chosen = torch.argsort((~informative).int(), stable=True)[:wanted].sort().values
    rewards = join([scored.rewards for scored in pool])
    taken = replace(
        rewards,
        total=rewards.total[chosen],
        by_verifier={name: part[chosen] for name, part in rewards.by_verifier.items()},
    )
    total = torch.cat([scored.total for scored in pool])
    return Scored([groups[i] for i in chosen.tolist()], taken, total[chosen], informative[chosen])


def dropped(informative: Tensor, row: Algorithm) -> Tensor:
    """[P] bool: groups whose tokens the loss leaves out.

    They are those that dynamic sampling could not replace, and all that teach nothing where the row says `drop`. They
    leave the divisors of `token_mean` and `prompt_mean` as well; under the other aggregations they stay in B.
    """
    drops = bool(row.dynamic_sampling) or row.uniform_groups == "drop"
    return ~informative & drops


def join(several: Sequence[Rewards]) -> Rewards:
    """The rewards of several batches of groups as those of one; failures add up."""
    names = several[0].by_verifier
    return Rewards(
        total=torch.cat([rewards.total for rewards in several]),
        by_verifier={name: torch.cat([rewards.by_verifier[name] for rewards in several]) for name in names},
        errors={name: sum(rewards.errors[name] for rewards in several) for name in names},
        timeouts={name: sum(rewards.timeouts[name] for rewards in several) for name in names},
        correct_at=several[0].correct_at,
    )
