"""The engine of several ranks: each generates a part of the problems, and every rank gets all groups.

    engine = SharedEngine(engine, ranks)        # used as any engine, by all ranks with the same arguments

A response's seed depends on its problem's place among those of all ranks, and so on nothing that the number of ranks
changes: two ranks sample what one process samples, but for rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch

from grpo.engines.protocol import Engine, OnResponse
from grpo.model.policy import Policy
from grpo.model.ranks import Ranks
from grpo.records import Group, Problem, Rollout

T = TypeVar("T")


class SharedEngine:
    """This rank's engine, and through `ranks` those of the others."""

    def __init__(self, engine: Engine, ranks: Ranks, tensor_parallel: int = 1) -> None:
        """tensor_parallel: so many ranks that follow one another are one engine: each of them asks it for what all of
        them are to do, in the same order, and gets all of it."""
        self.engine = engine
        self.ranks = ranks
        self.tensor_parallel = tensor_parallel
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
        pool, places = self._pool(len(problems)), places or range(len(problems))
        mine = {id(problem) for problem in self.ranks.share(problems)}

        def finished(problem: Problem, rollout: Rollout) -> None:
            if on_response is not None and id(problem) in mine:
                on_response(problem, rollout)

        with self.ranks.together(hears=True):
            groups = self.engine.generate(
                [problems[i] for i in pool],
                group_size,
                temperature=temperature,
                max_tokens=max_tokens,
                seed=seed,
                on_response=finished,
                places=[places[i] for i in pool],
            )
        rollouts = self.ranks.collect(self._own(pool, [group.rollouts for group in groups]))
        self.passes = sum(self.ranks.exchange(self.engine.passes)) // self.tensor_parallel
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
        pool = self._pool(len(sequences))
        with self.ranks.together(hears=True):
            scores = self.engine.score([sequences[i] for i in pool]) if pool else []
        return self.ranks.collect(self._own(pool, scores))

    def close(self) -> None:
        """See Engine.close."""
        self.engine.close()

    def _pool(self, count: int) -> list[int]:
        """Which of `count` items this rank's engine works on: the shares of all ranks whose engine it is."""
        team = self.ranks.rank // self.tensor_parallel
        return [i for i in range(count) if i % self.ranks.size // self.tensor_parallel == team]

    def _own(self, pool: list[int], made: Sequence[T]) -> list[T]:
        """Of what was made for the pool, that of this rank's share."""
        return [item for i, item in zip(pool, made, strict=True) if i % self.ranks.size == self.ranks.rank]
