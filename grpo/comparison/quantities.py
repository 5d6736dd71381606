"""Groups of runs -> one number each for what they are compared by, with intervals, and its differences.

"Final" and "first" are means over the last and the first tenth of the steps, of lengths over all responses of those
steps; of the held-out accuracy, final is the last evaluation. Q quantities, K groups of runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from grpo.comparison.groups import RunGroup
from grpo.comparison.runs import Run
from grpo.comparison.seed_curves import first_reach, slope
from grpo.comparison.view import View
from grpo.intervals import Difference, Estimate, t_interval, welch_difference

LENGTHS = {"mean": "all", "correct": "correct", "incorrect": "incorrect"}
"""Keys below length/ and eval/length_, and what they are called."""


@dataclass(frozen=True)
class Measure:
    """What is measured of each run."""

    key: str
    title: str
    kind: str
    """How it is shown, see cells.show: reward, share, tokens, count, steps, seconds."""
    meaning: str
    of: Callable[[Run], float | None]
    signed: bool = False
    """Whether it is itself a change, shown with its sign."""


@dataclass(frozen=True)
class Quantity:
    """One row of the table."""

    measure: Measure
    values: tuple[tuple[float | None, ...], ...]
    """[K] of each group, [S] of each of its runs; None where a run has none."""
    estimates: tuple[Estimate | None, ...]
    """[K] over the seeds; the accuracy of a single seed has the interval of its evaluation, where it was logged. None
    where no run of the group has a value."""
    differences: tuple[Difference | None, ...]
    """[K - 1] the others less the first group; None where a run of either has no value."""


def make_quantities(groups: Sequence[RunGroup], view: View) -> list[Quantity]:
    """[Q] whatever at least one run has."""
    quantities = []
    for measure in make_measures(view):
        values = tuple(tuple(_known(measure.of(run)) for run in group.runs) for group in groups)
        estimates = [t_interval(each) for each in values]
        if measure.key == "eval/accuracy":
            estimates = [_within_run(each, group, view) for each, group in zip(estimates, groups, strict=True)]
        if any(each is not None for each in estimates):
            differences = tuple(welch_difference(values[0], other) for other in values[1:])
            quantities.append(Quantity(measure, values, tuple(_possible(e, measure) for e in estimates), differences))
    return quantities


def make_measures(view: View) -> list[Measure]:
    """[Q] in the order of the table."""
    first, last = (1, view.edge), (view.horizon - view.edge + 1, view.horizon)
    steps = f"the last {view.edge} of {view.horizon} steps" if view.edge > 1 else f"step {view.horizon}"
    final, change = f"mean over {steps}", f"{steps} less " + (f"the first {view.edge}" if view.edge > 1 else "step 1")
    evaluated = f"at step {view.evaluated[0]}" if len(view.evaluated) == 1 else "at each run's last evaluation"

    def at_end(key: str) -> Callable[[Run], float | None]:
        return partial(mean_over, key=key, span=last)

    def growth(key: str) -> Callable[[Run], float | None]:
        return lambda run: _minus(mean_over(run, key, last), mean_over(run, key, first))

    def evaluation(key: str) -> Callable[[Run], float | None]:
        return partial(last_evaluation, key=key, horizon=view.horizon)

    measures = [
        Measure("reward", "final reward", "reward", final, at_end("reward/mean")),
        Measure("eval/accuracy", "held-out accuracy", "share", evaluated, evaluation("eval/accuracy")),
    ]
    for key, name in LENGTHS.items():
        measures.append(Measure(f"length/{key}", f"final length, {name}", "tokens", final, at_end(f"length/{key}")))
    for key, name in LENGTHS.items():
        of = growth(f"length/{key}")
        measures.append(Measure(f"growth/{key}", f"growth of length, {name}", "tokens", change, of, signed=True))
    slope_of = partial(incorrect_slope, view=view)
    measures += [
        Measure("slope", "slope of length, incorrect", "tokens", "in 100 steps, least squares", slope_of, signed=True),
        Measure("truncated", "responses cut at the limit", "share", final, at_end("length/truncated")),
    ]
    for key, name in {"": "all", "_correct": "correct", "_incorrect": "incorrect"}.items():
        of, title = evaluation(f"eval/length{key}"), f"held-out length, {name}"
        measures.append(Measure(f"eval/length{key}", title, "tokens", evaluated, of))
    for level in view.reach:
        meaning = "until the held-out accuracy first reached it"
        of = partial(tokens_to, level=level, view=view)
        measures.append(Measure(f"tokens/{level:g}", f"tokens to {100 * level:g}%", "count", meaning, of))
        of = partial(steps_to, level=level, view=view)
        measures.append(Measure(f"steps/{level:g}", f"steps to {100 * level:g}%", "steps", meaning, of))
    whole = f"training, to step {view.horizon}"
    return [
        *measures,
        Measure("tokens", "tokens generated", "count", whole, partial(tokens_at, view=view)),
        Measure("time", "time", "seconds", f"{whole}; evaluation and saving excluded", partial(seconds, view=view)),
    ]


# Of one run ------------------------------------------------------------------------------------------------------


def mean_over(run: Run, key: str, span: tuple[int, int]) -> float | None:
    """The mean over the steps of `span`, both ends included; of length/correct and the like over its responses."""
    inside = (run.steps >= span[0]) & (run.steps <= span[1])
    values, weights = _weighted(run, key, inside)
    return float(np.average(values, weights=weights)) if weights.any() else None


def last_evaluation(run: Run, key: str, horizon: int) -> float | None:
    """The metric at the last step up to the horizon that has it."""
    values = run.column(key)[run.steps <= horizon]
    values = values[~np.isnan(values)]
    return float(values[-1]) if len(values) else None


def incorrect_slope(run: Run, view: View) -> float | None:
    """Tokens that incorrect responses grow by in 100 steps: least squares to the horizon, weighted by responses."""
    inside = run.steps <= view.horizon
    known = inside & ~np.isnan(run.column("length/incorrect"))
    found = slope(run.steps[known].astype(float), *_weighted(run, "length/incorrect", inside))
    return None if found is None else 100 * found


def steps_to(run: Run, level: float, view: View) -> float | None:
    """Step at which the held-out accuracy first comes to `level`, on the line between evaluations."""
    inside = run.steps <= view.horizon
    return first_reach(run.steps[inside].astype(float), run.column("eval/accuracy")[inside], level)


def tokens_to(run: Run, level: float, view: View) -> float | None:
    """The same in response tokens generated in training."""
    inside = run.steps <= view.horizon
    return first_reach(run.tokens_spent[inside], run.column("eval/accuracy")[inside], level)


def tokens_at(run: Run, view: View) -> float | None:
    """Response tokens generated in training up to the horizon."""
    spent = run.tokens_spent[run.steps <= view.horizon]
    return _known(spent[-1]) if len(spent) else None


def seconds(run: Run, view: View) -> float | None:
    """Seconds of all steps up to the horizon."""
    taken = run.column("time/step")[(run.steps > 0) & (run.steps <= view.horizon)]
    return _known(taken.sum()) if len(taken) else None


def _weighted(run: Run, key: str, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The metric's values inside, and the responses that each is a mean of: 1 each where that is unknown."""
    known = inside & ~np.isnan(run.column(key))
    values = run.column(key)[known]
    weights = run.response_counts[key][known] if key in run.response_counts else np.ones(len(values))
    return values, np.ones(len(values)) if np.isnan(weights).any() else weights


def _within_run(of_seeds: Estimate | None, group: RunGroup, view: View) -> Estimate | None:
    if len(group.runs) > 1 or of_seeds is None:
        return of_seeds
    low, high = (last_evaluation(group.runs[0], f"eval/accuracy_{end}", view.horizon) for end in ("low", "high"))
    return Estimate(of_seeds.value, low, high)


def _possible(of_seeds: Estimate | None, measure: Measure) -> Estimate | None:
    """The interval, cut at what the quantity can be: a t interval of few seeds knows nothing of that."""
    if of_seeds is None or None in of_seeds or measure.signed or measure.kind == "reward":
        return of_seeds
    high = min(1.0, of_seeds.high) if measure.kind == "share" else of_seeds.high
    return Estimate(of_seeds.value, max(0.0, of_seeds.low), high)


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b
