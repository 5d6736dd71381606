"""Memory that runs out: how it is told from other errors, and the paragraph that it ends in. No traceback, no silence.

    with out_of_memory("starting the engine", "lower --memory-fraction"):
        engine = make_engine(...)

A pass over micro-batches is made again with smaller ones first (model/passes.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from grpo.errors import RunError, UserError

SAYINGS = (
    "out of memory",  # torch on a card, CUDA itself, and vLLM's allocator of what sleeps
    "cublas_status_alloc_failed",
    "not enough memory",  # torch's allocator on a CPU
    "allocate memory",  # "can't" of the same, "cannot" of the system
    "bad_alloc",
    # Of vLLM's start: the card is fuller than it was told, or its share holds no KV cache for one response.
    "free memory on device",
    "no available memory for the cache blocks",
    "larger than the available kv cache memory",
)
"""Torch and vLLM raise RuntimeError and ValueError where memory runs out, and only their words say so."""

PLAN = "python -m grpo.doctor with the same flags shows what the run takes, and on a card --plan every stage of it."

SHARE = (
    "another --memory-fraction on a card, or --kv-cache-gib on a CPU: lower where the trainer is short of memory, "
    "higher where vLLM is; a lower --max-response-tokens spares both"
)
"""What helps where trainer and vLLM share the memory."""

NO_REFERENCE = "--reference-device cpu, or no reference at all: --kl-coef 0 --log-kl False"


class OutOfMemory(RunError):
    """Memory has run out and nothing could be made smaller. The message is one paragraph that names the flags."""


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory has run out, on a card or on the host."""
    if isinstance(error, OutOfMemory | MemoryError):
        return True
    told = isinstance(error, RuntimeError | ValueError | OSError) and not isinstance(error, UserError | RunError)
    return told and any(saying in str(error).lower() for saying in SAYINGS)


@contextmanager
def out_of_memory(stage: str, helps: str, after: str = PLAN) -> Iterator[None]:
    """Name the stage where memory has run out, and what helps there; after: what else is to be said. Other errors pass.

    Raises: OutOfMemory, with the notes of the error that it is made from.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OutOfMemory) or not ran_out(error):
            raise
        raised = OutOfMemory(f"Memory ran out in {stage} ({said(error)}). What helps: {helps}. {after}")
        for note in getattr(error, "__notes__", []):
            raised.add_note(note)
        raise raised from error


def said(error: BaseException) -> str:
    """An error on one line, without what torch goes on to say of its allocator's settings."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.partition(" Including ")[0][:300].rstrip(".")
