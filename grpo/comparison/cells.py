"""A comparison's numbers as text: values, intervals, differences and p.

    >>> difference_cell(Difference(Estimate(0.052, 0.033, 0.071), 0.002), "share")
    ('+5.2 points', '[+3.3, +7.1], p = 0.002')

Used by the page's tables, the console's and the sentences alike. K groups, S seeds of a group.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from grpo.comparison.groups import RunGroup
from grpo.comparison.quantities import Quantity
from grpo.intervals import Difference, Estimate

Cell = tuple[str, str]
"""A value, and what stands below it; empty where nothing does."""


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


def show_interval(estimate: Estimate | None, kind: str, signed: bool = False) -> str:
    """`[low, high]`; empty where there is none."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    return f"[{show(estimate.low, kind, signed)}, {show(estimate.high, kind, signed)}]"


def estimate_cells(quantity: Quantity) -> list[Cell]:
    """[K] the values of the groups."""
    kind, signed = quantity.measure.kind, quantity.measure.signed
    pairs = zip(quantity.estimates, quantity.values, strict=True)
    return [estimate_cell(estimate, values, kind, signed) for estimate, values in pairs]


def estimate_cell(estimate: Estimate | None, values: Sequence[float | None], kind: str, signed: bool = False) -> Cell:
    """Value, and below it the interval or, where some of the seeds' `values` are missing, how many are there."""
    value, missing = show(estimate.value if estimate else None, kind, signed), values.count(None)
    if missing and len(values) > 1:
        return value, f"{len(values) - missing} of {len(values)} runs"
    return value, show_interval(estimate, kind, signed)


def difference_cells(quantity: Quantity) -> list[Cell]:
    """[K - 1] the others less the first group."""
    return [difference_cell(difference, quantity.measure.kind) for difference in quantity.differences]


def difference_cell(difference: Difference | None, kind: str) -> Cell:
    """Value, and below it interval and p."""
    if difference is None:
        return show(None, kind), ""
    value = show(difference.estimate.value, kind, signed=True) + (" points" if kind == "share" else "")
    interval = show_interval(difference.estimate, kind, signed=True)
    return value, f"{interval}, {show_p(difference.p_value)}" if interval else ""


def show_p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def seeds_text(group: RunGroup) -> str:
    return "1 seed" if len(group.runs) == 1 else f"{len(group.runs)} seeds"


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
