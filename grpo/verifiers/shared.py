"""The verifiers of several ranks: each verifies what it has generated, and every rank gets all rewards."""

from __future__ import annotations

from collections.abc import Sequence

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

    def submit(self, problem: Problem, rollout: Rollout) -> None:
        """See Verifiers.submit."""
        self.verifiers.submit(problem, rollout)

    def __call__(self, groups: Sequence[Group]) -> Rewards:
        """See Verifiers."""
        with self.ranks.together(hears=True):
            mine = self.verifiers(self.ranks.share(groups))
        parts = self.ranks.exchange(mine)
        return join([part for part in parts if len(part.total)] or [mine])

    def outcomes(self, groups: Sequence[Group]) -> dict[str, list[Outcome]]:
        """See Verifiers.outcomes."""
        with self.ranks.together(hears=True):
            mine = self.verifiers.outcomes(self.ranks.share(groups))
        parts = self.ranks.exchange(mine)
        return {name: [outcome for part in parts for outcome in part[name]] for name in mine}

    def final_answer(self, response: str) -> str | None:
        """See Verifiers.final_answer."""
        return self.verifiers.final_answer(response)
