"""Dynamic sampling: draw anew for groups that teach nothing (DAPO, arXiv 2503.14476, section 3.2).

P problems a step, G responses a problem.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from grpo.algorithm.advantages import equal_rewards
from grpo.records import Group, Rewards

Scored = tuple[list[Group], Rewards, Tensor]
"""Groups, what the verifiers said, and the total [P, G] that advantages are computed from."""


def refill(scored: Scored, draw_more: Callable[[int], Scored], attempts: int) -> tuple[Scored, int]:
    """Replace groups of equal rewards by groups of further problems, drawing at most `attempts` times.

    Groups keep their order of arrival. Where the attempts do not fill the batch, groups of equal rewards complete it,
    so that a step always has P groups. Returns the P groups and the number of draws that were made.
    """
    wanted = len(scored[0])
    pool, drawn = [scored], 0
    while drawn < attempts and sum(int((~equal_rewards(total)).sum()) for _, _, total in pool) < wanted:
        drawn += 1
        pool.append(draw_more(drawn))
    groups = [group for more, _, _ in pool for group in more]
    total = torch.cat([more for _, _, more in pool])
    uniform = equal_rewards(total)
    # Stable: the informative ones first, in order, then as many of the others as are needed.
    chosen = torch.argsort(uniform.int(), stable=True)[:wanted].sort().values
    rewards = join([rewards for _, rewards, _ in pool])
    taken = replace(
        rewards,
        total=rewards.total[chosen],
        by_verifier={name: part[chosen] for name, part in rewards.by_verifier.items()},
    )
    return ([groups[i] for i in chosen.tolist()], taken, total[chosen]), drawn


def join(several: Sequence[Rewards]) -> Rewards:
    """The rewards of several batches of groups as those of one; failures add up."""
    names = several[0].by_verifier
    return Rewards(
        total=torch.cat([rewards.total for rewards in several]),
        by_verifier={name: torch.cat([rewards.by_verifier[name] for rewards in several]) for name in names},
        errors={name: sum(rewards.errors[name] for rewards in several) for name in names},
        timeouts={name: sum(rewards.timeouts[name] for rewards in several) for name in names},
    )
