"""The verifiers of several ranks: each verifies what it has generated, and every rank gets all rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import torch

from grpo.algorithm.dynamic_sampling import join
from grpo.model.ranks import Ranks
from grpo.records import Group, Problem, Rewards, Rollout
from grpo.verifiers.pool import Outcome
from grpo.verifiers.verify import Verifiers


class SharedVerifiers:
    """This rank's verifiers, and through `ranks` those of the others; used as Verifiers, by all with the same groups.

    A batch verifier sees the responses of its rank: whole groups, but not all of a step.
    """

    def __init__(self, verifiers: Verifiers, ranks: Ranks) -> None:
        self.verifiers = verifiers
        self.ranks = ranks

    @property
    def at(self) -> tuple[int, int]:
        """See Verifiers.at."""
        return self.verifiers.at

    @at.setter
    def at(self, place: tuple[int, int]) -> None:
        self.verifiers.at = place

    @property
    def correct_at(self) -> float:
        """See Verifiers.correct_at."""
        return self.verifiers.correct_at

    @property
    def weights(self) -> dict[str, float]:
        """See Verifiers.weights."""
        return self.verifiers.weights

    def submit(self, problem: Problem, rollout: Rollout) -> None:
        """See Verifiers.submit."""
        self.verifiers.submit(problem, rollout)

    def __call__(self, groups: Sequence[Group]) -> Rewards:
        """See Verifiers."""
        with self.ranks.together(hears=True):
            mine = self.verifiers(self.ranks.share(groups))
        parts = self.ranks.exchange(mine)
        together = join([part for part in parts if len(part.total)] or [mine])  # one rank's groups after another's
        order = [place for rank in range(self.ranks.size) for place in range(rank, len(groups), self.ranks.size)]
        back = torch.tensor(order, dtype=torch.int64).argsort()
        by_verifier = {name: values[back] for name, values in together.by_verifier.items()}
        return replace(together, total=together.total[back], by_verifier=by_verifier)

    def outcomes(self, groups: Sequence[Group]) -> dict[str, list[Outcome]]:
        """See Verifiers.outcomes."""
        with self.ranks.together(hears=True):
            mine = self.verifiers.outcomes(self.ranks.share(groups))
        size = len(groups[0].rollouts) if groups else 1
        of_groups = {name: [row[i : i + size] for i in range(0, len(row), size)] for name, row in mine.items()}
        return {name: list(chain(*self.ranks.collect(rows))) for name, rows in of_groups.items()}

    def final_answer(self, response: str) -> str | None:
        """See Verifiers.final_answer."""
        return self.verifiers.final_answer(response)
