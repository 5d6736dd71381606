"""Held-out problems -> responses, verified -> accuracy, pass@k, maj@k and lengths. Training and the command use this.

    >>> results = evaluate(engine, verifiers, problems, 8, temperature=1.0, max_tokens=3000, seed=0)
    >>> measure(results).accuracy
    Estimate(value=0.58, low=0.53, high=0.63)

A response that was cut at the token limit is wrong, whatever it holds. P problems, n responses each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from grpo.engines.protocol import Engine
from grpo.errors import UserError
from grpo.evaluation.intervals import Difference, Estimate, maj_at_k, mean_interval, paired_difference, pass_at_k
from grpo.evaluation.results import ProblemResult, ResponseResult
from grpo.logs.metrics import Metrics
from grpo.records import Problem, Rollout
from grpo.verifiers.verify import Verifiers


def evaluate(
    engine: Engine,
    verifiers: Verifiers,
    problems: Sequence[Problem],
    responses: int,
    *,
    temperature: float,
    max_tokens: int,
    seed: int,
    first: int = 0,
    on_response: Callable[[], None] = lambda: None,
) -> list[ProblemResult]:
    """`responses` responses for each problem, verified while others are still being generated.

    The first verifier says what is correct. `first` is the index of the first problem; `on_response` is called with
    every finished response. Raises: UserError where verifiers fail on too many responses, or a `final_answer` raises.
    """

    def finished(problem: Problem, rollout: Rollout) -> None:
        verifiers.submit(problem, rollout)
        on_response()

    groups = engine.generate(
        problems, responses, temperature=temperature, max_tokens=max_tokens, seed=seed, on_response=finished
    )
    outcomes = verifiers.outcomes(groups)
    deciding = next(iter(outcomes))
    results = []
    for p, group in enumerate(groups):
        found = []
        for g, rollout in enumerate(group.rollouts):
            said = {name: row[p * responses + g] for name, row in outcomes.items()}
            found.append(
                ResponseResult(
                    text=rollout.text,
                    correct=(said[deciding].reward or 0.0) >= 1.0 and not rollout.truncated,
                    rewards={name: outcome.reward for name, outcome in said.items()},
                    tokens=len(rollout.tokens),
                    truncated=rollout.truncated,
                    final_answer=verifiers.final_answer(rollout.text),
                    failure=said[deciding].failure,
                )
            )
        columns = {name: group.problem.columns.get(name) for name in ("id", "answer", "level", "subject")}
        results.append(ProblemResult(first + p, prompt=group.problem.prompt, responses=tuple(found), **columns))
    return results


@dataclass(frozen=True)
class Measures:
    """What P problems with n responses each come to."""

    problems: int
    responses: int
    accuracy: Estimate
    """avg@n: the mean over problems of the share of their responses that is right."""
    pass_at: dict[int, Estimate]
    """k -> pass@k."""
    maj_at: dict[int, Estimate]
    """k -> maj@k; empty where no response has a final answer to vote with."""
    length: float
    """Mean tokens of a response; of the right ones; of all others. None where there are none."""
    length_correct: float | None
    length_incorrect: float | None
    truncated: float
    """Share of responses cut at the token limit."""
    failures: int
    """Responses on which the first verifier failed; they count as wrong."""


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
        accuracy=mean_interval([result.accuracy for result in results], keys),
        pass_at={k: mean_interval([_pass(result, k) for result in results], keys) for k in ks},
        maj_at={k: mean_interval([_maj(result, k) for result in results], keys) for k in ks if answered},
        length=fmean(response.tokens for response in flat),
        length_correct=_mean([response.tokens for response in flat if response.correct]),
        length_incorrect=_mean([response.tokens for response in flat if not response.correct]),
        truncated=fmean(response.truncated for response in flat),
        failures=sum(response.failure is not None for response in flat),
    )


def training_metrics(results: Sequence[ProblemResult]) -> Metrics:
    """The `eval/...` keys of a training run."""
    found = measure(results)
    metrics = {
        "accuracy": found.accuracy.value,
        "accuracy_low": found.accuracy.low,
        "accuracy_high": found.accuracy.high,
        "length": found.length,
        "length_correct": found.length_correct,
        "length_incorrect": found.length_incorrect,
        "truncated": found.truncated,
        "failures": float(found.failures),
    }
    for name, estimates in (("pass@k", found.pass_at), ("maj@k", found.maj_at)):
        if found.responses in estimates:
            metrics[name] = estimates[found.responses].value
    return {f"eval/{name}": value for name, value in metrics.items()}


def accuracy_by(results: Sequence[ProblemResult], column: str) -> dict[Any, tuple[int, Estimate]]:
    """Value of `level` or `subject` -> (problems, accuracy), in order; empty where the data has no such column."""
    parts: dict[Any, list[ProblemResult]] = {}
    for result in results:
        value = getattr(result, column)
        if value is not None and value == value:  # a table's empty cell may be NaN
            parts.setdefault(value if isinstance(value, int | float) else str(value), []).append(result)
    ordered = sorted(parts, key=lambda value: (isinstance(value, str), value))
    return {
        value: (len(parts[value]), mean_interval([r.accuracy for r in parts[value]], [r.key for r in parts[value]]))
        for value in ordered
    }


def compare(first: Sequence[ProblemResult], second: Sequence[ProblemResult]) -> Difference | None:
    """Accuracy of the second less that of the first, over the problems that both have; None where they share none.

    Problems are the same where prompt and gold answer are. The numbers of responses may differ.
    """
    one, other = _by_problem(first), _by_problem(second)
    shared = [key for key in one if key in other]
    if not shared:
        return None
    problems = [problem for problem, _ in shared]
    return paired_difference([one[key] for key in shared], [other[key] for key in shared], problems)


def _by_problem(results: Sequence[ProblemResult]) -> dict[tuple[str, int], float]:
    seen: dict[str, int] = {}
    found = {}
    for result in results:
        seen[result.key] = seen.get(result.key, 0) + 1
        found[result.key, seen[result.key]] = result.accuracy  # a set that asks the same twice is paired in order
    return found


def _pass(result: ProblemResult, k: int) -> float:
    return pass_at_k(len(result.responses), sum(response.correct for response in result.responses), k)


def _maj(result: ProblemResult, k: int) -> float:
    # A truncated response has not answered, even where its text holds something like an answer.
    votes = [None if response.truncated else response.final_answer for response in result.responses]
    return maj_at_k(votes, [response.correct for response in result.responses], k)


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
