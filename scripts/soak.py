"""Watch a long run from outside, and say whether its memory, handles, processes or time a token grow.

    python scripts/soak.py runs/soak --pid 1234       sample that process and its children until it ends
    python scripts/soak.py runs/soak                  report, as Markdown; exit status 1 where something may grow

A slope is a straight line's through the medians of 20 equal stretches of steps, the first tenth of the run left out:
medians, because evaluations, checkpoints and a busy machine make peaks; stretches, because neighbouring samples are
alike, and an interval over them would be too narrow. A quantity is flat where the whole 95% interval of its slope is
below its limit.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import tyro
from scipy import stats
from trainer_process import last_row

from grpo.errors import UserError
from grpo.files import append_jsonl, read_jsonl
from grpo.intervals import LEVEL, Estimate

MIB = 2**20
WARM_UP = 0.1
"""Share of the steps that is left out."""
STRETCHES = 20
ADVICE = "Make it by scripts/soak.sh."


@dataclass
class Options:
    """Sample a process while it trains, or report on its samples."""

    folder: tyro.conf.Positional[Path]
    """Folder of the run; the samples are in its soak.jsonl."""
    pid: int | None = None
    """Process of the trainer, to be sampled until it ends; unset: report."""
    seconds_between: float = 5.0
    """Seconds between samples."""


@dataclass(frozen=True)
class Quantity:
    """Something that may grow."""

    words: str
    limit: float | None
    """Growth in 1,000 steps that is still called flat; None: it is meant to grow, and only reported."""
    relative: bool = False
    """The slope and the limit are shares of the first stretch's median."""


QUANTITIES = {
    "trainer_mib": Quantity("memory of the trainer alone (USS), MiB", 10.0),
    "children_mib": Quantity("memory of its children, MiB", 10.0),
    "handles": Quantity("open files and sockets", 1.0),
    "threads": Quantity("threads", 1.0),
    "processes": Quantity("processes", 0.2),
    "checkpoints_mib": Quantity("checkpoints on the disk, MiB", 20.0),
    "token_ms": Quantity("time a token (`time/step` over `tokens`), ms", 0.05, relative=True),
    "step_cpu_s": Quantity("CPU time a step, all included, s", 0.05, relative=True),
    "metrics_mib": Quantity("metrics.jsonl, MiB", None),
    "samples_mib": Quantity("samples.jsonl, MiB", None),
    "evaluations_mib": Quantity("evaluations, MiB", None),
    "wandb_mib": Quantity("wandb's folder, MiB", None),
}
ON_DISK = {
    "checkpoints_mib": "checkpoint-*",
    "metrics_mib": "metrics.jsonl",
    "samples_mib": "samples.jsonl",
    "evaluations_mib": "evaluations",
    "wandb_mib": "wandb",
}
"""Quantity -> what of the run's folder it is the size of."""


# Sampling -------------------------------------------------------------------------------------------------------------


def sample(trainer: psutil.Process, run: Path) -> dict[str, Any] | None:
    """What the process, its children and the run's folder take now; None where it has ended, or has made no step."""
    step = last_row(run)
    if step is None:
        return None
    try:
        if trainer.status() == psutil.STATUS_ZOMBIE:
            return None
        own, cpu = taken(trainer), trainer.cpu_times()
        children = [found for child in trainer.children(recursive=True) if (found := taken_if_there(child))]
    except psutil.NoSuchProcess:
        return None
    return {
        "step": step,
        "trainer_mib": own["mib"],
        "children_mib": sum(child["mib"] for child in children),
        "handles": own["handles"] + sum(child["handles"] for child in children),
        "threads": own["threads"] + sum(child["threads"] for child in children),
        "processes": 1 + len(children),
        "cpu_s": cpu.user + cpu.system,
        **{name: size(run.glob(pattern)) for name, pattern in ON_DISK.items()},
    }


def taken(process: psutil.Process) -> dict[str, float]:
    """Memory that no other process shares, open handles, threads. Raises: psutil.NoSuchProcess."""
    with process.oneshot():
        return {
            "mib": process.memory_full_info().uss / MIB,
            "handles": process.num_fds(),
            "threads": process.num_threads(),
        }


def taken_if_there(process: psutil.Process) -> dict[str, float] | None:
    """The same; None for a child that has ended meanwhile."""
    try:
        return taken(process)
    except psutil.NoSuchProcess:
        return None


def size(paths: Iterable[Path]) -> float:
    """MiB of files and of all in folders; what is removed meanwhile counts as nothing."""
    total = 0
    for path in paths:
        for file in [path, *path.rglob("*")]:
            try:
                total += file.stat().st_size if file.is_file() else 0
            except FileNotFoundError:
                continue
    return total / MIB


