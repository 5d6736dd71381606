"""The page's panels: the numbers that its script draws, thinned where a run is long, and the places that it draws in.

N points of a curve.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from grpo.comparison.comparison import Comparison
from grpo.comparison.panels import GroupCurve, Panel, SeedCurve
from grpo.comparison.styles import Style

MOST_POINTS = 500
"""Points of a training curve on the page; of longer ones every second step is left out, or more."""


def legend_button(label: str, look: Style, seeds: str) -> str:
    """HTML: a group's line and name, which hides and shows it."""
    line = f'<path d="M1,7H33" stroke="{look.colour}" stroke-width="3" stroke-dasharray="{_dashes(look)}"/>'
    return (
        f'<button type="button" aria-pressed="true"><svg width="34" height="14" aria-hidden="true">{line}</svg>'
        f"<span>{escape(label)} ({seeds})</span></button>"
    )


def figure(index: int, panel: Panel) -> str:
    """HTML: the place of a panel."""
    button = f'<button type="button" aria-pressed="false" aria-label="enlarge: {escape(panel.title)}">⤢</button>'
    caption = f"<figcaption><span>{escape(panel.title)}</span>{button}</figcaption>"
    return f'<figure>{caption}<div class="chart" id="panel-{index}"></div></figure>'


def chart_data(comparison: Comparison, looks: Sequence[Style]) -> dict[str, Any]:
    """What the script draws."""
    every = one_step_in(comparison)
    groups = [
        {
            "label": group.label,
            "seeds": len(group.runs),
            "colour": look.colour,
            "dashes": _dashes(look),
            "marker": look.marker,
        }
        for group, look in zip(comparison.groups, looks, strict=True)
    ]
    panels = [
        {
            "key": panel.key,
            "title": panel.title,
            "xLabel": panel.x_label,
            "yLabel": panel.y_label,
            "percent": panel.percent,
            "evaluated": panel.evaluated,
            "path": panel.path,
            "curves": [_group_curve(curve, 1 if panel.evaluated else every) for curve in panel.curves],
        }
        for panel in comparison.panels
    ]
    return {"groups": groups, "panels": panels}


def one_step_in(comparison: Comparison) -> int:
    """Of how many steps of training curves one is shown."""
    longest = max(len(seed.steps) for panel in comparison.panels for curve in panel.curves for seed in curve.seeds)
    return max(1, math.ceil(longest / MOST_POINTS))


def _group_curve(curve: GroupCurve, every: int) -> dict[str, Any]:
    kept = _kept(curve.steps, every)
    band = {"y": curve.y.mean, "low": curve.y.low, "high": curve.y.high, "n": curve.y.count}
    columns = {"steps": curve.steps, "x": curve.x} | band
    return {name: _numbers(values[kept]) for name, values in columns.items()} | {
        "seeds": [_seed_curve(seed, every) for seed in curve.seeds]
    }


def _seed_curve(seed: SeedCurve, every: int) -> dict[str, Any]:
    kept = _kept(seed.steps, every)
    shown = {"x": seed.x, "y": seed.y} | ({} if seed.raw is None else {"raw": seed.raw})
    return {name: _numbers(values[kept]) for name, values in shown.items()}


def _kept(steps: np.ndarray, every: int) -> np.ndarray:
    """[N] bool: the steps that are shown, the same for all curves but for each one's last."""
    kept = steps % every == 0
    kept[-1:] = True
    return kept


def _numbers(values: np.ndarray) -> list[float | int | None]:
    """To six significant digits; None for what JSON has no number for."""
    return [None if math.isnan(v) else int(v) if v == int(v) else float(f"{v:.6g}") for v in values.tolist()]


def _dashes(look: Style) -> str:
    return " ".join(map(str, look.dashes))
