"""What a machine takes for the stages of a step, from the metrics.jsonl of runs of one process on it.

    machine = fit([rows_of(path) for path in paths])    # runs whose steps differ in size; else see `fit`

It is what scripts/scaling.py --measured reckons with instead of a card's data sheet.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

Row = dict[str, float]
"""A step of metrics.jsonl."""

WARM_UP = 1
"""Steps of a run that are left out: in the first one libraries still load and compile."""
NINETY_FIVE = 1.645
"""The 95th percentile of a normal distribution, in standard deviations."""


ALIKE = 1e-2
"""Squared sine of the angle between two columns of numbers, below which they grow alike."""


@dataclass(frozen=True)
class Machine:
    """Seconds of one process of a machine."""

    a_pass: float
    """Of a pass of the engine, however many responses are in it."""
    a_response: float
    """More for each response that is in a pass."""
    an_update: float
    """Of an optimizer update, however many tokens are in it."""
    a_token: float
    """More for each response token, log-probabilities included."""
    sync: float
    rest: float
    """Of a step, outside generation, update and sync."""

    def pass_seconds(self, responses: int) -> float:
        """Of one pass of the engine over so many responses."""
        return self.a_pass + self.a_response * responses

    def update_seconds(self, updates: int, tokens: float) -> float:
        """Of a step's updates over so many response tokens in all."""
        return self.an_update * updates + self.a_token * tokens


def rows_of(metrics: Path) -> list[Row]:
    """The steps of a run but the first ones."""
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    return [row for row in rows if row["step"] > WARM_UP]


def passes(row: Row) -> float:
    """Of the engine in a step."""
    return row["tokens"] / row["tokens_per_pass"]


def line_through(points: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """(a, b), neither below 0, for which a x + b y is nearest to z for all (x, y, z), in relative terms.

    Where x and y grow alike nothing tells a from b: then b is 0.
    """
    scaled = [(x / z, y / z) for x, y, z in points]
    xx, yy = sum(x * x for x, _ in scaled), sum(y * y for _, y in scaled)
    xy, xs, ys = sum(x * y for x, y in scaled), sum(x for x, _ in scaled), sum(y for _, y in scaled)
    determinant = xx * yy - xy * xy
    if determinant > ALIKE * xx * yy:
        a, b = (xs * yy - ys * xy) / determinant, (ys * xx - xs * xy) / determinant
        if a >= 0 and b >= 0:
            return a, b
        if a < 0:
            return 0.0, ys / yy
    return xs / xx, 0.0


def fit(runs: Sequence[Sequence[Row]], updates: int = 1) -> Machine:
    """Of runs of one process, each with so many updates a step.

    What a pass takes is told from what a response in it takes, and an update from its tokens, where the runs' steps
    differ in size. Of one run alone generation is taken to be of its passes, and an update of its tokens.
    """
    rows = [row for run in runs for row in run]
    a_pass, a_response = line_through([(passes(row), row["tokens"], row["time/generate"]) for row in rows])
    a_token, an_update = line_through([(row["tokens"], updates, row["time/update"]) for row in rows])
    return Machine(
        a_pass=a_pass,
        a_response=a_response,
        an_update=an_update,
        a_token=a_token,
        sync=median(row["time/sync"] for row in rows),
        rest=median(rest(row) for row in rows),
    )


def rest(row: Row) -> float:
    """Seconds of a step outside generation, update and sync."""
    return row["time/step"] - row["time/generate"] - row["time/update"] - row["time/sync"]


def workload(rows: Sequence[Row]) -> dict[str, float]:
    """What a run asks for, by the names of scaling.py's options: responses and their lengths."""
    mean, p95 = median(row["length/mean"] for row in rows), median(row["length/p95"] for row in rows)
    tail = max(0.0, math.log(p95 / mean))
    responses = round(median(row["tokens"] / row["length/mean"] for row in rows))
    spread = NINETY_FIVE - math.sqrt(max(0.0, NINETY_FIVE**2 - 2 * tail))
    return {"responses": responses, "mean_tokens": mean, "spread": spread}


def stages(rows: Sequence[Row]) -> dict[str, float]:
    """Measured: median seconds of each stage of a step."""
    named = {"generate": "time/generate", "update": "time/update", "sync": "time/sync", "step": "time/step"}
    return {stage: median(row[name] for row in rows) for stage, name in named.items()}
