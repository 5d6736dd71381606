"""A pass over a batch, one micro-batch at a time. Where memory runs out it is made again, with micro-batches of half.

The result is the same but for rounding, however a batch is cut. A pass that has failed leaves nothing behind: the whole
of it is made again, because a backward pass that broke off has added a part of its gradient already.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from grpo.model.batching import micro_batches
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

    def __init__(self, micro_batch_tokens: int) -> None:
        self.micro_batch_tokens = micro_batch_tokens
        """Positions of a micro-batch, padding included. Halved where memory runs out, and it stays so."""
        self.say: Callable[[str], None] = print

    def each_micro_batch(
        self, batch: Batch, make: Callable[[Batch], T], *, name: str, afresh: Callable[[], None] = lambda: None
    ) -> list[tuple[Tensor, T]]:
        """(rows, what `make` returned) of each micro-batch, moved to the device one at a time.

        name: of the pass, for what is said of it. afresh: called after a pass that has failed; it drops what that has
        left, which would be counted twice.
        Raises: OutOfMemory where a micro-batch of one response is too large.
        """
        while True:
            made = []
            try:
                for rows in micro_batches(batch, self.micro_batch_tokens):
                    made.append((rows, make(batch.take(rows).to(self.device))))
                return made
            except Exception as error:
                if not ran_out(error):
                    raise
                words = said(error)  # nothing else of it: its frames hold the tensors that are in the way
            del made
            afresh()
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self._halve(len(rows), int(batch.lengths[rows].max()), name, words)

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
