"""A comparison in words: numbers as text, what they say of the groups, and what the reader must know of the runs.

    grpo 90.1% [88.0%, 92.2%]; dr_grpo 95.3% [94.0%, 96.6%] (+5.2 points [+3.3, +7.1] p = 0.002: ...)

Used by the page, the picture and the console alike.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from rich.table import Table
from rich.text import Text

from grpo.comparison import Comparison
from grpo.comparison.groups import RunGroup
from grpo.comparison.quantities import Quantity
from grpo.comparison.seeds import Difference, Estimate

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


# Numbers ---------------------------------------------------------------------------------------------------------


def show(value: float | None, kind: str, signed: bool = False) -> str:
    """A value of a kind (see quantities.Measure) as text; a difference with its sign."""
    if value is None or math.isnan(value):
        return "–"
    size = abs(value) if signed else value
    text = {
        "reward": f"{size:.3f}",
        "share": f"{100 * size:.1f}" if signed else f"{size:.1%}",  # a difference of shares is in points
        "tokens": f"{size:.1f}",
        "count": _count(size),
        "steps": f"{size:.0f}",
        "seconds": _duration(size),
    }[kind]
    minus = value < 0 and any(digit in text for digit in "123456789")  # of a zero that was rounded no sign is known
    return ("−" if minus else "+") + text if signed else text.replace("-", "−")


def show_interval(low: float | None, high: float | None, kind: str, signed: bool = False) -> str:
    """`[low, high]`; empty where there is none."""
    if low is None or high is None:
        return ""
    return f"[{show(low, kind, signed)}, {show(high, kind, signed)}]"


def estimate_cell(estimate: Estimate, kind: str, signed: bool = False) -> tuple[str, str]:
    """Value, and below it the interval or, where some seed has no value, how many have."""
    seeds = len(estimate.values) + estimate.missing
    if estimate.missing and seeds > 1:
        return show(estimate.mean, kind, signed), f"{len(estimate.values)} of {seeds} runs"
    return show(estimate.mean, kind, signed), show_interval(estimate.low, estimate.high, kind, signed)


def difference_cell(difference: Difference, kind: str) -> tuple[str, str]:
    """Value, and below it interval and p."""
    value = show(difference.mean, kind, signed=True)
    unit = " points" if kind == "share" and difference.mean is not None else ""
    interval = show_interval(difference.low, difference.high, kind, signed=True)
    return value + unit, f"{interval}, {show_p(difference.p)}" if interval else ""


def show_p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


# Sentences -------------------------------------------------------------------------------------------------------


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
        kind, signed = quantity.measure.kind, quantity.measure.signed
        cells = ["\n".join(filter(None, estimate_cell(each, kind, signed))) for each in quantity.estimates]
        cells += ["\n".join(filter(None, difference_cell(each, kind))) for each in quantity.differences[: len(others)]]
        table.add_row(*map(Text, [quantity.measure.title, *cells]))
    return table


def seeds_text(group: RunGroup) -> str:
    return "1 seed" if len(group.runs) == 1 else f"{len(group.runs)} seeds"


def _finding(groups: tuple[RunGroup, ...], quantity: Quantity) -> Finding:
    kind, signed = quantity.measure.kind, quantity.measure.signed
    parts = []
    for i, (group, estimate) in enumerate(zip(groups, quantity.estimates, strict=True)):
        text = f"{group.label}: {' '.join(filter(None, estimate_cell(estimate, kind, signed)))}"
        parts.append(text if i == 0 else f"{text} ({_verdict(quantity.differences[i - 1], kind)})")
    title = quantity.measure.title
    unit = "tokens; " if kind == "tokens" else ""
    return Finding(title[0].upper() + title[1:], unit + quantity.measure.meaning, tuple(parts))


def _verdict(difference: Difference, kind: str) -> str:
    value, interval = difference_cell(difference, kind)
    if not interval:
        return f"{value}, without an interval"
    return f"{value} {interval}: {'more than' if difference.clear else 'within'} the noise of seeds"


def _count(value: float) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.{1 if unit == 'k' else 2}f}{unit}"
    return f"{value:.0f}"


def _duration(seconds: float) -> str:
    if abs(seconds) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(abs(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return ("-" if seconds < 0 else "") + (f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s")
