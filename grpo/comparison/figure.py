"""A comparison as a picture: seven panels, seeds as bands, and a legend in the eighth place."""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

from grpo.comparison.cells import seeds_text
from grpo.comparison.comparison import Comparison
from grpo.comparison.panels import GroupCurve, Panel
from grpo.comparison.styles import Style, styles
from grpo.comparison.summary import methods
from grpo.files import written_whole

DPI = 120


def draw(comparison: Comparison, path: Path) -> None:
    """Write the picture as PNG, whole or not at all."""
    looks = styles([group.label for group in comparison.groups])
    # A label is text, whatever is in it; dashes are in points, as on the page.
    with plt.rc_context({"text.parse_math": False, "axes.titlesize": "large", "lines.scale_dashes": False}):
        figure, grid = plt.subplots(2, 4, figsize=(15, 7.4), layout="constrained")
        for axes, panel in zip(grid.flat, comparison.panels, strict=False):
            draw_panel(axes, panel, looks)
        legend(grid.flat[-1], comparison, looks)
        figure.suptitle(comparison.title, x=0.01, ha="left", fontsize="x-large", fontweight="bold")
        figure.supxlabel(
            "\n".join(textwrap.wrap(" ".join(methods(comparison)[:2]), 230)), fontsize="small", color="0.3"
        )
        with written_whole(path) as part:
            figure.savefig(part, dpi=DPI, format="png")
        plt.close(figure)


def draw_panel(axes: Axes, panel: Panel, looks: list[Style]) -> None:
    """One panel: a line, a band and thin seeds a group."""
    axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    if panel.empty:
        axes.text(0.5, 0.5, "not in these runs", ha="center", va="center", transform=axes.transAxes, color="0.4")
        axes.set(xticks=[], yticks=[])
        return
    for curve, look in zip(panel.curves, looks, strict=True):
        draw_curve(axes, panel, curve, look)
    axes.set_ylim(*limits(panel))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=panel.x_label == "step"))
    if panel.percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0 if np.ptp(axes.get_ylim()) > 0.05 else 1))
    if panel.key == "efficiency":
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def draw_curve(axes: Axes, panel: Panel, curve: GroupCurve, look: Style) -> None:
    """Seeds behind, then the band, then the mean."""
    for seed in curve.seeds:
        if seed.raw is not None:
            axes.plot(seed.x, seed.raw, color=look.colour, alpha=0.25, linewidth=0.8)
        elif len(curve.seeds) > 1 and not panel.path:
            axes.plot(seed.x, seed.y, color=look.colour, alpha=0.35, linewidth=0.7)
    line = dict(color=look.colour, linewidth=2.0, dashes=look.dashes or (None, None), solid_capstyle="round")
    if panel.path:
        axes.plot(curve.x, curve.y.mean, **line)
        axes.plot(curve.x[:1], curve.y.mean[:1], look.marker, color=look.colour, markerfacecolor="white", markersize=8)
        axes.plot(curve.x[-1:], curve.y.mean[-1:], look.marker, color=look.colour, markersize=8)
        return
    axes.fill_between(curve.x, curve.y.low, curve.y.high, color=look.colour, alpha=0.15, linewidth=0)
    axes.plot(curve.x, curve.y.mean, marker=look.marker if panel.evaluated else "", markersize=6, **line)


def limits(panel: Panel) -> tuple[float, float]:
    """Lowest and highest y. Of bands only a third of the lines' height is shown beyond them: the interval of two seeds
    that differ would flatten every curve."""
    lines = [curve.y.mean for curve in panel.curves] + [seed.y for curve in panel.curves for seed in curve.seeds]
    low, high = (float(extreme(np.concatenate(lines))) for extreme in (np.nanmin, np.nanmax))
    bands = [] if panel.path else [end for curve in panel.curves for end in (curve.y.low, curve.y.high)]
    beyond = np.concatenate([np.array([low, high]), *bands])
    room = 1 / 3 * (high - low)
    low, high = max(low - room, float(np.nanmin(beyond))), min(high + room, float(np.nanmax(beyond)))
    margin = 0.05 * (high - low) or 0.5 * abs(high) or 1.0
    return low - margin, high + margin


def legend(axes: Axes, comparison: Comparison, looks: list[Style]) -> None:
    """Every group once, with line and marker; and how a path through training is read."""
    axes.axis("off")
    many = len(looks) > 12
    keys = [
        Line2D(
            [], [], color=look.colour, dashes=look.dashes or (None, None), marker=look.marker, linewidth=2,
            label=textwrap.fill(f"{group.label} ({seeds_text(group)})", 22 if many else 36),
        )
        for group, look in zip(comparison.groups, looks, strict=True)
    ]  # fmt: skip
    keys.append(Line2D([], [], color="0.4", marker="o", markerfacecolor="white", linewidth=0, label="first step"))
    keys.append(Line2D([], [], color="0.4", marker="o", linewidth=0, label="last step"))
    size = "x-small" if many else "medium" if len(looks) > 6 else "large"
    axes.legend(handles=keys, loc="center", frameon=False, ncols=2 if many else 1, fontsize=size, handlelength=3.2)
