"""The engine of several ranks: each generates a part of the problems, and every rank gets all groups.

    engine = SharedEngine(engine, ranks)        # used as any engine, by all ranks with the same arguments

A response's seed depends on its problem's place among those of all ranks, and so on nothing that the number of ranks
changes: two ranks sample what one process samples, but for rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from grpo.engines.protocol import Engine, OnResponse
from grpo.model.policy import Policy
from grpo.model.ranks import Ranks
from grpo.records import Group, Problem


class SharedEngine:
    """This rank's engine, and through `ranks` those of the others."""

    def __init__(self, engine: Engine, ranks: Ranks) -> None:
        self.engine = engine
        self.ranks = ranks
        self.passes = 0
        """See Engine.passes: those of all ranks."""

    @property
    def precision(self) -> torch.dtype:
        """See Engine.precision."""
        return self.engine.precision

    def generate(
        self,
        problems: Sequence[Problem],
        group_size: int,
        *,
        temperature: float,
        max_tokens: int,
        seed: int,
        on_response: OnResponse | None = None,
        places: Sequence[int] | None = None,
    ) -> list[Group]:
        """See Engine.generate. `on_response` is called with this rank's responses alone."""
        with self.ranks.together(hears=True):
            groups = self.engine.generate(
                self.ranks.share(problems),
                group_size,
                temperature=temperature,
                max_tokens=max_tokens,
                seed=seed,
                on_response=on_response,
                places=self.ranks.share(places or range(len(problems))),
            )
        rollouts = self.ranks.collect([group.rollouts for group in groups])
        self.passes = sum(self.ranks.exchange(self.engine.passes))
        return [Group(problem, row) for problem, row in zip(problems, rollouts, strict=True)]

    def sync(self, policy: Policy) -> None:
        """See Engine.sync. The weights are put together tensor by tensor, by all ranks at once."""
        self.engine.sync(policy)

    def release(self) -> None:
        """See Engine.release."""
        self.engine.release()

    @property
    def held_bytes(self) -> int:
        """See Engine.held_bytes: of this rank's card."""
        return self.engine.held_bytes

    def score(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """See Engine.score: each rank's engine scores a part of them."""
        mine = self.ranks.share(sequences)
        with self.ranks.together(hears=True):
            scores = self.engine.score(mine) if mine else []
        return self.ranks.collect(scores)

    def close(self) -> None:
        """See Engine.close."""
        self.engine.close()
