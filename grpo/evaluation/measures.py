"""What the results of an evaluation come to: accuracy, pass@k, maj@k, lengths, and the `eval/...` keys of training.

    >>> measure(results).accuracy
    Estimate(value=0.58, low=0.53, high=0.63)

P problems, n responses each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from grpo.errors import UserError
from grpo.evaluation.attempts import maj_at_k, pass_at_k
from grpo.evaluation.results import ProblemResult
from grpo.intervals import Estimate, bootstrap_interval
from grpo.logs.metric_names import Metrics


@dataclass(frozen=True)
class Measures:
    """What P problems with n responses each come to."""

    problems: int
    responses: int
    accuracy: Estimate
    """avg@n: the mean over problems of the share of their responses that is correct."""
    pass_at: dict[int, Estimate]
    """k -> pass@k."""
    maj_at: dict[int, Estimate]
    """k -> maj@k; empty where no response has a final answer to vote with."""
    length: float
    """Mean tokens of a response; of the correct ones; of all others. None where there are none."""
    length_correct: float | None
    length_incorrect: float | None
    truncated: float
    """Share of responses cut at the token limit."""
    failures: int
    """Responses on which the first verifier failed; they count as incorrect."""


def measure(results: Sequence[ProblemResult], ks: Sequence[int] | None = None) -> Measures:
    """pass@k and maj@k for those of `ks` that are at most n; unset: for n, where it is more than 1.

    Raises: UserError where problems have different numbers of responses.
    """
    sizes = {len(result.responses) for result in results}
    if len(sizes) != 1:
        raise UserError(f"The problems of an evaluation must have equally many responses, not {sorted(sizes)}.")
    (n,) = sizes
    ks = [k for k in sorted(set(ks)) if k <= n] if ks else [n][: n - 1]
    flat = [response for result in results for response in result.responses]
    answered = any(response.final_answer is not None for response in flat)
    keys = [result.key for result in results]
    return Measures(
        problems=len(results),
        responses=n,
        accuracy=bootstrap_interval([result.accuracy for result in results], keys),
        pass_at={k: bootstrap_interval([_pass(result, k) for result in results], keys) for k in ks},
        maj_at={k: bootstrap_interval([_maj(result, k) for result in results], keys) for k in ks if answered},
        length=fmean(response.tokens for response in flat),
        length_correct=_mean([response.tokens for response in flat if response.correct]),
        length_incorrect=_mean([response.tokens for response in flat if not response.correct]),
        truncated=fmean(response.truncated for response in flat),
        failures=sum(response.failure is not None for response in flat),
    )


def training_metrics(sets: Mapping[str, Sequence[ProblemResult]], weights: Mapping[str, float]) -> Metrics:
    """The `eval/...` keys of a training run: over the problems of all held-out sets, and where there are several, those
    of each as `eval/<set>/...`. weights: verifier -> its weight in the reward."""
    metrics = _keys("eval/", [result for results in sets.values() for result in results], weights)
    if len(sets) > 1:
        for name, results in sets.items():
            metrics |= _keys(f"eval/{name}/", results, weights)
    return metrics


def _keys(before: str, results: Sequence[ProblemResult], weights: Mapping[str, float]) -> Metrics:
    found = measure(results)
    metrics = {
        "accuracy": found.accuracy.value,
        "accuracy_low": found.accuracy.low,
        "accuracy_high": found.accuracy.high,
        "reward": fmean(
            sum(weight * (response.rewards[name] or 0.0) for name, weight in weights.items())
            for result in results
            for response in result.responses
        ),
        "length": found.length,
        "length_correct": found.length_correct,
        "length_incorrect": found.length_incorrect,
        "truncated": found.truncated,
        "failures": float(found.failures),
    }
    for name, estimates in (("pass@k", found.pass_at), ("maj@k", found.maj_at)):
        if found.responses in estimates:
            metrics[name] = estimates[found.responses].value
    return {f"{before}{name}": value for name, value in metrics.items()}


def accuracy_by(results: Sequence[ProblemResult], column: str) -> dict[Any, tuple[int, Estimate]]:
    """Value of `level` or `subject` -> (problems, accuracy), in order; empty where the data has no such column."""
    parts: dict[Any, list[ProblemResult]] = {}
    for result in results:
        value = getattr(result, column)
        if value is not None and value == value:  # a table's empty cell may be NaN
            parts.setdefault(value if isinstance(value, int | float) else str(value), []).append(result)
    ordered = sorted(parts.items(), key=lambda part: (isinstance(part[0], str), part[0]))
    return {
        value: (len(part), bootstrap_interval([r.accuracy for r in part], [r.key for r in part]))
        for value, part in ordered
    }


def _pass(result: ProblemResult, k: int) -> float:
    return pass_at_k(len(result.responses), sum(response.correct for response in result.responses), k)


def _maj(result: ProblemResult, k: int) -> float:
    # A truncated response has not answered, even where its text holds something like an answer.
    votes = [None if response.truncated else response.final_answer for response in result.responses]
    return maj_at_k(votes, [response.correct for response in result.responses], k)


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
