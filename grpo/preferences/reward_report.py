"""How good is a reward model? Accuracy over pairs, log loss, calibration, and what the length alone would tell. Pure.

A pair is two responses to a prompt of which one is better. Intervals are over prompts: the pairs of one are alike.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from grpo.intervals import Estimate, bootstrap_interval

BINS = 5
"""Of the probability that the model gives the response that it prefers, from 1/2 to 1."""


@dataclass(frozen=True)
class Judged:
    """A comparison of K responses, and the model's rewards for them."""

    key: Hashable
    """Of its prompt."""
    rewards: tuple[float, ...]
    scores: tuple[float, ...]
    lengths: tuple[int, ...]
    """Tokens."""

    def pairs(self) -> list[tuple[int, int]]:
        """(better, worse) by the scores."""
        places = range(len(self.scores))
        return [(a, b) for a in places for b in places if self.scores[a] > self.scores[b]]


@dataclass(frozen=True)
class Bin:
    """Pairs to whose preferred response the model gives such a probability."""

    low: float
    high: float
    pairs: int
    probability: float
    """Mean that the model gives."""
    correct: float
    """Share in which the preferred response is the better one."""


@dataclass(frozen=True)
class Report:
    """Of some comparisons."""

    comparisons: int
    pairs: int
    accuracy: Estimate
    """Share of the pairs in which the better response has the higher reward; equal rewards count a half."""
    log_loss: float
    """Mean of -log sigmoid(r_better - r_worse), in nats; ln 2 = 0.693 is knowing nothing."""
    calibration: tuple[Bin, ...]
    longer_wins: Estimate
    """Share of the pairs in which the better response is the longer one; equal lengths count a half."""
    longer_preferred: float
    """Share in which the longer one has the higher reward: above `longer_wins` the model likes length for itself."""

    @property
    def bar(self) -> float:
        """The accuracy of length alone, which a reward model has to beat."""
        return max(self.longer_wins.value, 1 - self.longer_wins.value)

    def to_json(self) -> dict[str, Any]:
        found = asdict(self) | {"length_alone": self.bar}
        return found | {name: getattr(self, name)._asdict() for name in ("accuracy", "longer_wins")}


def report(judged: Sequence[Judged]) -> Report:
    """Raises: ValueError for no pair."""
    keys, right, losses, longer, liked, trust = [], [], [], [], [], []
    for one in judged:
        for better, worse in one.pairs():
            difference = one.rewards[better] - one.rewards[worse]
            further = one.lengths[better] - one.lengths[worse]
            keys.append(one.key)
            right.append(step(difference))
            losses.append(softplus(-difference))
            longer.append(step(further))
            liked.append(step(difference * further))
            trust.append((1 / (1 + math.exp(-min(abs(difference), 700.0))), step(difference)))
    return Report(
        comparisons=len(judged),
        pairs=len(keys),
        accuracy=bootstrap_interval(right, keys),
        log_loss=sum(losses) / len(losses),
        calibration=tuple(bins(trust)),
        longer_wins=bootstrap_interval(longer, keys),
        longer_preferred=sum(liked) / len(liked),
    )


def pair_accuracy(judged: Sequence[Judged]) -> float:
    """The accuracy of `report`, alone."""
    right = [step(one.rewards[better] - one.rewards[worse]) for one in judged for better, worse in one.pairs()]
    return sum(right) / len(right)


def step(difference: float) -> float:
    """1 where it is positive, 0 where negative, and a half for a tie."""
    return 0.5 if difference == 0 else float(difference > 0)


def softplus(x: float) -> float:
    """log(1 + exp(x)), which written out overflows above 709."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def bins(trust: Sequence[tuple[float, float]]) -> list[Bin]:
    """(probability of the preferred response, whether it is the better one) -> a bin for each fifth that has a pair."""
    found = []
    for i in range(BINS):
        low, high = 0.5 + i / (2 * BINS), 0.5 + (i + 1) / (2 * BINS)
        inside = [(p, right) for p, right in trust if low <= p < high or (i == BINS - 1 and p >= high)]
        if inside:
            probability, correct = (sum(column) / len(inside) for column in zip(*inside, strict=True))
            found.append(Bin(low, high, len(inside), probability, correct))
    return found


def words(of: Report) -> str:
    """What the command prints."""
    lines = [
        f"{of.comparisons:,} comparisons, {of.pairs:,} pairs: accuracy {percent(of.accuracy)}, log loss "
        f"{of.log_loss:.3f} (ln 2 = 0.693 is knowing nothing)",
        f"the longer response is the better one in {percent(of.longer_wins)} of the pairs, and has the higher reward "
        f"in {100 * of.longer_preferred:.1f}%: length alone would be right in {100 * of.bar:.1f}%",
    ]
    if of.accuracy.value <= of.bar:
        lines.append("warning: the model is no better than the length alone. As a reward it may teach length")
    if of.calibration:
        each = (
            f"{100 * b.probability:.0f}% sure: right in {100 * b.correct:.0f}% of {b.pairs:,}" for b in of.calibration
        )
        lines.append("calibration: " + "; ".join(each))
    return "\n".join(lines)


def percent(of: Estimate) -> str:
    interval = "" if of.low is None else f" [{100 * of.low:.1f}, {100 * of.high:.1f}]"
    return f"{100 * of.value:.1f}%{interval}"
