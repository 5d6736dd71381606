"""Statistics over seeds: smoothing, bands, intervals, differences, the point where an accuracy is reached.

    >>> estimate([1.0, 2.0, 3.0])
    Estimate(mean=2.0, low=-0.48, high=4.48, values=(1.0, 2.0, 3.0), missing=0)

Intervals hold 95%. S seeds, N points of a curve. NaN means: no value here.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """The mean of a quantity over seeds."""

    mean: float | None
    """None where no seed has a value."""
    low: float | None
    high: float | None
    """Student's t interval of the mean; None for fewer than two values, or where some seed has none."""
    values: tuple[float, ...]
    missing: int = 0
    """Seeds without a value."""


@dataclass(frozen=True)
class Difference:
    """A group's mean less another's."""

    mean: float | None
    low: float | None
    high: float | None
    """Welch's interval; None where a group has fewer than two values, a seed without one, or neither has a spread."""
    p: float | None
    """Welch's t test, two-sided."""

    @property
    def clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low is not None and not self.low <= 0.0 <= self.high


@dataclass(frozen=True)
class Band:
    """A curve over seeds, [N] each."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    count: np.ndarray
    """Seeds that have a value there."""


def estimate(values: Sequence[float | None]) -> Estimate:
    """Mean and t interval of one value a seed. A mean over some of the seeds is given without an interval."""
    there = [value for value in values if value is not None and not math.isnan(value)]
    missing = len(values) - len(there)
    if not there:
        return Estimate(None, None, None, (), missing)
    mean = float(np.mean(there))
    if len(there) < 2 or missing:
        return Estimate(mean, None, None, tuple(there), missing)
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(there) - 1) * np.std(there, ddof=1) / len(there) ** 0.5)
    return Estimate(mean, mean - half, mean + half, tuple(there))


def difference(first: Estimate, other: Estimate) -> Difference:
    """`other` less `first`, by Welch's t test over their seeds."""
    if first.mean is None or other.mean is None or first.missing or other.missing:
        return Difference(None, None, None, None)
    mean = other.mean - first.mean
    if min(len(first.values), len(other.values)) < 2 or not (np.ptp(first.values) or np.ptp(other.values)):
        return Difference(mean, None, None, None)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)  # of a group without a spread
        test = stats.ttest_ind(other.values, first.values, equal_var=False)
    interval = test.confidence_interval(LEVEL)
    return Difference(mean, float(interval.low), float(interval.high), float(test.pvalue))


def smooth(steps: np.ndarray, values: np.ndarray, window: int, weights: np.ndarray | None = None) -> np.ndarray:
    """[N] the weighted mean over the steps within `window` // 2 of each one; NaN where none of them has a value.

    Weights of response counts make it the mean over all responses of those steps. Where they are unknown (NaN), every
    step that has a value counts alike.
    """
    known = ~np.isnan(values)
    weights = np.ones(len(values)) if weights is None or np.isnan(weights[known]).any() else weights
    weights = np.where(known, weights, 0.0)
    sums = np.concatenate([[0.0], np.cumsum(weights * np.where(known, values, 0.0))])
    totals = np.concatenate([[0.0], np.cumsum(weights)])
    low, high = (
        np.searchsorted(steps, steps + way * (window // 2), side) for way, side in ((-1, "left"), (1, "right"))
    )
    total = totals[high] - totals[low]
    return np.where(total > 0, (sums[high] - sums[low]) / np.where(total > 0, total, 1.0), np.nan)


def band(values: np.ndarray, kind: str) -> Band:
    """Values [S, N] -> mean and band [N]: `interval`, the 95% t interval of the mean, or `range`, lowest to highest.

    The mean is NaN unless more than half of the seeds have a value, the band where fewer than two have.
    """
    count = (~np.isnan(values)).sum(axis=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice|All-NaN|Degrees of freedom", RuntimeWarning)
        mean = np.where(2 * count > len(values), np.nanmean(values, axis=0), np.nan)
        if kind == "range":
            low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
        else:
            quantile = stats.t.ppf((1 + LEVEL) / 2, np.maximum(count - 1, 1))
            half = quantile * np.nanstd(values, axis=0, ddof=1) / np.sqrt(np.maximum(count, 1))
            low, high = mean - half, mean + half
    there = (count >= 2) & ~np.isnan(mean)
    return Band(mean, np.where(there, low, np.nan), np.where(there, high, np.nan), count)


def first_reach(x: np.ndarray, values: np.ndarray, level: float) -> float | None:
    """Where a curve first comes to `level`, on the straight line between its points; None where it does not."""
    known = ~(np.isnan(values) | np.isnan(x))
    x, values = x[known], values[known]
    above = np.flatnonzero(values >= level)
    if not len(above):
        return None
    i = above[0]
    if i == 0:
        return float(x[0])
    return float(x[i - 1] + (x[i] - x[i - 1]) * (level - values[i - 1]) / (values[i] - values[i - 1]))


def slope(steps: np.ndarray, values: np.ndarray, weights: np.ndarray) -> float | None:
    """Weighted least squares: the change of `values` a step. None for fewer than two steps with a value and weight."""
    known = ~np.isnan(values) & (weights > 0)
    if known.sum() < 2:
        return None
    x, y, w = steps[known], values[known], weights[known]
    dx, dy = x - np.average(x, weights=w), y - np.average(y, weights=w)
    return float((w * dx * dy).sum() / (w * dx * dx).sum())
