"""A command in a process group of its own, with a time limit: its output goes to a log, and nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TAIL = 40
"""Lines of a log that are shown."""


@dataclass(frozen=True)
class Done:
    """How it ended."""

    status: int | None
    """Exit status, negative for a signal; None where the time was up."""
    seconds: float
    log: Path

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def ending(self) -> str:
        """In words; empty where all is well."""
        if self.status is None:
            return f"not done after {self.seconds:.0f} s, and ended"
        return f"exit status {self.status}" if self.status else ""

    @property
    def tail(self) -> str:
        return "\n".join(self.output.splitlines()[-TAIL:])


def run(command: Sequence[str], log: Path, seconds: float, env: dict[str, str], cwd: Path) -> Done:
    """Run it to its end or its limit. Ctrl-C ends it, too."""
    started = time.monotonic()
    with open(log, "w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=env, cwd=cwd, start_new_session=True)
        try:
            status: int | None = process.wait(max(seconds, 0.0))
        except subprocess.TimeoutExpired:
            status = None
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)  # what it has left behind holds memory of the card
            except ProcessLookupError:
                pass
            process.wait()
    return Done(status, time.monotonic() - started, log)
