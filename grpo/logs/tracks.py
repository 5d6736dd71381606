"""What is kept of a run's metrics for its warnings: as much for 100,000 steps as for 20.

A track is what is kept of one metric; `followed` adds a row to all of them. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isnan, sqrt
from statistics import fmean

from grpo.logs.metric_names import Metrics

SHORT, LONG = 10, 20
"""Steps that a guard averages over."""


@dataclass(frozen=True)
class Track:
    """What is kept of one metric's values, however long the run. Steps without a value are left out."""

    first: tuple[float, ...] = ()
    """The first SHORT."""
    last: tuple[float, ...] = ()
    """The last LONG."""
    best: float = -inf
    """The highest mean of five in a row, or the first value, which is the untrained model's."""
    squares: float = 0.0
    """Squared differences of neighbours, summed."""
    count: int = 0

    def then(self, value: float) -> Track:
        """This, and one value more."""
        first, last = (*self.first, value)[:SHORT], (*self.last[-LONG + 1 :], value)
        level = fmean(last[-5:]) if len(last) >= 5 else first[0]
        return Track(
            first=first,
            last=last,
            best=max(self.best, level),
            squares=self.squares + ((value - self.last[-1]) ** 2 if self.last else 0.0),
            count=self.count + 1,
        )

    @property
    def noise(self) -> float:
        """Standard deviation from step to step, to which a slow rise or fall adds little."""
        return sqrt(self.squares / 2 / max(1, self.count - 1))


Tracks = Mapping[str, Track]
"""Metric -> its track, for each of TRACKED."""

TRACKED = (
    "reward/mean", "group/uniform", "policy/kl", "policy/entropy", "length/truncated", "policy/engine_gap", "correct"
)  # fmt: skip
"""The metrics that the guards ask for; `correct` is the share of correct responses."""


def begun() -> Tracks:
    """A run without rows."""
    return {name: Track() for name in TRACKED}


def followed(tracks: Tracks, row: Metrics) -> Tracks:
    """The tracks and one row more. What is absent, None or not a number adds nothing."""
    values = {name: row.get(name) for name in TRACKED} | {"correct": share_correct(row)}
    return {
        name: track if (value := values[name]) is None or isnan(value) else track.then(value)
        for name, track in tracks.items()
    }


def share_correct(row: Metrics) -> float | None:
    """The share of correct responses, which the three mean lengths determine; None where they do not.

    >>> share_correct({"length/mean": 12.0, "length/correct": 10.0, "length/incorrect": 18.0})
    0.75
    """
    mean, correct, incorrect = (row.get(f"length/{name}") for name in ("mean", "correct", "incorrect"))
    if mean is None or (correct is None and incorrect is None):
        return None
    if correct is None or incorrect is None:
        return float(incorrect is None)
    return None if abs(correct - incorrect) < 1e-3 else (mean - incorrect) / (correct - incorrect)
