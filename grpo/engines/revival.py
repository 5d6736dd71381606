"""An engine that is made anew, once, where it dies in a run that has taken days to get there.

engine = Revival(lambda: make_engine(...), say=print)      # used as any engine
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import torch

from grpo.engines.protocol import Engine, OnResponse
from grpo.errors import RunError, UserError
from grpo.model.policy import Policy
from grpo.out_of_memory import SHARE, out_of_memory
from grpo.records import Group, Problem

T = TypeVar("T")


class Revival:
    """The engine that `make` makes. The first call that raises has it closed, made anew, synced and called again.

    Input that is wrong and a run that cannot go on (UserError, RunError) are no death of the engine. A second death is
    raised: an engine that dies again does so for a reason that outlives it. Where that is memory that has run out, it
    is raised as OutOfMemory, which names the flags.
    """

    def __init__(self, make: Callable[[], Engine], say: Callable[[str], None], *, once: bool = True) -> None:
        """once: whether it may; several ranks make their engines together, and one cannot make its own anew."""
        self.make = make
        self.say = say
        with out_of_memory("starting the engine", SHARE):
            self.engine = make()
        self.revived = not once
        self.policy: Policy | None = None

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
        """See Engine.generate. After a death `on_response` gets responses that it had before once more."""
        settings = dict(
            temperature=temperature, max_tokens=max_tokens, seed=seed, on_response=on_response, places=places
        )
        return self._alive("generating", lambda engine: engine.generate(problems, group_size, **settings))

    @property
    def passes(self) -> int:
        """See Engine.passes."""
        return self.engine.passes

    def sync(self, policy: Policy) -> None:
        """See Engine.sync."""
        self.policy = policy
        self._alive("handing the weights to the engine", lambda engine: engine.sync(policy))

    def release(self) -> None:
        """See Engine.release."""
        self._alive("putting the engine to sleep", lambda engine: engine.release())

    @property
    def held_bytes(self) -> int:
        """See Engine.held_bytes."""
        return self.engine.held_bytes

    def score(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """See Engine.score."""
        return self._alive("proving the sync", lambda engine: engine.score(sequences))

    def close(self) -> None:
        """See Engine.close."""
        with suppress(Exception):  # what is dead may not close either, and what ended the run is what must be said
            self.engine.close()

    def _alive(self, stage: str, call: Callable[[Engine], T]) -> T:
        with out_of_memory(stage, SHARE):
            return self._called(call)

    def _called(self, call: Callable[[Engine], T]) -> T:
        try:
            return call(self.engine)
        except (UserError, RunError):
            raise
        except Exception as error:  # whatever kills an engine: vllm, CUDA and torch each have errors of their own
            if self.revived:
                raise
            said = f"{type(error).__name__}: {error}"
            error.__traceback__ = None  # its frames hold the dead engine, and with it the memory that the new one needs
        self.revived = True
        self.say(f"the engine died ({said}); it is made anew from the current weights, this once")
        self.close()
        del self.engine
        gc.collect()
        self.engine = self.make()
        if self.policy is not None:
            self.engine.sync(self.policy)
        return call(self.engine)
