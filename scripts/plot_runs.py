"""Draw the curves of runs from their metrics.jsonl: reward, response length, length right and wrong, held-out accuracy.

python scripts/plot_runs.py runs/a runs/b --out curves.png
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import tyro

PANELS = {
    "reward/mean": "reward",
    "length/mean": "response length, tokens",
    "length/correct": "length of correct responses",
    "length/incorrect": "length of incorrect responses",
    "eval/accuracy": "held-out accuracy",
}
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
"""Okabe and Ito's palette, which the colour-blind can tell apart."""
SMOOTHED = 5
"""Steps in the running mean; the unsmoothed curve stands behind it, pale."""


@dataclass
class Options:
    """Draw the curves of runs side by side."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders."""
    out: Path = Path("curves.png")
    """Picture to write."""


def read(folder: Path, key: str) -> tuple[list[int], list[float]]:
    """Steps and values of a metric, where it has one."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    pairs = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    return [step for step, _ in pairs], [value for _, value in pairs]


def smooth(values: list[float]) -> list[float]:
    """Mean over the last `SMOOTHED` values."""
    return [fmean(values[max(0, end - SMOOTHED) : end]) for end in range(1, len(values) + 1)]


def draw(options: Options) -> None:
    """One panel a metric, one colour a run; the last place holds the legend."""
    figure, grid = plt.subplots(2, 3, figsize=(10, 5.4), layout="constrained")
    *axes, corner = grid.flat
    for axis, (key, title) in zip(axes, PANELS.items(), strict=True):
        for folder, colour in zip(options.runs, COLOURS, strict=False):
            steps, values = read(folder, key)
            label = json.loads((folder / "config.json").read_text())["algo"]
            evaluated = key.startswith("eval/")
            axis.plot(steps, values, color=colour, alpha=1.0 if evaluated else 0.2, marker="o" if evaluated else "")
            if not evaluated:
                axis.plot(steps, smooth(values), color=colour)
            if axis is axes[0]:
                corner.plot([], [], color=colour, label=label, linewidth=3)
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
    corner.legend(loc="center", fontsize="large", frameon=False)
    corner.axis("off")
    figure.savefig(options.out, dpi=110)


if __name__ == "__main__":
    draw(tyro.cli(Options))
