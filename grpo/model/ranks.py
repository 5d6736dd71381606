"""The processes of a run, one a card, which `torchrun` starts: what each does of the work, and how they stay together.

    ranks = Ranks.join()                        # in a process that torchrun has not started: a world of one
    mine = ranks.share(problems)                # a part of what all have
    everyone = ranks.collect(responses)         # the whole of which each has a part

All ranks run the same loop on the same numbers. A step is whole on every rank: its groups, rewards and batch. What a
rank does alone is a part of what takes long: it generates and verifies its share of the problems, and it passes its
rows of a batch through the model. So everything between, from the advantages to the KL's weight, is computed by each
rank as by a single process, and needs no ranks.

A world of one is the identity, and torch.distributed is never initialised.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor

from grpo.errors import UserError
from grpo.interrupts import Interrupted, held_back, let_through, sent_with_the_end_of_parent
from grpo.model.settings import RANK_MINUTES

T = TypeVar("T")

LOCKSTEP_MINUTES = 10.0
"""At most, where they compute together: there a rank that is late is a rank that is lost."""


class OtherRankFailed(Exception):
    """Another rank has raised, and says what. This one ends with it."""


@dataclass
class Ranks:
    """This process among those of the run."""

    rank: int = 0
    size: int = 1
    nodes: int = 1
    """Machines, each with equally many ranks."""
    talk: Any = None
    """The group over which objects travel: gloo's, on the host, so that waiting for a slow sampler is no time-out."""
    waited: float = 0.0
    """Seconds spent waiting for other ranks since this was last asked for."""

    @classmethod
    def join(cls, *, minutes: float = RANK_MINUTES, on_card: bool = False, nodes: int | None = None) -> Ranks:
        """This process's place, from the variables that torchrun sets; in each rank at the same point of the program.

        minutes: that ranks wait for one another; on_card: whether each computes on a card of its own; nodes: unset, as
        torchrun says. Raises: UserError where this machine lacks cards or NCCL.
        """
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls()
        import torch.distributed as dist

        sent_with_the_end_of_parent(signal.SIGTERM)  # without its torchrun a rank would go on, and nobody end it
        if on_card:
            check_cards(int(os.environ["LOCAL_WORLD_SIZE"]))
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        together = timedelta(minutes=min(minutes, LOCKSTEP_MINUTES))
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_card else "gloo", timeout=together)
        talk = dist.new_group(backend="gloo", timeout=timedelta(minutes=minutes))
        joined = cls(dist.get_rank(), size, nodes or size // int(os.environ["LOCAL_WORLD_SIZE"]), talk)
        _joined.append(joined)
        return joined

    @property
    def writes(self) -> bool:
        """Whether this rank writes the run's files, and speaks: one does."""
        return self.rank == 0

    @property
    def first_here(self) -> bool:
        """Whether this rank is the first on its machine, which fetches what the others then find there."""
        return self.rank % (self.size // self.nodes) == 0

    def most(self, count: int) -> int:
        """The most of `count` items that a rank has."""
        return -(-count // self.size)

    def share(self, items: Sequence[T]) -> list[T]:
        """This rank's part of items that all ranks have: every `size`-th, so that each gets as many long ones where
        they are sorted. Empty where there are fewer items than ranks.

        >>> [Ranks(rank, 3).share("abcde") for rank in range(3)]
        [['a', 'd'], ['b', 'e'], ['c']]
        """
        return list(items[self.rank :: self.size])

    def collect(self, items: Sequence[T]) -> list[T]:
        """The whole of which `items` are this rank's share, in order. They travel pickled; its own stay its objects."""
        parts = self.exchange(list(items))
        parts[self.rank] = list(items)
        return [parts[i % self.size][i // self.size] for i in range(sum(map(len, parts)))]

    def exchange(self, item: T) -> list[T]:
        """One item of each rank."""
        if self.size == 1:
            return [item]
        import torch.distributed as dist

        found: list[Any] = [None] * self.size
        start = time.perf_counter()
        dist.all_gather_object(found, item, group=self.talk)
        self.waited += time.perf_counter() - start
        return found

    def told(self, item: T) -> T:
        """What rank 0 has for it, where ranks could differ: in what they find on a disk, or the time of day."""
        return self.exchange(item)[0]

    def total(self, sums: dict[str, float]) -> dict[str, float]:
        """The sum over ranks, added in their order: the same to the last bit on each."""
        parts = self.exchange(sums)
        return {name: sum(part[name] for part in parts) for name in sums}

    def largest(self, values: dict[str, float]) -> dict[str, float]:
        """The largest value of each name that a rank has."""
        parts = self.exchange(values)
        names = dict.fromkeys(name for part in parts for name in part)
        return {name: max(part[name] for part in parts if name in part) for name in names}

    def added(self, tensor: Tensor) -> Tensor:
        """The sum over ranks of a tensor on the host, which all have in the same shape. It may change in place."""
        if self.size > 1:
            import torch.distributed as dist

            dist.all_reduce(tensor, group=self.talk)
        return tensor

    def signals_wait(self) -> AbstractContextManager[None]:
        """Around what ranks do in lockstep: a signal is heard within `together` alone, where they can agree on it."""
        return held_back() if self.size > 1 else nullcontext()

    def signals_pass(self) -> AbstractContextManager[None]:
        """Of a single process: a signal that `held_back` would hold is heard at once. Of several, still in `together`
        alone."""
        return let_through() if self.size == 1 else nullcontext()

    @contextmanager
    def together(self, *, hears: bool = False) -> Iterator[None]:
        """What each rank does alone in this block ends everywhere where it ends on one: the ranks meet at its end.

        hears: whether a signal is heard within the block, also where it is held back outside it; all ranks then raise
        Interrupted. Of ranks that raise, the first one raises its own error, and every other OtherRankFailed. What is
        raised here is `agreed`: all ranks are at the same point, and can still save.
        """
        if self.size == 1:
            yield
            return
        mine: BaseException | None = None
        try:
            with let_through() if hears else nullcontext():
                yield
        except BaseException as error:
            mine = error
        if isinstance(mine, Interrupted) and mine.at_once:
            raise mine
        signal = mine.number if isinstance(mine, Interrupted) else None
        try:
            ends = self.exchange((mine is not None and signal is None, signal))
        except Exception:  # a rank is gone; what has ended the block here is nearer to the reason
            if mine is not None:
                raise mine  # noqa: B904
            raise
        failed = [rank for rank, (raised, _) in enumerate(ends) if raised]
        signals = [number for _, number in ends if number is not None]
        if failed or signals:
            error = mine if self.rank in failed[:1] else OtherRankFailed() if failed else Interrupted(signals[0])
            error.agreed = True
            raise error

    def seconds_waited(self) -> float:
        """Since this was last asked, the mean over ranks: what the slowest costs the others."""
        waited, self.waited = self.waited, 0.0
        mean = self.total({"waited": waited})["waited"] / self.size
        self.waited = 0.0
        return mean


_joined: list[Ranks] = []
"""This process's, if it has joined others: as torch.distributed, there is one for a process."""


def world() -> tuple[int, int]:
    """(rank, ranks) as torchrun has started this process, also before it has joined the others."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def meet(error: BaseException | None) -> None:
    """Wait for the others before the end, so that nobody's end cuts off what another has to say: at a normal end, and
    after an error that all have agreed on."""
    if _joined and (error is None or agreed(error)):
        _joined[0].exchange(None)


def agreed(error: BaseException) -> bool:
    """Whether all ranks have ended at the same point, so that they can still do something together."""
    return getattr(error, "agreed", False)


def check_cards(ranks: int) -> None:
    """As many ranks as this machine has. Raises: UserError without a card for each, or without NCCL."""
    import torch.distributed as dist

    if ranks > torch.cuda.device_count():
        raise UserError(
            f"torchrun has started {ranks} processes here, each for a card of its own, and torch sees "
            f"{torch.cuda.device_count()}. Lower --nproc-per-node, or see that CUDA_VISIBLE_DEVICES hides none."
        )
    if not dist.is_nccl_available():
        raise UserError(
            "Several cards talk by NCCL, and this build of torch has none. Install torch's build for CUDA on Linux "
            "(python scripts/install.py), or train on one card, without torchrun."
        )
