"""Longest first: how long a problem's responses were the last time, and the order of generation that follows from it.

Where a step asks for more responses than are generated at once, the last ones start late, and a long one among them is
waited for alone. So problems start in falling order of their earlier lengths. That is known from the second pass over
the data on.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from grpo.records import Group, Problem


class EarlierLengths:
    """Mean length of the responses to each problem of a data set, tokens, when it was last asked.

    A part of what a checkpoint holds: another order gives other draws.
    """

    def __init__(self, problems: Sequence[Problem], *, waiting: bool) -> None:
        """waiting: whether a step's responses have to wait for one another; where they have not, nothing is sorted."""
        self.places = {id(problem): place for place, problem in enumerate(problems)}
        self.waiting = waiting
        self.mean: dict[int, float] = {}
        """By the problem's place in the data."""

    def note(self, groups: Sequence[Group]) -> None:
        """The responses of a step."""
        if self.waiting:
            for group in groups:
                self.mean[self.places[id(group.problem)]] = fmean(len(rollout.tokens) for rollout in group.rollouts)

    def longest_first(self, problems: Sequence[Problem]) -> list[Problem]:
        """The same problems; one that was never asked counts as one of average length, and ties keep their order."""
        if not (self.waiting and self.mean):  # a resumed run may know lengths and have nobody wait
            return list(problems)
        average = fmean(self.mean.values())
        return sorted(problems, key=lambda problem: -self.mean.get(self.places[id(problem)], average))
