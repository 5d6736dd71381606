"""One worker process of the verifier pool, from within; `process.py` is its other end.

It isolates itself, loads its verifiers, says ["ready"], and then answers each call that comes down the wire, in order,
by ["reward", value, seconds, printed], ["error", text, seconds, printed] or, a mistake of the verifier, ["wrong", ...].
Before it ends because a call has used up its memory, it says ["retire"].

Down the wire come pickles; up go lines of JSON: the trainer unpickles nothing that a hostile response has been near.
It imports nothing heavy: no torch, no records.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import inspect
import io
import json
import numbers
import os
import pickle
import random
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grpo.errors import UserError
from grpo.unix import unix_module
from grpo.verifiers.spec import Verifier, load_verifier

OUTPUT_LIMIT = 1 << 20
"""Characters that one call may print before it counts as failed."""
PRINTED_LIMIT = 2000
"""Bytes of it that are kept, to be shown."""
MESSAGE_LIMIT = 300
"""Characters of an error message that leave the worker."""
LARGEST_REWARD = (2 - 2**-23) * 2.0**127
"""Rewards are float32."""


class WrongReturn(Exception):
    """A verifier returned what is no reward: a mistake in the verifier, not in the response."""


def to_reward(value: Any) -> float | None:
    """A verifier's return as a float; None ("does not apply") stays None.

    True -> 1.0 · Fraction(1, 2) -> 0.5 · numpy.float32(0.5) -> 0.5
    Raises: WrongReturn where it is no finite number.
    """
    if value is None:
        return None
    scalar = value.item() if getattr(value, "shape", None) == () else value  # numpy scalars, 0-d arrays and tensors
    if isinstance(scalar, numbers.Real):
        with contextlib.suppress(OverflowError):  # an integer too large for any float falls through
            if abs(number := float(scalar)) <= LARGEST_REWARD:
                return number
    pickle.dumps(value)  # raises for functions, locks, generators: those count as a failure of this one call
    raise WrongReturn(f"returned {_shown(value)} of type {type(value).__name__}, which is not a finite number or None")


def to_rewards(value: Any, count: int) -> list[float | dict[str, str] | None]:
    """The return of a batch verifier as a list of `count` rewards; an exception in place of one is the failure of that
    response, and becomes {"error": text}.

    Raises: WrongReturn where it is not a list, of another length, or holds what `to_reward` refuses.
    """
    values = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(values, list | tuple):
        pickle.dumps(value)
        raise WrongReturn(f"returned {_shown(value)} of type {type(value).__name__}, not a list of {count} rewards")
    if len(values) != count:
        raise WrongReturn(f"returned {len(values)} rewards for {count} responses")
    return [{"error": _described(each, "")} if isinstance(each, Exception) else to_reward(each) for each in values]


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as error:  # an integer of over 4,300 digits, or a user's own __repr__
        return f"something that cannot be shown ({type(error).__name__})"
    return text if len(text) <= 80 else f"{text[:80]}..."


def _described(error: BaseException, file: str) -> str:
    try:
        text = str(error)
    except Exception:  # a user's own __str__
        text = "no message"
    line, trace = None, error.__traceback__
    while trace is not None:
        line = trace.tb_lineno if trace.tb_frame.f_code.co_filename == file else line
        trace = trace.tb_next
    place = f" ({Path(file).name}, line {line})" if line else ""
    return (f"{type(error).__name__}: {text}" if text else type(error).__name__)[:MESSAGE_LIMIT] + place


async def _awaited(value):
    return await value


def call(verifier: Verifier, count: int, arguments: dict[str, Any]) -> Any:
    """Call a verifier on one response, or on lists over `count` of them."""
    value = verifier.function(**arguments)
    if inspect.isawaitable(value):
        value = asyncio.run(_awaited(value))
    return to_reward(value) if verifier.kind == "single" else to_rewards(value, count)


class _Printed(io.BufferedIOBase):
    """Where print() goes: its beginning is kept, and it may not go on without end."""

    written = 0
    kept = b""

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self.written += len(data)
        if room := PRINTED_LIMIT - len(self.kept):
            self.kept += bytes(data[:room])
        if self.written > OUTPUT_LIMIT:
            raise OSError(f"printed more than {OUTPUT_LIMIT} characters")
        return len(data)


class _Memory:
    """The address space that calls may add to what the worker uses once it has loaded its verifiers."""

    def __init__(self, limit: int) -> None:
        self.limit = limit << 20 if sys.platform == "linux" else 0  # other systems do not enforce RLIMIT_AS
        if self.limit:
            self.statm = os.open("/proc/self/statm", os.O_RDONLY)
            self.base = self._size()
            resource = unix_module("resource")
            _, hard = resource.getrlimit(resource.RLIMIT_AS)
            ceiling = self.base + self.limit if hard < 0 else min(self.base + self.limit, hard)
            resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))

    def _size(self) -> int:
        return int(os.pread(self.statm, 64, 0).split()[0]) * os.sysconf("SC_PAGE_SIZE")

    def outgrown(self) -> bool:
        """Half the allowance is gone for good: the next call would not find what the first one found."""
        return bool(self.limit) and self._size() - self.base > self.limit // 2


class _ProcessGuard:
    """An audit hook: verifiers start no processes and signal none. Unlike RLIMIT_NPROC it binds root as well."""

    events = frozenset("os.fork os.forkpty os.posix_spawn os.exec os.system subprocess.Popen os.killpg".split())
    symbols = frozenset("fork vfork system posix_spawn posix_spawnp kill killpg".split())
    lifted = False

    def __call__(self, event: str, arguments: tuple) -> None:
        if self.lifted:
            return
        if (
            event in self.events
            or (event == "os.kill" and arguments[0] != os.getpid())
            or (event == "ctypes.dlsym" and arguments[1] in self.symbols)
        ):
            raise PermissionError(
                f"{event}: a verifier may not start or signal processes, unless its file says STARTS_PROCESSES = True"
            )


class _Ground:
    """The state from which every call starts, so that no result depends on the calls before it."""

    def __init__(self) -> None:
        self.recursion_limit = sys.getrecursionlimit()
        self.printed = _Printed()
        self.output = io.TextIOWrapper(self.printed, encoding="utf-8", errors="replace", write_through=True)
        # sympy compares expressions at random points, from a generator of its own.
        loaded = (sys.modules.get(name) for name in ("sympy.core.random", "numpy.random"))
        self.seeds = [random.seed, *(module.seed for module in loaded if module)]

    def level(self) -> None:
        sys.setrecursionlimit(self.recursion_limit)
        sys.stdout = sys.stderr = self.output
        self.printed.written, self.printed.kept = 0, b""
        for seed in self.seeds:
            seed(0)


def _isolate(parent: int) -> None:
    # A terminal and a scheduler tell every process of a run to end. The trainer ends the workers, after its last step.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # SIG_IGN would be inherited by what a verifier starts, and so stop it
    resource = unix_module("resource")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(10)  # generation goes first
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: die with the trainer, however it dies
        with contextlib.suppress(OSError):  # some containers mount /proc read-only
            Path("/proc/self/oom_score_adj").write_text("1000")  # if memory runs out, a worker goes before the trainer
    if os.getppid() != parent:
        os._exit(0)


def _answer(verifiers: Sequence[Verifier], guard: _ProcessGuard, payload: bytes) -> tuple[list, bool]:
    """One message for one call, and whether the worker is to be replaced after it."""
    started, file = time.perf_counter(), ""
    try:
        index, count, arguments = pickle.loads(payload)
        verifier = verifiers[index]
        file = getattr(getattr(verifier.function, "__code__", None), "co_filename", "")
        guard.lifted = verifier.starts_processes
        kind, said, spent = "reward", call(verifier, count, arguments), False
    except WrongReturn as error:
        kind, said, spent = "wrong", str(error), False
    except BaseException as error:  # SystemExit too: whatever a verifier raises is its failure, not the worker's
        kind, said, spent = "error", _described(error, file), isinstance(error, MemoryError)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)  # an alarm that it has set would hit a later call
    return [kind, said, time.perf_counter() - started], spent


def main() -> None:
    """The worker: `python -m grpo.verifiers.worker FD PARENT MEMORY SPEC...`, started by `WorkerProcess` alone."""
    channel, parent, memory_limit = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
    channel.set_inheritable(False)
    _isolate(parent)

    def say(message: list) -> None:
        channel.sendall(json.dumps(message).encode() + b"\n")

    try:
        verifiers = [load_verifier(spec) for spec in sys.argv[4:]]
        for prepare in dict.fromkeys(verifier.prepare for verifier in verifiers if verifier.prepare):
            prepare()
    except BaseException as error:  # a module may call sys.exit() while it is imported
        say(["broken", str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"])
        os._exit(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    me, ground, guard, memory = os.getpid(), _Ground(), _ProcessGuard(), _Memory(memory_limit)
    sys.addaudithook(guard)
    say(["ready"])
    reader = channel.makefile("rb")
    with contextlib.suppress(EOFError):  # the trainer has closed its end
        while True:
            for payload in pickle.load(reader):
                ground.level()
                message, spent = _answer(verifiers, guard, payload)
                if os.getpid() != me:  # a fork that the verifier left behind must not speak for the worker
                    os._exit(1)
                say([*message, ground.printed.kept.decode("utf-8", "replace")])
                if spent or memory.outgrown():
                    say(["retire"])
                    os._exit(0)
    os._exit(0)  # not sys.exit(): a thread that a verifier left behind must not hold the process


if __name__ == "__main__":
    main()
