"""A pass over a batch, one micro-batch at a time. Where memory runs out it is made again, with micro-batches of half.

The result is the same but for rounding, however a batch is cut. A pass that has failed leaves nothing behind: the whole
of it is made again, because a backward pass that broke off has added a part of its gradient already.

Of several ranks each makes the pass over its rows of the batch, which all of them have.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from grpo.model.batching import dealt, nothing
from grpo.model.ranks import Ranks
from grpo.out_of_memory import PLAN, OutOfMemory, ran_out, said
from grpo.records import Batch

T = TypeVar("T")

HELPS = (
    "a lower --max-response-tokens, --gradient-checkpointing True, --optimizer adamw_8bit or adamw_offload, "
    "--lora-rank, or a lower --memory-fraction where vLLM does not sleep"
)


class Passes:
    """What cuts batches into micro-batches: the learner and the reference."""

    device: torch.device
    """Where passes are made."""

    def __init__(self, micro_batch_tokens: int, ranks: Ranks | None = None) -> None:
        self.ranks = ranks or Ranks()
        self.micro_batch_tokens = micro_batch_tokens
        """Positions of a micro-batch, padding included. Halved where memory runs out, and it stays so."""
        self.say: Callable[[str], None] = print

    def each_micro_batch(
        self, batch: Batch, make: Callable[[Batch], T], *, name: str, afresh: Callable[[], None] = lambda: None
    ) -> list[tuple[Tensor, T]]:
        """(rows, what `make` returned) of each micro-batch, moved to the device one at a time.

        name: of the pass, for what is said of it. afresh: called after a pass that has failed; it drops what that has
        left, which would be counted twice. Of several ranks those of this one; where another has more, this one makes
        as many, of nothing.
        Raises: OutOfMemory where a micro-batch of one response is too large, or there are several ranks.
        """
        while True:
            made = []
            try:
                pieces = dealt(batch, self.micro_batch_tokens, self.ranks.rank, self.ranks.size)
                for at, rows in enumerate(pieces):
                    self.begin_piece(last=at == len(pieces) - 1)
                    piece = nothing(batch) if rows is None else batch.take(rows)
                    found = make(piece.to(self.device))
                    if rows is not None:
                        made.append((rows, found))
                return made
            except Exception as error:
                if not ran_out(error):
                    raise
                words = said(error)  # nothing else of it: its frames hold the tensors that are in the way
            del made
            if self.ranks.size > 1:
                raise OutOfMemory(
                    f"Memory ran out in {name} ({words}). One process would halve its micro-batches and go on; of "
                    f"several the others wait for this one. Go on with a lower --micro-batch-tokens than "
                    f"{self.micro_batch_tokens:,}. What else helps: {HELPS}. {PLAN}"
                )
            afresh()
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self._halve(len(rows), int(batch.lengths[rows].max()), name, words)

    def begin_piece(self, *, last: bool) -> None:
        """Called before each micro-batch."""

    def _halve(self, responses: int, longest: int, name: str, words: str) -> None:
        """After a pass of so many responses, padded to the longest. Raises: OutOfMemory where there is but one."""
        if responses == 1:
            raise OutOfMemory(
                f"Memory ran out in {name} over one response of {longest:,} positions, prompt included, and one "
                f"response cannot be cut ({words}). What helps: {HELPS}. {PLAN}"
            )
        self.micro_batch_tokens = responses * longest // 2
        self.say(
            f"memory ran out in {name} over {responses:,} responses, {responses * longest:,} positions: it is made "
            f"again, and from here on micro-batches have at most {self.micro_batch_tokens:,} (rounding may differ, the "
            "result does not)"
        )
