"""Groups of runs -> seven panels of curves: those of the Dr. GRPO paper (arXiv 2503.20783), figures 6 and 1.

N points of a curve, S seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from grpo.comparison.groups import RunGroup
from grpo.comparison.runs import Run
from grpo.comparison.seed_curves import Band, band, smooth
from grpo.comparison.view import View

Column = Callable[[Run], np.ndarray]
"""A run -> [N], a value a row."""


@dataclass(frozen=True)
class SeedCurve:
    """One run's curve, [N] each."""

    name: str
    steps: np.ndarray
    x: np.ndarray
    y: np.ndarray
    raw: np.ndarray | None = None
    """y before smoothing, where the run is the only one of its group."""


@dataclass(frozen=True)
class GroupCurve:
    """The mean over a group's seeds up to the last step that all of them have reached, [N] each, and the seeds'."""

    steps: np.ndarray
    x: np.ndarray
    y: Band
    seeds: tuple[SeedCurve, ...]


@dataclass(frozen=True)
class Panel:
    """One picture: a curve a group."""

    key: str
    title: str
    x_label: str
    y_label: str
    curves: tuple[GroupCurve, ...]
    percent: bool = False
    evaluated: bool = False
    """Whether its points are evaluations, which are marked and not smoothed."""
    path: bool = False
    """Whether x is measured as well: a path through training, without a band."""

    @property
    def empty(self) -> bool:
        return all(np.isnan(curve.y.mean).all() for curve in self.curves)


def make_panels(groups: Sequence[RunGroup], view: View) -> list[Panel]:
    """The five of the Dr. GRPO paper's figure 6, and figure 1's: reward against length, accuracy against tokens."""
    steps, tokens = (lambda run: run.steps), (lambda run: run.tokens_spent)
    reward, length = (
        partial(smoothed_column, key=key, window=view.path_window) for key in ("reward/mean", "length/mean")
    )

    def training(key: str, title: str, y_label: str) -> Panel:
        y = partial(smoothed_column, key=key, window=view.window)
        raw = partial(Run.column, key=key) if view.window > 1 else None
        low = 0.0 if y_label == "tokens" else -np.inf
        curves = tuple(_curve(group, steps, y, view, raw, possible=(low, np.inf)) for group in groups)
        return Panel(key, title, "step", y_label, curves)

    def accuracy(key: str, title: str, x_label: str, x: Column) -> Panel:
        y = partial(Run.column, key="eval/accuracy")
        of_seeds = [_curve(group, x, y, view, possible=(0.0, 1.0)) for group in groups]
        curves = tuple(_with_own_interval(curve, group) for curve, group in zip(of_seeds, groups, strict=True))
        return Panel(key, title, x_label, "accuracy", curves, percent=True, evaluated=True)

    paths = tuple(_curve(group, length, reward, view) for group in groups)
    return [
        training("reward/mean", "Reward", "mean reward"),
        training("length/mean", "Response length", "tokens"),
        training("length/correct", "Length of correct responses", "tokens"),
        training("length/incorrect", "Length of incorrect responses", "tokens"),
        accuracy("eval/accuracy", "Held-out accuracy", "step", steps),
        Panel("path", "Reward against length", "response length, tokens", "mean reward", paths, path=True),
        accuracy("efficiency", "Token efficiency", "response tokens generated in training", tokens),
    ]


def smoothed_column(run: Run, key: str, window: int) -> np.ndarray:
    """[N] a metric's centred running mean; lengths of correct and incorrect responses weighted by their number."""
    values = run.column(key)
    smoothed = smooth(run.steps, values, window, run.response_counts.get(key))
    return np.where(run.steps > 0, smoothed, values)  # step 0 is an evaluation, of which nothing was drawn


def _curve(
    group: RunGroup,
    x: Column,
    y: Column,
    view: View,
    raw: Column | None = None,
    possible: tuple[float, float] = (-np.inf, np.inf),
) -> GroupCurve:
    """`possible` is what y can be, beyond which no band goes."""
    raw = raw if len(group.runs) == 1 else None
    seeds = [_seed_curve(run, x, y, raw) for run in group.runs]
    steps = np.unique(np.concatenate([seed.steps for seed in seeds]))
    steps = steps[steps <= min(run.last_step for run in group.runs)]
    xs, ys = np.full((2, len(seeds), len(steps)), np.nan)
    for i, seed in enumerate(seeds):
        here, there = np.isin(steps, seed.steps), np.isin(seed.steps, steps)
        xs[i, here], ys[i, here] = seed.x[there], seed.y[there]
    mean = band(ys, view.band)
    known = ~np.isnan(mean.mean)
    low, high = (end[known].clip(*possible) for end in (mean.low, mean.high))
    shown = Band(mean.mean[known], low, high, mean.count[known])
    return GroupCurve(steps[known], np.nanmean(xs[:, known], axis=0), shown, tuple(seeds))


def _seed_curve(run: Run, x: Column, y: Column, raw: Column | None) -> SeedCurve:
    xs, ys = x(run).astype(float), y(run)
    known = ~(np.isnan(xs) | np.isnan(ys))
    return SeedCurve(run.name, run.steps[known], xs[known], ys[known], raw(run)[known] if raw else None)


def _with_own_interval(curve: GroupCurve, group: RunGroup) -> GroupCurve:
    """A single run's accuracy with the interval of its evaluation, where that was logged."""
    if len(group.runs) > 1:
        return curve
    (run,) = group.runs
    low, high = (run.column(f"eval/accuracy_{end}")[np.isin(run.steps, curve.steps)] for end in ("low", "high"))
    return replace(curve, y=replace(curve.y, low=low, high=high))
