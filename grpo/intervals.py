"""How sure is a mean, and a difference of two? 95% intervals and tests, over problems and over seeds. Pure.

    >>> bootstrap_interval([1.0, 0.5, 0.0, 1.0])                  # one evaluation, four problems
    Estimate(value=0.625, low=0.25, high=1.0)
    >>> t_interval([1.0, 2.0, 3.0])                               # one setting, three seeds; its ends rounded
    Estimate(value=2.0, low=-0.48, high=4.48)

*Problems.* Responses to one problem are alike, so problems are the clusters: each enters with its own mean, and whole
problems are resampled. An interval over responses would be too narrow. A set may ask the same twice (`parity` does):
its rows of one problem are one cluster, by the `keys` that say which problem a value belongs to.

*Seeds.* They are independent, and too few to resample: Student's t for a mean, Welch's t test for a difference.

P rows of a data set, each a problem; S seeds.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95
RESAMPLES = 9_999
"""Draws of the bootstrap and of the sign flips; from one fixed seed, so that a report can be made again."""
BATCH = 500
"""Resamples held in memory at a time."""


class Estimate(NamedTuple):
    """A mean, or a difference of means, and its 95% interval; None for its ends where the data cannot give one."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Difference:
    """The second mean less the first."""

    estimate: Estimate
    p_value: float | None
    """Two-sided: how often chance alone makes a difference this large. None where the data cannot say."""

    @property
    def clear(self) -> bool:
        """Whether chance alone makes such a difference less than once in twenty."""
        return self.p_value is not None and self.p_value < 1 - LEVEL


# Over problems ----------------------------------------------------------------------------------------------------


def bootstrap_interval(values: Sequence[float], keys: Sequence[Hashable] | None = None) -> Estimate:
    """The mean of one value a row, [P] in 0..1, with the 95% percentile bootstrap interval over problems.

    keys: which problem each row asks, [P]; unset: all are different. Where all rows have the same value, resampling
    cannot vary, and would call that certain. Where they are all 0 or all 1 it is the exact interval of Clopper and
    Pearson over the problems instead, and else (only ever with a few) none. Raises: ValueError for no values.
    """
    sums, counts = _clusters(values, keys)
    estimate = _bootstrap(sums, counts)
    if estimate.low is not None or len(sums) == 1 or estimate.value not in (0.0, 1.0):
        return estimate
    exact = stats.binomtest(int(estimate.value) * len(sums), len(sums)).proportion_ci(LEVEL, method="exact")
    return Estimate(estimate.value, float(exact.low), float(exact.high))


def paired_difference(
    first: Sequence[float], second: Sequence[float], keys: Sequence[Hashable] | None = None
) -> Difference:
    """The mean of second - first over the same rows, both [P], with a bootstrap interval and a sign-flip test.

    Pairing takes out what makes problems easy or hard. Under the hypothesis that the models are equal, a problem's
    difference could as well have had the other sign. keys: as for `bootstrap_interval`; there is no interval where all
    differences are the same. Raises: ValueError for different lengths or none.
    """
    if len(first) != len(second):
        raise ValueError(f"a paired difference needs the same problems, not {len(first)} and {len(second)}")
    sums, counts = _clusters(np.asarray(second, dtype=float) - np.asarray(first, dtype=float), keys)
    p_value = 1.0  # of a single problem, nothing can be said
    if len(sums) > 1:
        p_value = stats.permutation_test(
            (sums,),
            np.mean,
            permutation_type="samples",  # of one sample: flips signs
            vectorized=True,
            n_resamples=RESAMPLES,
            batch=BATCH,
            rng=np.random.default_rng(0),
        ).pvalue
    return Difference(_bootstrap(sums, counts), float(p_value))


def _clusters(values: Sequence[float], keys: Sequence[Hashable] | None) -> tuple[np.ndarray, np.ndarray]:
    """The sum of each problem's values and their number, in the order in which problems come first."""
    if not len(values):
        raise ValueError("no problem to average over")
    rows: dict[Hashable, list[float]] = {}
    for key, value in zip(range(len(values)) if keys is None else keys, values, strict=True):
        rows.setdefault(key, []).append(float(value))
    return np.array([sum(row) for row in rows.values()]), np.array([len(row) for row in rows.values()])


def _bootstrap(sums: np.ndarray, counts: np.ndarray) -> Estimate:
    mean = float(sums.sum() / counts.sum())
    if len(sums) == 1 or np.ptp(sums / counts) < 1e-9:  # nothing varies but by rounding
        return Estimate(mean, None, None)
    interval = stats.bootstrap(
        (sums, counts),
        lambda total, rows, axis: total.sum(axis) / rows.sum(axis),
        paired=True,  # whole problems are drawn
        vectorized=True,
        confidence_level=LEVEL,
        method="percentile",
        n_resamples=RESAMPLES,
        batch=BATCH,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Estimate(mean, float(interval.low), float(interval.high))


# Over seeds -------------------------------------------------------------------------------------------------------


def t_interval(values: Sequence[float | None]) -> Estimate | None:
    """The mean of one value a seed, [S], with Student's t interval; None where no seed has a value.

    There is no interval of a single seed, nor where some seed has no value (None): that mean is over the others.
    """
    there = [value for value in values if value is not None]
    if not there:
        return None
    mean = float(np.mean(there))
    if len(there) < 2 or len(there) < len(values):
        return Estimate(mean, None, None)
    half = float(t_half_width(np.std(there, ddof=1), len(there)))
    return Estimate(mean, mean - half, mean + half)


def welch_difference(first: Sequence[float | None], second: Sequence[float | None]) -> Difference | None:
    """The mean over the seeds of the second group, [S], less that of the first, by Welch's t test.

    None where a seed of either has no value. There is no interval where a group is a single seed, or neither varies.
    """
    if not first or not second or None in (*first, *second):
        return None
    mean = float(np.mean(second)) - float(np.mean(first))
    if min(len(first), len(second)) < 2 or not (np.ptp(first) or np.ptp(second)):
        return Difference(Estimate(mean, None, None), None)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)  # of a group that does not vary
        test = stats.ttest_ind(second, first, equal_var=False)
    interval = test.confidence_interval(LEVEL)
    return Difference(Estimate(mean, float(interval.low), float(interval.high)), float(test.pvalue))


def t_half_width(deviation: np.ndarray | float, count: np.ndarray | int) -> np.ndarray | float:
    """Half of Student's t interval of a mean: `count` values, 2 or more, with this standard deviation (ddof 1)."""
    return stats.t.ppf((1 + LEVEL) / 2, count - 1) * deviation / np.sqrt(count)