def watch(pid: int, run: Path, seconds_between: float) -> None:
    """Append a sample to soak.jsonl every few seconds, from the first row of metrics.jsonl to the process's end."""
    try:
        trainer = psutil.Process(pid)
        while trainer.is_running() and trainer.status() != psutil.STATUS_ZOMBIE:
            if (found := sample(trainer, run)) is not None:
                append_jsonl(run / "soak.jsonl", [found])
            time.sleep(seconds_between)
    except psutil.NoSuchProcess:
        return


# Reporting ------------------------------------------------------------------------------------------------------------


def series(samples: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Quantity -> (step, value) pairs. After the last row the run only ends; CPU time a step is between two samples."""
    samples = [taken for taken in samples if taken["step"] < samples[-1]["step"]]
    found = {name: [(s["step"], s[name]) for s in samples if name in s] for name in QUANTITIES}
    found["token_ms"] = [(row["step"], 1000 * row["time/step"] / row["tokens"]) for row in rows if row.get("tokens")]
    pairs = [(a, b) for a, b in pairwise(samples) if b["step"] > a["step"]]
    found["step_cpu_s"] = [(b["step"], (b["cpu_s"] - a["cpu_s"]) / (b["step"] - a["step"])) for a, b in pairs]
    return found


def stretches(values: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """(median step, median value) of each of 20 equal stretches after the warm-up; those without a value are left out.

    Raises: UserError where fewer than three have one: no line has an interval then.
    """
    last = max((step for step, _ in values), default=0)
    start = WARM_UP * last
    groups: dict[int, list[tuple[float, float]]] = {}
    for step, value in values:
        if step >= start and last > start:
            number = min(STRETCHES - 1, int(STRETCHES * (step - start) / (last - start)))
            groups.setdefault(number, []).append((step, value))
    if len(groups) < 3:
        raise UserError(f"{len(values)} values up to step {last:g} are too few for a slope. Let it run for longer.")
    return [tuple(map(median, zip(*groups[number], strict=True))) for number in sorted(groups)]


def slope(points: Sequence[tuple[float, float]], relative: bool = False) -> Estimate:
    """Growth in 1,000 steps, by least squares, with its 95% interval by Student's t; a share of the first point's value
    where it is relative."""
    x, y = np.array(points).T
    x -= x.mean()
    per_step = (x * y).sum() / (x**2).sum()
    rest = y - y.mean() - per_step * x
    half = stats.t.ppf((1 + LEVEL) / 2, len(x) - 2) * np.sqrt((rest**2).sum() / (len(x) - 2) / (x**2).sum())
    unit = 1000 / (points[0][1] if relative else 1.0)
    return Estimate(*(unit * float(end) for end in (per_step, per_step - half, per_step + half)))


def told(quantity: Quantity, first: float, last: float, growth: Estimate) -> str:
    """A row of the table."""
    percent = "%" if quantity.relative else ""
    shown = [f"{(100 if quantity.relative else 1) * value + 0.0:+.2f}".replace("-", "−") for value in growth]
    limit = f"{quantity.limit:.0%}" if quantity.relative else f"{quantity.limit or 0:g}" * (quantity.limit is not None)
    interval = f"{shown[0]}{percent} [{shown[1]}, {shown[2]}]"
    return f"| {quantity.words} | {first:.2f} → {last:.2f} | {interval} | {limit} | {verdict(quantity, growth)} |"


def verdict(quantity: Quantity, growth: Estimate) -> str:
    """flat; GROWS, where chance does not explain it; UNCLEAR, where the interval holds the limit; "" for none."""
    if quantity.limit is None:
        return ""
    return "flat" if growth.high < quantity.limit else "GROWS" if growth.low > quantity.limit else "UNCLEAR"


def report(run: Path) -> int:
    """Print the table. Returns the exit status: 0 where all is flat, else 1. Raises: UserError."""
    samples, rows = (read_jsonl(run / name, advice=ADVICE, torn=[]) for name in ("soak.jsonl", "metrics.jsonl"))
    print(f"{rows[-1]['step'] if rows else 0} steps, {len(samples)} samples\n")
    print("| quantity | first → last stretch | growth in 1,000 steps | limit | |\n|---|---|---|---|---|")
    said = []
    for name, values in series(samples, rows).items():
        quantity, points = QUANTITIES[name], stretches(values)
        growth = slope(points, quantity.relative)
        print(told(quantity, points[0][1], points[-1][1], growth))
        said.append(verdict(quantity, growth))
    return int(not {"flat", ""}.issuperset(said))


def main(options: Options) -> int:
    """Exit status: 0 sampled, or all flat; 1 something may grow; 2 no such samples."""
    if options.pid is not None:
        watch(options.pid, options.folder, options.seconds_between)
        return 0
    try:
        return report(options.folder)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
