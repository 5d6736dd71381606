"""Worker processes around one queue of calls: fed, watched, killed and replaced.

    changed = threading.Condition()
    pool = Pool([load_verifier("math_answer")], workers=2, spares=1, time_limit=5.0, memory_limit=1024, changed=changed)
    pool.put(call)          returns at once; `changed` is notified as soon as `call.outcome` matters to who waits
    pool.fatal              None, or why the pool has stopped for good

A call costs at most the time limit and the moment that killing takes, whatever else the machine does meanwhile.
"""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from grpo.errors import UserError
from grpo.verifiers.process import WorkerProcess
from grpo.verifiers.spec import Verifier

LOAD_LIMIT = 180.0
"""Seconds that a worker may take to import its verifiers."""
CHUNK = 16
"""At most so many calls go to a worker at once: few enough that little waits behind a call that hangs."""


@dataclass(frozen=True)
class Outcome:
    """What came of one call."""

    reward: float | list[float | dict[str, str] | None] | None = 0.0
    """None: does not apply. A list: of a batch verifier's call, where {"error": text} is a failed response."""
    seconds: float = 0.0
    failure: str | None = None
    """None, "error" or "timeout"."""
    message: str = ""
    printed: str = ""
    """What the call has printed, its beginning."""


class Call:
    """One call of one verifier: its name, what goes to the worker, how many responses it is about, and what has come
    of it (None until it is done)."""

    __slots__ = ("name", "outcome", "payload", "responses")

    def __init__(self, name: str, payload: bytes, responses: int = 1) -> None:
        self.name, self.payload, self.responses, self.outcome = name, payload, responses, None


LULL = 0.1
"""Seconds between two rounds of the pool's thread while nobody waits. Each round costs the engine's loop a switch of
threads, and each message to a worker a core that the engine was about to use: few rounds of many calls are cheaper."""


