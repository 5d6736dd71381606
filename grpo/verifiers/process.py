"""The trainer's end of one worker process of the verifier pool; `worker.py` runs inside it.

    worker = WorkerProcess(["./mine.py"], memory_limit=1024, directory="/home")
    worker.send([payload, ...])     calls, pickled
    worker.receive()                -> ([["reward", 1.0, 3e-5]], True): what it has said, and whether more may come
    worker.kill()                   and all that it has started; `has_ended()` tells when

Temporary files of the process go to a scratch folder of its own, which is removed with it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path


class WorkerProcess:
    """The trainer's end. Never blocks; holds a socket, a pid, a scratch folder and, while it loads, a file."""

    def __init__(self, specs: Sequence[str], memory_limit: int, directory: str) -> None:
        self.calls: deque = deque()
        """What it has been sent and not yet answered."""
        self.deadline = math.inf
        """time.monotonic() by which it must have said its next word."""
        self.outgoing = b""
        self._incoming = b""
        self._log = tempfile.TemporaryFile()
        self._scratch = tempfile.TemporaryDirectory(prefix="grpo-verifiers-", ignore_cleanup_errors=True)
        self.socket, theirs = socket.socketpair()
        self.socket.setblocking(False)
        paths = os.pathsep.join(path or directory for path in sys.path)
        settings = (theirs.fileno(), os.getpid(), memory_limit)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "grpo.verifiers.worker", *map(str, settings), *specs],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._log,
                pass_fds=[theirs.fileno()],
                process_group=0,
                cwd=directory,
                # One hash seed: the order of a set must not depend on which worker iterates over it.
                env={"OMP_NUM_THREADS": "1"}
                | os.environ
                | {"PYTHONPATH": paths, "PYTHONHASHSEED": "0", "TMPDIR": self._scratch.name},
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

    def kill(self) -> None:
        """End the process, its process group and all their descendants; `has_ended` is still to be asked."""
        family = _descendants(self.process.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for pid in family:  # those that have left the group
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.socket.close()
        self._log.close()

    def has_ended(self, patience: float = 0.0) -> bool:
        """Whether the killed process is gone, waiting some seconds for that; what it left in its folder goes too."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
            self._scratch.cleanup()
        return self.process.returncode is not None


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
