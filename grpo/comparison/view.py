"""How runs are looked at: up to which step, what "first" and "final" average over, how curves are smoothed.

The horizon is the last step that every run has reached, so that unequal runs are compared at equal steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from grpo.comparison.runs import Run
from grpo.errors import UserError


@dataclass(frozen=True)
class View:
    """How the runs are looked at."""

    horizon: int
    """Step up to which every quantity is taken."""
    edge: int
    """Steps at either end that "first" and "final" average over."""
    window: int
    """Steps of the centred running mean of the curves; odd."""
    band: str
    """`interval` or `range`, see seed_curves.band."""
    reach: tuple[float, ...]
    """Held-out accuracies whose price in tokens and steps is told."""
    evaluated: tuple[int, ...] = ()
    """Steps at which runs were last evaluated, up to the horizon; more than one where they differ."""

    @property
    def path_window(self) -> int:
        """The same for reward against length, where noise goes both ways."""
        return 3 * self.window if self.window > 1 else 1


def make_view(
    runs: Sequence[Run],
    *,
    until: int | None = None,
    final: float = 0.1,
    window: int | None = None,
    band: str = "interval",
    reach: Sequence[float] = (),
) -> View:
    """Fill in what is unset: the last step that all runs share, a window of a twentieth of the longest run, which the
    curves show whole, accuracies that some run reaches. Raises: UserError for values that no run can serve."""
    shared = min(run.last_step for run in runs)
    if until is not None and not 0 < until <= shared:
        raise UserError(
            f"--until {until} is not a step that every run has reached: the shortest run, "
            f"{min(runs, key=lambda run: run.last_step).name}, ends at {shared}."
        )
    if not 0 < final <= 0.5:
        raise UserError(
            f"--final {final} is the share of the steps that final values average over: above 0, up to 0.5."
        )
    if window is not None and window < 1:
        raise UserError(f"--smooth {window} is the number of steps of a running mean: 1 (none) or more.")
    if any(not 0 < level <= 1 for level in reach):
        raise UserError(f"--reach {' '.join(map(str, reach))}: accuracies are above 0 and up to 1, as in --reach 0.9.")
    horizon = until or shared
    window = window if window is not None else max(1, round(max(run.last_step for run in runs) / 20))
    levels = tuple(sorted(set(reach))) if reach else _default_reach(runs, horizon)
    ends = [run.steps[(run.steps <= horizon) & ~np.isnan(run.column("eval/accuracy"))] for run in runs]
    evaluated = tuple(sorted({int(steps[-1]) for steps in ends if len(steps)}))
    return View(horizon, max(1, math.ceil(final * horizon - 1e-9)), window | 1, band, levels, evaluated)


def _default_reach(runs: Sequence[Run], horizon: int) -> tuple[float, ...]:
    """The three highest of the usual levels that lie above every run's first accuracy and that some run reaches."""
    evaluated = [values[~np.isnan(values)] for values in (r.column("eval/accuracy")[r.steps <= horizon] for r in runs)]
    evaluated = [values for values in evaluated if len(values)]
    if not evaluated:
        return ()
    floor, top = max(values[0] for values in evaluated), max(values.max() for values in evaluated)
    usual = (0.05, *(i / 10 for i in range(1, 10)), 0.95, 0.99)
    return tuple(level for level in usual if floor < level <= top)[-3:]