class Pool:
    """Worker processes around one queue of calls, and the thread that feeds, watches, kills and replaces them.

    The thread waits in `select` most of the time, so the main thread can stay in the engine's own loop. `workers`
    processes are busy at most; `spares` more are loaded and idle, so that a killed one costs no import.
    """

    def __init__(
        self,
        verifiers: Sequence[Verifier],
        *,
        workers: int,
        spares: int,
        time_limit: float,
        memory_limit: int,
        changed: threading.Condition,
    ) -> None:
        self.fatal: Exception | None = None
        """Why the pool has stopped for good."""
        self._start = partial(WorkerProcess, [verifier.spec for verifier in verifiers], memory_limit, os.getcwd())
        self._size, self._spares = workers, spares
        self._time_limit, self._own_limits = time_limit, {v.name: v.time_limit for v in verifiers if v.time_limit}
        self._changed = changed
        self._queue: deque[Call] = deque()
        self._workers: list[WorkerProcess] = []
        self._ended: list[WorkerProcess] = []
        self._false_starts = 0
        self._closed = self._rung = False
        self._selector = selectors.DefaultSelector()
        self._bell, self._ear = socket.socketpair()
        self._selector.register(self._ear, selectors.EVENT_READ)
        self.awaited = threading.Event()
        """Set while somebody waits for the results; else the thread takes its time, and leaves the main thread its."""
        self._thread = threading.Thread(target=self._dispatch, name="verifiers", daemon=True)
        self._thread.start()

    def put(self, call: Call) -> None:
        """Queue a call. Whoever waits on the condition is told when its outcome is there."""
        if self._closed:
            raise RuntimeError("the verifiers are closed")
        self._queue.append(call)
        self._ring()

    def close(self) -> None:
        """Kill the workers and wait for their end."""
        self._closed = True
        self._ring()
        self._thread.join(timeout=10)

    def _ring(self) -> None:
        if not self._rung and not self.fatal:
            self._rung = True
            with contextlib.suppress(OSError):  # the thread has ended and closed it
                self._bell.send(b"!")

    def _dispatch(self) -> None:
        try:
            while not self._closed:
                self._fill()
                self._feed()
                self.awaited.wait(LULL)
                for key, events in self._selector.select(self._patience()):
                    self._hear(key.data, events) if key.data else self._heard_bell()
                self._enforce()
        except Exception as error:  # nobody called this thread: those who wait for its results raise it
            self.fatal = error
        finally:
            for worker in list(self._workers):
                self._discard(worker)
            for worker in self._ended:
                worker.has_ended(patience=2.0)  # or is stuck in the kernel
            for resource in (self._selector, self._bell, self._ear):
                resource.close()
            self.fatal = self.fatal or RuntimeError("the verifiers are closed")
            with self._changed:
                self._changed.notify_all()

    def _heard_bell(self) -> None:
        self._ear.recv(64)
        self._rung = False

    def _fill(self) -> None:
        """Start workers until there are enough, the spare only when all others have loaded."""
        self._ended = [worker for worker in self._ended if not worker.has_ended()]
        loaded = len(self._workers) >= self._size and all(worker.ready for worker in self._workers)
        while len(self._workers) < self._size + (self._spares if loaded else 0):
            worker = self._start()
            worker.deadline = time.monotonic() + LOAD_LIMIT
            self._workers.append(worker)
            self._selector.register(worker.socket, selectors.EVENT_READ, worker)

    def _feed(self) -> None:
        free = self._size - sum(bool(worker.calls) for worker in self._workers)
        for worker in self._workers:
            if free and worker.ready and not worker.calls and self._queue:
                share = max(1, min(CHUNK, len(self._queue) // (2 * self._size)))
                while self._queue and len(worker.calls) < share:
                    if (call := self._queue.popleft()).outcome is None:
                        worker.calls.append(call)
                if worker.calls:
                    free -= 1
                    self._start_clock(worker)
                    worker.send([call.payload for call in worker.calls])
                    self._watch(worker)

    def _watch(self, worker: WorkerProcess) -> None:
        writing = selectors.EVENT_WRITE if worker.outgoing else 0
        self._selector.modify(worker.socket, selectors.EVENT_READ | writing, worker)

    def _patience(self) -> float | None:
        nearest = min((worker.deadline for worker in self._workers), default=math.inf)
        if self._ended:
            nearest = min(nearest, time.monotonic() + 0.1)
        return None if nearest == math.inf else max(0.0, nearest - time.monotonic())

    def _hear(self, worker: WorkerProcess, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            worker.flush()
            self._watch(worker)
        messages, alive = worker.receive()
        for message in messages:
            alive = self._take(worker, message) and alive
        if not alive and worker in self._workers:
            self._lost(worker)

    def _take(self, worker: WorkerProcess, message: list) -> bool:
        """Act on a message; False where no worker of ours would say such a thing."""
        match message:
            case ["ready"]:
                worker.has_loaded()
                worker.deadline, self._false_starts = math.inf, 0
            case ["broken", text]:
                raise UserError(f"a verifier that loads here does not load in a worker process: {text}")
            case ["retire"]:
                self._discard(worker)
            case ["wrong", text, _, _] if worker.calls:
                raise UserError(
                    f"verifier '{worker.calls[0].name}' {text}. A verifier returns a finite number, True or False, or "
                    "None where it does not apply; a batch verifier returns a list of these, one a response."
                )
            case [("reward" | "error") as kind, said, seconds, str(printed)] if worker.calls:
                call = worker.calls.popleft()
                self._start_clock(worker)
                failed = kind == "error"
                outcome = Outcome(0.0, seconds, "error", said) if failed else Outcome(said, seconds)
                self._resolve(call, replace(outcome, printed=printed) if printed else outcome)
            case _:
                return False
        return True

    def _enforce(self) -> None:
        now = time.monotonic()
        for worker in [worker for worker in self._workers if worker.deadline <= now]:
            if not worker.ready:
                raise UserError(f"a worker process did not import its verifiers within {LOAD_LIMIT:g} s.")
            call = worker.calls.popleft()
            self._discard(worker)
            limit = self._limit(call)
            of = f" for {call.responses} responses" if call.responses > 1 else ""
            message = f"it took longer than the time limit of {limit:g} s{of}"
            self._resolve(call, Outcome(0.0, limit, "timeout", message))

    def _start_clock(self, worker: WorkerProcess) -> None:
        worker.deadline = time.monotonic() + self._limit(worker.calls[0]) if worker.calls else math.inf

    def _limit(self, call: Call) -> float:
        """Seconds: what the verifier's file says, for a call; else what each response of the call may take."""
        return self._own_limits.get(call.name) or self._time_limit * call.responses

    def _lost(self, worker: WorkerProcess) -> None:
        """A worker process has ended by itself: the call it was at is to blame, or what it was loading."""
        call = worker.calls.popleft() if worker.calls else None
        loading = not worker.ready
        complaints = worker.complaints() if loading else ""
        self._discard(worker)
        worker.has_ended(patience=0.3)
        status = worker.process.returncode
        ended = f"its process exited with status {status}"
        if status is not None and status < 0:
            ended = f"its process was ended by signal {-status} ({signal.strsignal(-status)})"
        if call:
            self._resolve(call, Outcome(0.0, 0.0, "error", ended))
        if loading:
            self._false_starts += 1
            if self._false_starts > 2:
                raise UserError(f"a worker process cannot import its verifiers: {ended}. It wrote: {complaints}")

    def _discard(self, worker: WorkerProcess) -> None:
        """Kill a worker; the calls it has not begun go to others."""
        self._queue.extendleft(reversed(worker.calls))
        worker.calls.clear()
        self._workers.remove(worker)
        self._selector.unregister(worker.socket)
        worker.kill()
        self._ended.append(worker)

    def _resolve(self, call: Call, outcome: Outcome) -> None:
        call.outcome = call.outcome or outcome
        if outcome.failure or not (self._queue or any(worker.calls for worker in self._workers)):
            with self._changed:
                self._changed.notify_all()
