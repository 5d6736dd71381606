"""Curves of seeds: smoothing, bands, the point where an accuracy is reached, the slope of a length.

    >>> smooth(np.array([1, 2, 3]), np.array([1.0, 2.0, 6.0]), 3)
    array([1.5, 3. , 4. ])

S seeds, N points of a curve. NaN means: no value here.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from grpo.intervals import t_half_width


@dataclass(frozen=True)
class Band:
    """A curve over seeds, [N] each."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    count: np.ndarray
    """Seeds that have a value there."""


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
            half = t_half_width(np.nanstd(values, axis=0, ddof=1), np.maximum(count, 2))
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
