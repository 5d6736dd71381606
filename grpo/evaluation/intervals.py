"""How sure is a mean over problems? pass@k, maj@k, 95% intervals, and a paired test of two models. Pure.

    >>> pass_at_k(4, 1, 2)                                        # 4 responses, 1 right; 2 drawn of them
    0.5
    >>> maj_at_k(["7", "8", "7", None], [True, False, True, False], 4)
    1.0
    >>> mean_interval([1.0, 0.5, 0.0, 1.0])
    Estimate(value=0.625, low=0.25, high=1.0)

Responses to one problem are alike, so problems are the clusters: each enters with its own mean, and whole problems are
resampled. An interval over responses would be too narrow. A set may ask the same twice (`parity` does): its rows of one
problem are one cluster, by the `keys` that say which problem a value belongs to.

P rows of a data set, each a problem.
"""

from __future__ import annotations

import math
from collections import Counter
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
    """A mean over problems and its 95% interval; None for its ends where the data cannot give one."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Difference:
    """The second model less the first on the same problems."""

    estimate: Estimate
    p_value: float
    """Two-sided, of a sign-flip permutation test: how often chance alone makes a difference this large."""
    problems: int

    @property
    def verdict(self) -> str:
        """`higher`, `lower`, or `within noise` where chance alone makes such a difference more than once in twenty."""
        if self.p_value >= 1 - LEVEL:
            return "within noise"
        return "higher" if self.estimate.value > 0 else "lower"


def pass_at_k(responses: int, right: int, k: int) -> float:
    """The chance that k of a problem's responses, drawn without replacement, hold a right one: 1 - C(n-c, k) / C(n, k).

    Unbiased for one more draw of k from the model (Chen et al., arXiv 2107.03374, equation 1). Raises: ValueError
    unless 0 <= right <= responses and 1 <= k <= responses.
    """
    if not (0 <= right <= responses and 1 <= k <= responses):
        raise ValueError(f"pass@{k} of {responses} responses, {right} right, does not exist")
    return 1.0 - math.comb(responses - right, k) / math.comb(responses, k)


def maj_at_k(answers: Sequence[str | None], right: Sequence[bool], k: int) -> float:
    """The share of blocks of k responses whose most frequent answer is right: self-consistency (arXiv 2203.11171).

    Blocks are consecutive and disjoint; responses that fill no block are left out. None casts no vote, and a block
    without a vote is wrong. Answers that tie count as the share of them that is right.

    Raises: ValueError unless 1 <= k <= responses.
    """
    if not 1 <= k <= len(answers) == len(right):
        raise ValueError(f"maj@{k} of {len(answers)} answers and {len(right)} verdicts does not exist")
    starts = range(0, len(answers) - k + 1, k)
    return sum(_vote(answers[i : i + k], right[i : i + k]) for i in starts) / len(starts)


def _vote(answers: Sequence[str | None], right: Sequence[bool]) -> float:
    votes = Counter(answer for answer in answers if answer is not None)
    most = max(votes.values(), default=0)
    tied = {answer for answer, count in votes.items() if count == most}
    # Tied answers have equally many votes. Equal ones have equal verdicts, unless the verifier failed on one or reads
    # more than the answer: then the mean.
    return float(np.mean([r for a, r in zip(answers, right, strict=True) if a in tied])) if tied else 0.0


def mean_interval(values: Sequence[float], keys: Sequence[Hashable] | None = None) -> Estimate:
    """The mean of one value a row, [P] in 0..1, with the 95% percentile bootstrap interval over problems.

    keys: which problem each row asks, [P]; unset: all are different. Where all rows have the same value, resampling
    cannot vary, and would call that certain. Where they are all wrong or all right it is the exact interval of Clopper
    and Pearson over the problems instead, and else (only ever with a few) none. Raises: ValueError for no values.
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
    difference could as well have had the other sign. keys: as for `mean_interval`; there is no interval where all
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
    return Difference(_bootstrap(sums, counts), float(p_value), len(first))


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
