"""One model, in a process of its own: its memory is gone before the next one starts, and a killed one is told of."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence

from rich.console import Console

from grpo.errors import UserError
from grpo.evaluation.options import Options
from grpo.evaluation.tasks import Task, evaluate_model
from grpo.out_of_memory import OutOfMemory, out_of_memory

HELPS = (
    "a lower --concurrency or --max-response-tokens; another --memory-fraction on a card, or --kv-cache-gib on a CPU: "
    "lower where the model does not fit beside it, higher where vLLM's cache holds no response"
)


class ProcessFailed(Exception):
    """The process of a model has ended with another status than 0, and has said why."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the model's process ended with status {status}")
        self.status = status


def in_own_process(model: str, tasks: Sequence[Task], options: Options) -> None:
    """Run the tasks of a model in a new process, and wait for it. Raises: ProcessFailed."""
    process = multiprocessing.get_context("spawn").Process(target=_child, args=(os.getpid(), model, tasks, options))
    process.start()
    try:
        process.join()
    except KeyboardInterrupt:  # the console sends it to both; the child ends by itself
        process.join()
        raise
    if process.exitcode < 0:
        print(
            f"error: the process that evaluated {model} was killed ({signal.Signals(-process.exitcode).name}), perhaps "
            "for its memory: lower --memory-fraction or --kv-cache-gib. What was finished is kept in --out.",
            file=sys.stderr,
        )
    if process.exitcode != 0:
        raise ProcessFailed(max(process.exitcode, 1))


def _child(parent: int, model: str, tasks: Sequence[Task], options: Options) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: die with the command, however it dies
    if os.getppid() != parent:
        sys.exit(1)
    try:
        with out_of_memory(f"evaluating {model}", HELPS, after="What was finished is kept in --out."):
            evaluate_model(model, tasks, options, Console(soft_wrap=True, highlight=False))
    except (UserError, OutOfMemory) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UserError) else 1)
    except KeyboardInterrupt:  # the command itself says so
        sys.exit(130)
