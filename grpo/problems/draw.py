"""Which problems a step asks: endless passes over the data, each in its own shuffled order; and further ones."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from grpo.records import Problem

T = TypeVar("T")


def draw(problems: Sequence[T], count: int, step: int, seed: int | str) -> list[T]:
    """What is drawn at step 1, 2, ...: endless passes over the problems, each in its own shuffled order.

    A pure function of the step, so that a resumed run draws what the interrupted one would have drawn.
    """
    size = len(problems)
    orders: dict[int, list[int]] = {}
    drawn = []
    for position in range((step - 1) * count, step * count):
        epoch, index = divmod(position, size)
        if epoch not in orders:
            orders[epoch] = list(range(size))
            random.Random(f"{seed}/{epoch}").shuffle(orders[epoch])
        drawn.append(problems[orders[epoch][index]])
    return drawn


def draw_anew(
    problems: Sequence[Problem], count: int, step: int, attempt: int, seed: int, asked: Sequence[Problem]
) -> list[Problem]:
    """Further problems for a step, none of which it has `asked` already; fewer where the data has no more of them.

    A pure function of its arguments: a resumed run draws the same.
    """
    taken = {id(problem) for problem in asked}
    others = [problem for problem in problems if id(problem) not in taken]
    return random.Random(f"{seed}/{step}/{attempt}").sample(others, min(count, len(others)))
