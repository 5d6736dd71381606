"""A comparison in words: what its numbers say of the groups, and what the reader must know of the runs.

    grpo 90.1% [88.0%, 92.2%]; dr_grpo 95.3% [94.0%, 96.6%] (+5.2 points [+3.3, +7.1] p = 0.002: ...)

Used by the page, the picture and the console alike.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from rich.table import Table
from rich.text import Text

from grpo.comparison.cells import difference_cells, estimate_cells, seeds_text
from grpo.comparison.comparison import Comparison
from grpo.comparison.groups import RunGroup
from grpo.comparison.quantities import Quantity
from grpo.intervals import Difference

TOLD = ("growth/incorrect", "slope", "growth/correct", "eval/accuracy", "tokens")
"""Quantities that `findings` tells of."""
NUMBER_WIDTH = 12
"""Characters of a column of the console's table in which no number breaks."""


@dataclass(frozen=True)
class Finding:
    """What the runs say of one quantity; `str` makes a sentence of it."""

    title: str
    meaning: str
    groups: tuple[str, ...]
    """[K] every group's value, and its difference from the first group."""

    def __str__(self) -> str:
        return f"{self.title} ({self.meaning}): {'; '.join(self.groups)}."


def findings(comparison: Comparison) -> list[Finding]:
    """The main quantities, as far as the runs have them."""
    quantities = {quantity.measure.key: quantity for quantity in comparison.quantities}
    return [_finding(comparison.groups, quantities[key]) for key in TOLD if key in quantities]


def notes(comparison: Comparison) -> list[str]:
    """What limits the comparison: unequal runs, single seeds, missing metrics, different code."""
    view, groups = comparison.view, comparison.groups
    runs = [run for group in groups for run in group.runs]
    said = []
    longest = max(run.last_step for run in runs)
    if longest > view.horizon:
        beyond = sum(run.last_step > view.horizon for run in runs)
        said.append(
            f"The table is of the steps up to {view.horizon}; {beyond} of {len(runs)} runs go further, up to step "
            f"{longest}, and the curves show it."
        )
    said += [
        f"{run.name}: its last line is incomplete; the run is being written or was cut off."
        for run in runs
        if run.partial
    ]
    single = [group.label for group in groups if len(group.runs) == 1]
    if single:
        said.append(
            f"One seed only: {', '.join(single)}. Nothing can be said about the noise between seeds, so its "
            "differences have no interval."
        )
    pairs = [group.label for group in groups if len(group.runs) == 2]
    if pairs:
        said.append(
            f"Two seeds only: {', '.join(pairs)}. A 95% t interval of two values reaches 6.4 times their distance to "
            "either side, so that bands and intervals say little; three seeds say more, --band range draws less."
        )
    for group in groups:
        seeds = Counter(run.config.get("seed") for run in group.runs if run.config is not None)
        said += [
            f"{group.label} has {n} runs of seed {seed}: they are not independent."
            for seed, n in seeds.items()
            if n > 1
        ]
    without = [run.name for run in runs if run.config is None]
    if without:
        said.append(f"Grouped by folder name, for want of a config.json: {', '.join(without)}.")
    commits = {run.config.get("commit") for run in runs if run.config is not None}
    if len(commits) > 1:
        said.append(f"The runs were made by {len(commits)} different commits of the code (see the table of runs).")
    for key, title in (("eval/accuracy", "a held-out accuracy"), ("length/incorrect", "incorrect responses")):
        lacking = [run.name for run in runs if np.isnan(run.column(key)).all()]
        if lacking:
            said.append(f"Without {title}: {', '.join(lacking)}.")
    if len(view.evaluated) > 1:
        said.append(f"The last evaluations stand at different steps: {', '.join(map(str, view.evaluated))}.")
    if view.evaluated == (0,):
        said.append(f"Held-out values are of the untrained model: up to step {view.horizon} only step 0 was evaluated.")
    return said


def methods(comparison: Comparison) -> list[str]:
    """How curves and numbers were made, a sentence each; the first two are those of the picture."""
    view = comparison.view
    interval, extremes = "the 95% t interval of the mean over seeds", "the range from the lowest to the highest seed"
    smoothing = (
        f"Training curves are centred running means of {view.window} steps ({view.path_window} for reward against "
        "length); lengths of correct and incorrect responses are weighted by their number. Held-out accuracy is as "
        "evaluated."
    )
    return [
        f"Lines are means over seeds, thin lines the seeds, bands {interval if view.band == 'interval' else extremes} "
        "(of a single run's held-out accuracy: its evaluation's own 95% interval, where logged).",
        smoothing if view.window > 1 else "No curve is smoothed.",
        f"Final is the mean over the last {view.edge} of {view.horizon} steps, growth that less the mean over the "
        f"first {view.edge}; lengths of correct and incorrect responses are means over the responses of those steps.",
        "Intervals are 95% t intervals over seeds, cut where a share would leave 0 to 100% or a length 0; differences "
        "Welch's t test; not corrected for the number of rows.",
        "An accuracy counts as reached where the line between evaluations first crosses it; if some seed never does, "
        "the mean is over those that do, and has no interval.",
    ]


def summary_table(comparison: Comparison, width: int) -> Table | str:
    """The table for a console of so many characters: quantities down, groups across, then their differences from the
    first. Where numbers would break, it goes without the differences, or a sentence stands in its place."""
    table = Table(title_justify="left", title=Text(comparison.title, style="bold"), show_lines=True)
    first, *others = [group.label for group in comparison.groups]
    titles = max((len(quantity.measure.title) for quantity in comparison.quantities), default=0)
    room = (width - titles - 4) // NUMBER_WIDTH
    if len(comparison.groups) > room:
        return "The table of values is wider than this terminal; the page has it."
    others = others if len(comparison.groups) + len(others) <= room else []
    table.add_column("", no_wrap=True)
    for group in comparison.groups:
        table.add_column(Text(f"{group.label}\n{seeds_text(group)}"), justify="right", overflow="fold")
    for label in others:
        table.add_column(Text(f"{label}\nless {first}"), justify="right", overflow="fold")
    for quantity in comparison.quantities:
        cells = [*estimate_cells(quantity), *difference_cells(quantity)[: len(others)]]
        table.add_row(*map(Text, [quantity.measure.title, *("\n".join(filter(None, cell)) for cell in cells)]))
    return table


def _finding(groups: tuple[RunGroup, ...], quantity: Quantity) -> Finding:
    values = [" ".join(filter(None, cell)) for cell in estimate_cells(quantity)]
    pairs = zip(quantity.differences, difference_cells(quantity), strict=True)
    readings = ["", *(f" ({_reading(difference, *cell)})" for difference, cell in pairs)]
    parts = [f"{group.label}: {value}{reading}" for group, value, reading in zip(groups, values, readings, strict=True)]
    title = quantity.measure.title
    unit = "tokens; " if quantity.measure.kind == "tokens" else ""
    return Finding(title[0].upper() + title[1:], unit + quantity.measure.meaning, tuple(parts))


def _reading(difference: Difference | None, value: str, interval: str) -> str:
    if not interval:
        return f"{value}, without an interval"
    return f"{value} {interval}: {'more than' if difference.clear else 'within'} the noise of seeds"
