"""A process of grpo.train that is watched from outside, and killed: what kill_and_resume.py is made of."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from grpo.files import read_jsonl

PATIENCE = 600.0
"""Seconds after which something that was waited for is said not to come."""
GRACE = 10.0
"""Seconds in which the trainer's children must notice that it is gone."""
MODEL = float("inf")
"""The step of the final model, which is saved after every step's checkpoint."""


@dataclass(frozen=True)
class Moment:
    """When a run is to die."""

    step: int | None
    """After the row of this step, or, in a save, after the checkpoint of it or a later one has been begun; None: after
    the process has."""
    in_save: bool
    delay: float
    """Seconds from then on."""


@dataclass(frozen=True)
class Death:
    """How it died."""

    moment: Moment
    last_row: int | None
    half_saved: list[str]
    """What a death in a save has left under a hidden name; nothing where the save was done before it came."""
    orphans: list[str]
    """Children of the trainer that were still there after GRACE."""


class Lost(Exception):
    """The script cannot go on: the run ended by itself, or does not come to what is waited for."""


# What is seen of a run ------------------------------------------------------------------------------------------------


def last_row(run: Path) -> int | None:
    """The step of the last whole row of metrics.jsonl."""
    path = run / "metrics.jsonl"
    rows = read_jsonl(path, torn=[]) if path.exists() else []
    return rows[-1]["step"] if rows else None


def hidden(run: Path) -> list[str]:
    """Checkpoints, or the model, that are being written, replaced or removed."""
    return sorted(path.name for path in run.glob(".*") if path.is_dir())


def saving(run: Path) -> dict[str, float]:
    """Name -> step, of what is being written."""
    parts = {name: name.removesuffix(".part").rpartition("-")[2] for name in hidden(run) if name.endswith(".part")}
    return {name: float(step) if step.isdigit() else MODEL for name, step in parts.items()}


# One process ----------------------------------------------------------------------------------------------------------


def own() -> dict[str, str]:
    """The environment without the wandb process of whoever started this one, which would outlive a killed trainer and
    hold its run."""
    return {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}


class Trainer:
    """A process of grpo.train. Leaving the `with` block ends it and what it started, if they are still there."""

    def __init__(self, run: Path, flags: list[str], log: Path) -> None:
        self.run, self.log = run, log
        command = [sys.executable, "-m", "grpo.train", "--name", run.name, "--runs-dir", str(run.parent), *flags]
        self.begun, self.wall = time.monotonic(), time.time()
        with log.open("wb") as output:  # a session of its own: a Ctrl-C here is not one there
            self.process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True, env=own())
        self.children: dict[int, psutil.Process] = {}
        self.looked = self.begun

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, *error: object) -> None:
        self.look()
        for process in (self.process, *self.alive()):
            process.kill()
        self.process.wait()

    @property
    def age(self) -> float:
        return time.monotonic() - self.begun

    def look(self) -> None:
        """Remember its children."""
        self.looked = time.monotonic()
        if self.process.poll() is None:
            for child in psutil.Process(self.process.pid).children(recursive=True):
                self.children[child.pid] = child

    def alive(self) -> list[psutil.Process]:
        """Its children that run; one that has ended and that nobody has asked for its status does not."""
        found = []
        for child in self.children.values():
            try:
                if child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
                    found.append(child)
            except psutil.NoSuchProcess:
                continue
        return found

    def wait(self, condition: Callable[[], bool], what: str, pause: float) -> None:
        """Until the condition holds. Raises: Lost where it does not come to that."""
        while not condition():
            if time.monotonic() > self.looked + 1:
                self.look()
            if self.process.poll() is not None:
                raise Lost(f"the run ended with status {self.process.returncode} before {what}; its log is {self.log}")
            if self.age > PATIENCE:
                raise Lost(f"{PATIENCE:g} s have passed before {what}; the run's log is {self.log}")
            time.sleep(pause)

    def die_at(self, moment: Moment) -> Death:
        """Kill it, and it alone, at the moment; a run that is over before is killed when it has its model.

        Raises: Lost where the moment does not come, or the run has ended by then.
        """
        old = set(saving(self.run))  # of an earlier death; the trainer clears it away when it begins

        def saves() -> list[float]:
            now = saving(self.run)
            old.intersection_update(now)
            model = self.run / "model"  # whole already, where a busy machine has looked too late
            whole = [MODEL] if model.exists() and model.stat().st_mtime > self.wall else []
            return [*whole, *(step for name, step in now.items() if name not in old)]

        if moment.in_save:
            self.wait(lambda: max(saves(), default=-1) >= moment.step, f"it saved step {moment.step}", pause=0.001)
        elif moment.step is not None:
            path = self.run / "metrics.jsonl"

            def come() -> bool:  # a row of an earlier process does not count
                new = path.exists() and path.stat().st_mtime > self.wall
                return new and (last_row(self.run) or 0) >= moment.step

            self.wait(come, f"the row of step {moment.step}", pause=0.01)
        at = time.monotonic() + moment.delay
        over = (lambda: False) if moment.in_save else (lambda: MODEL in saves())
        self.wait(lambda: time.monotonic() >= at or over(), "its moment", pause=0.001)
        self.process.kill()
        if self.process.wait() != -signal.SIGKILL:
            raise Lost(f"the run ended with status {self.process.returncode} before its moment; its log is {self.log}")
        row, left = last_row(self.run), hidden(self.run) if moment.in_save else []
        end = time.monotonic() + GRACE
        while self.alive() and time.monotonic() < end:
            time.sleep(0.05)
        return Death(moment, row, left, [" ".join(child.cmdline()) or child.name() for child in self.alive()])
