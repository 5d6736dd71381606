"""One worker process of the verifier pool, from both ends of its wire, and what a verifier is to them.

    outside, in the trainer                        inside, in a process of its own
    worker = Worker(["./mine.py"], 1024, "/home")  main(): isolate itself, load the verifiers, say ["ready"]
    worker.send([payload, ...])                    call the verifier of each payload in turn and, as each is done,
    worker.receive() -> ([["reward", 1.0, 3e-5]],  say ["reward", value, seconds] or ["error", text, seconds]
                         True)
    worker.kill()                                  (has no say in this)

Down the wire go pickles; up come lines of JSON: the trainer unpickles nothing that a hostile response has been near.
Every worker imports this file, so it imports nothing heavy: no torch, no records.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import inspect
import io
import json
import math
import numbers
import os
import pickle
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grpo import plugins
from grpo.errors import UserError

OUTPUT_LIMIT = 1 << 20
"""Characters that one call may print before it counts as failed. What it prints is thrown away."""
MESSAGE_LIMIT = 300
"""Characters of an error message that leave the worker."""
LARGEST_REWARD = (2 - 2**-23) * 2.0**127
"""Rewards are float32."""

# ------------------------------------------------------------------------------------------------ what a verifier is


def _completion(problem, rollout) -> str | list[dict[str, str]]:
    # TRL's own convention: messages in, a message out.
    return rollout.text if isinstance(problem.prompt, str) else [{"role": "assistant", "content": rollout.text}]


FROM_ROLLOUT: dict[str, dict[str, Callable]] = {
    "single": {
        "response": lambda problem, rollout: rollout.text,
        "tokens": lambda problem, rollout: rollout.tokens,
        "truncated": lambda problem, rollout: rollout.truncated,
        "prompt": lambda problem, rollout: problem.prompt,
    }
}
_single = FROM_ROLLOUT["single"]
FROM_ROLLOUT["batch"] = {"responses": _single["response"], "prompts": _single["prompt"]} | {
    name: _single[name] for name in ("tokens", "truncated", "prompt")
}
FROM_ROLLOUT["trl"] = {"prompts": _single["prompt"], "completions": _completion, "completion_ids": _single["tokens"]}
"""Kind of verifier -> the parameters that the problem and its response give. All others are columns of the data."""


@dataclass(frozen=True)
class Verifier:
    """A reward function and how to call it. The trainer reads the signature, the workers call the function."""

    spec: str
    """As on the command line, the weight included."""
    name: str
    weight: float
    function: Callable
    kind: str
    """"single": one response a call; "batch": a step's responses a call, as lists; "trl": the same in TRL's words."""
    parameters: tuple[str, ...]
    required: frozenset[str]
    any_column: bool
    """The function takes `**kwargs`: it gets all there is."""
    starts_processes: bool
    """Its file says `STARTS_PROCESSES = True`; no other verifier may start any."""
    prepare: Callable[[], Any] | None
    """The function `prepare` of its file, called once in each worker, before any limit applies: to load a model."""

    def missing(self, columns: Collection[str]) -> list[str]:
        """Required parameters that neither the rollout nor the columns of the data provide."""
        given = FROM_ROLLOUT[self.kind]
        return [name for name in self.parameters if name in self.required and name not in given and name not in columns]

    def arguments(self, problem, rollout) -> dict[str, Any]:
        """Parameter name -> value for one response.

        Raises: UserError where this row of the data lacks a required column.
        """
        given, columns = FROM_ROLLOUT[self.kind], problem.columns
        wanted = self.parameters
        if self.any_column:
            own = {"prompt", "completion"} if self.kind == "trl" else ()  # TRL keeps these two to itself
            wanted = dict.fromkeys([*wanted, *given, *(column for column in columns if column not in own)])
        values = {}
        for name in wanted:
            if name in given:
                values[name] = given[name](problem, rollout)
            elif name in columns:
                values[name] = columns[name]
            elif name in self.required:
                raise UserError(missing_column(self, [name], columns))
        return values


def missing_column(verifier: Verifier, missing: Sequence[str], columns: Collection[str]) -> str:
    """The message for required parameters that nothing provides."""
    listed, given = ", ".join(f"'{name}'" for name in missing), ", ".join(FROM_ROLLOUT[verifier.kind])
    return (
        f"verifier '{verifier.spec}' requires {listed}, which is not a column of the data. "
        f"The columns are: {', '.join(columns) or 'none'}; the response gives: {given}. "
        "Rename the parameter, give it a default, or map a column of the data to that name."
    )


def load_verifier(spec: str) -> Verifier:
    """The verifier that a `--reward` argument names (the grammar is in grpo/plugins.py; `trl:` marks TRL's convention).

    Raises: UserError where it cannot be loaded or called by parameter name.
    """
    place, weight = plugins.split_weight(spec)
    trl = place.startswith("trl:")
    try:
        function = plugins.load(place.removeprefix("trl:"), "rewards")
        parameters = inspect.signature(function).parameters.values()
    except UserError:
        raise
    except Exception as error:  # importing a user's module runs any code, which may raise anything
        raise UserError(f"'{spec}' failed while loading with {type(error).__name__}: {error}") from error
    unnamed = [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY]
    if unnamed:
        raise UserError(
            f"'{spec}' takes {', '.join(unnamed)} by position only, but verifiers are called with parameters by name. "
            "Remove the '/' from its signature."
        )
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    names = tuple(p.name for p in named)
    module = sys.modules.get(getattr(function, "__module__", ""))
    return Verifier(
        spec=spec,
        name=plugins.short_name(place),
        weight=weight,
        function=function,
        kind="trl" if trl else "batch" if "responses" in names else "single",
        parameters=names,
        required=frozenset(p.name for p in named if p.default is p.empty),
        any_column=any(p.kind is p.VAR_KEYWORD for p in parameters),
        starts_processes=getattr(module, "STARTS_PROCESSES", False) is True,
        prepare=getattr(module, "prepare", None),
    )


# ---------------------------------------------------------------------------------------------------------- inside


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


def to_rewards(value: Any, count: int) -> list[float | None]:
    """The return of a batch verifier as a list of `count` rewards.

    Raises: WrongReturn where it is not a list, of another length, or holds what `to_reward` refuses.
    """
    values = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(values, list | tuple):
        pickle.dumps(value)
        raise WrongReturn(f"returned {_shown(value)} of type {type(value).__name__}, not a list of {count} rewards")
    if len(values) != count:
        raise WrongReturn(f"returned {len(values)} rewards for {count} responses")
    return [to_reward(each) for each in values]


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


def call(verifier: Verifier, count: int, arguments: dict[str, Any]) -> float | list[float | None] | None:
    """Call a verifier on one response, or on lists over `count` of them."""
    value = verifier.function(**arguments)
    if inspect.isawaitable(value):
        value = asyncio.run(_awaited(value))
    return to_reward(value) if verifier.kind == "single" else to_rewards(value, count)


class _Discard(io.BufferedIOBase):
    """Where print() goes: nowhere, and not without end."""

    written = 0

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self.written += len(data)
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
            _, hard = resource.getrlimit(resource.RLIMIT_AS)
            ceiling = self.base + self.limit if hard < 0 else min(self.base + self.limit, hard)
            resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))

    def _size(self) -> int:
        return int(os.pread(self.statm, 64, 0).split()[0]) * resource.getpagesize()

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
        self.discard = _Discard()
        self.output = io.TextIOWrapper(self.discard, encoding="utf-8", errors="replace", write_through=True)
        # sympy compares expressions at random points, from a generator of its own.
        loaded = (sys.modules.get(name) for name in ("sympy.core.random", "numpy.random"))
        self.seeds = [random.seed, *(module.seed for module in loaded if module)]

    def level(self) -> None:
        sys.setrecursionlimit(self.recursion_limit)
        sys.stdout = sys.stderr = self.output
        self.discard.written = 0
        for seed in self.seeds:
            seed(0)


def _isolate(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the trainer, which ends the workers
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(5)  # generation goes first
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
    """The worker: `python -m grpo.verifier_worker FD PARENT MEMORY SPEC...`, started by `Worker` and by nobody else."""
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
                say(message)
                if spent or memory.outgrown():
                    say(["retire"])
                    os._exit(0)
    os._exit(0)  # not sys.exit(): a thread that a verifier left behind must not hold the process


# --------------------------------------------------------------------------------------------------------- outside


class Worker:
    """The trainer's end of a worker process. Never blocks; holds one socket, one pid, and, while loading, one file."""

    def __init__(self, specs: Sequence[str], memory_limit: int, directory: str) -> None:
        self.calls: deque = deque()
        """What it has been sent and not yet answered."""
        self.deadline = math.inf
        """time.monotonic() by which it must have said its next word."""
        self.queued, self.excused = 0.0, False
        """`seconds_queued()` when it was last sent something, and whether its call has been given that time already."""
        self.outgoing = b""
        self._incoming = b""
        self._log = tempfile.TemporaryFile()
        self.socket, theirs = socket.socketpair()
        self.socket.setblocking(False)
        paths = os.pathsep.join(path or directory for path in sys.path)
        settings = (theirs.fileno(), os.getpid(), memory_limit)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "grpo.verifier_worker", *map(str, settings), *specs],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._log,
                pass_fds=[theirs.fileno()],
                process_group=0,
                cwd=directory,
                # One hash seed: the order of a set must not depend on which worker iterates over it.
                env={"OMP_NUM_THREADS": "1"} | os.environ | {"PYTHONPATH": paths, "PYTHONHASHSEED": "0"},
            )

    def send(self, payloads: Sequence[bytes]) -> None:
        """Queue one message; `flush` writes as much as the socket takes now, and is called again for the rest."""
        self.outgoing += pickle.dumps(payloads)
        self.flush()

    def flush(self) -> None:
        with contextlib.suppress(OSError):  # full: later; broken: `receive` reports the end
            self.outgoing = self.outgoing[self.socket.send(self.outgoing) :]

    def receive(self) -> tuple[list[list], bool]:
        """The messages that have arrived, and whether more may come. Anything but lines of JSON ends the connection."""
        try:
            data = self.socket.recv(1 << 20)
            *lines, self._incoming = (self._incoming + data).split(b"\n")
            return [json.loads(line) for line in lines], bool(data) and len(self._incoming) < 1 << 26
        except BlockingIOError:
            return [], True
        except (OSError, ValueError):
            return [], False

    @property
    def ready(self) -> bool:
        """It has loaded its verifiers and waits for calls, or is at one."""
        return self._log.closed

    def has_loaded(self) -> None:
        """Note that it is ready: from now on, what it writes to stderr is thrown away."""
        self._log.close()

    def complaints(self) -> str:
        """The end of what the process wrote to stderr while it was loading."""
        self._log.seek(0)
        return self._log.read()[-1000:].decode(errors="replace").strip()

    def seconds_queued(self) -> float:
        """Seconds that the process was ready to run and waited for a core; 0 where the kernel does not say."""
        try:
            return int(Path(f"/proc/{self.process.pid}/schedstat").read_text().split()[1]) / 1e9
        except (OSError, IndexError):
            return 0.0

    def kill(self) -> None:
        """End the process, its process group and all their descendants; `process` is still to be waited for."""
        family = _descendants(self.process.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for pid in family:  # those that have left the group
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.socket.close()
        self._log.close()


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found[1:]


if __name__ == "__main__":
    main()
