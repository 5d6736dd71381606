"""Evaluations under their names, and the differences between them on the problems that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from grpo.errors import UserError
from grpo.evaluation.measures import Measures, measure
from grpo.evaluation.results import ProblemResult
from grpo.intervals import Difference, paired_difference


@dataclass(frozen=True)
class Evaluated:
    """One evaluation and its names."""

    names: dict[str, str]
    results: list[ProblemResult]
    measures: Measures
    settings: dict[str, Any] = field(default_factory=dict)
    dropped: int = 0


@dataclass(frozen=True)
class PairedDifference:
    """Second less first, each the title of an evaluation, on what they share."""

    where: str
    second: str
    first: str
    problems: int
    """How many both have."""
    difference: Difference

    @property
    def verdict(self) -> str:
        """`higher`, `lower`, or `within noise` where chance alone makes such a difference more than once in twenty."""
        if not self.difference.clear:
            return "within noise"
        return "higher" if self.difference.estimate.value > 0 else "lower"


def evaluated(names: dict[str, str], results: list[ProblemResult], ks: Sequence[int] | None, **more: Any) -> Evaluated:
    """One evaluation, measured."""
    return Evaluated(names, results, measure(results, ks), **more)


def file_differences(found: Sequence[Evaluated]) -> list[PairedDifference]:
    """Each file less the first. Raises: UserError where two have no problem in common."""
    first, *others = found
    differences = []
    for other in others:
        shared = paired(first.results, other.results)
        if shared is None:
            raise UserError(
                f"{other.names['file']} and {first.names['file']} have no problem in common (same prompt and same gold "
                "answer), so they have no difference. Give results on the same data."
            )
        differences.append(PairedDifference("", other.names["file"], first.names["file"], *shared))
    return differences


def model_differences(found: Sequence[Evaluated]) -> list[PairedDifference]:
    """Each model less the first, on the same set, template and decoding; then each under its own best template.

    What a model gains by training is what it gains over the base under the template that suits the base, not over the
    base under a template that it does not understand.
    """
    differences = []
    cells = {tuple(one.names.values()): one for one in found}
    models = list(dict.fromkeys(one.names["model"] for one in found))
    for second in models[1:]:
        for model, data, template, decoding in cells:
            if model == second:
                pair = cells[models[0], data, template, decoding], cells[model, data, template, decoding]
                where = f"{data}, {template}, {decoding}"
                differences += _shared(where, second, models[0], *pair)
        for data, decoding in dict.fromkeys((one.names["data"], one.names["decoding"]) for one in found):
            base, other = (_best([o for o in found if _at(o, m, data, decoding)]) for m in (models[0], second))
            if base.names["template"] != other.names["template"]:
                titles = [f"{one.names['model']} ({one.names['template']})" for one in (other, base)]
                differences += _shared(f"{data}, best templates, {decoding}", *titles, base, other)
    return differences


def paired(first: Sequence[ProblemResult], second: Sequence[ProblemResult]) -> tuple[int, Difference] | None:
    """How many problems both have, and on them the accuracy of the second less that of the first; None for no problem.

    Problems are the same where prompt and gold answer are. The numbers of responses may differ.
    """
    one, other = _by_problem(first), _by_problem(second)
    shared = [key for key in one if key in other]
    if not shared:
        return None
    problems = [problem for problem, _ in shared]
    return len(shared), paired_difference([one[key] for key in shared], [other[key] for key in shared], problems)


def _by_problem(results: Sequence[ProblemResult]) -> dict[tuple[str, int], float]:
    seen: dict[str, int] = {}
    found = {}
    for result in results:
        seen[result.key] = seen.get(result.key, 0) + 1
        found[result.key, seen[result.key]] = result.accuracy  # a set that asks the same twice is paired in order
    return found


def _shared(where: str, second: str, first: str, one: Evaluated, other: Evaluated) -> list[PairedDifference]:
    shared = paired(one.results, other.results)
    return [] if shared is None else [PairedDifference(where, second, first, *shared)]


def _at(one: Evaluated, model: str, data: str, decoding: str) -> bool:
    return (one.names["model"], one.names["data"], one.names["decoding"]) == (model, data, decoding)


def _best(found: Sequence[Evaluated]) -> Evaluated:
    return max(found, key=lambda one: one.measures.accuracy.value)
