"""Evaluations under their names, and which of them are compared with which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from grpo.errors import UserError
from grpo.evaluation import Measures, compare, measure
from grpo.evaluation.intervals import Difference
from grpo.evaluation.results import ProblemResult


@dataclass(frozen=True)
class Evaluated:
    """One evaluation and its names."""

    names: dict[str, str]
    results: list[ProblemResult]
    measures: Measures
    settings: dict[str, Any] = field(default_factory=dict)
    dropped: int = 0


@dataclass(frozen=True)
class Comparison:
    """Second less first, each the title of an evaluation, on what they share."""

    where: str
    second: str
    first: str
    difference: Difference


def evaluated(names: dict[str, str], results: list[ProblemResult], ks: Sequence[int] | None, **more: Any) -> Evaluated:
    """One evaluation, measured."""
    return Evaluated(names, results, measure(results, ks), **more)


def compare_files(found: Sequence[Evaluated]) -> list[Comparison]:
    """Each file with the first. Raises: UserError where two have no problem in common."""
    first, *others = found
    comparisons = []
    for other in others:
        difference = compare(first.results, other.results)
        if difference is None:
            raise UserError(
                f"{other.names['file']} and {first.names['file']} have no problem in common (same prompt and same gold "
                "answer), so there is nothing to compare. Give results on the same data."
            )
        comparisons.append(Comparison("", other.names["file"], first.names["file"], difference))
    return comparisons


def compare_models(found: Sequence[Evaluated]) -> list[Comparison]:
    """Each model with the first, on the same set, template and decoding; then each under its own best template.

    What a model gains by training is what it gains over the base under the template that suits the base, not over the
    base under a template that it does not understand.
    """
    comparisons = []
    cells = {tuple(one.names.values()): one for one in found}
    models = list(dict.fromkeys(one.names["model"] for one in found))
    for second in models[1:]:
        for model, data, template, decoding in cells:
            if model == second:
                pair = cells[models[0], data, template, decoding], cells[model, data, template, decoding]
                where = f"{data}, {template}, {decoding}"
                comparisons += _comparison(where, second, models[0], *pair)
        for data, decoding in dict.fromkeys((one.names["data"], one.names["decoding"]) for one in found):
            base, other = (_best([o for o in found if _at(o, m, data, decoding)]) for m in (models[0], second))
            if base.names["template"] != other.names["template"]:
                titles = [f"{one.names['model']} ({one.names['template']})" for one in (other, base)]
                comparisons += _comparison(f"{data}, best templates, {decoding}", *titles, base, other)
    return comparisons


def _comparison(where: str, second: str, first: str, one: Evaluated, other: Evaluated) -> list[Comparison]:
    difference = compare(one.results, other.results)
    return [] if difference is None else [Comparison(where, second, first, difference)]


def _at(one: Evaluated, model: str, data: str, decoding: str) -> bool:
    return (one.names["model"], one.names["data"], one.names["decoding"]) == (model, data, decoding)


def _best(found: Sequence[Evaluated]) -> Evaluated:
    return max(found, key=lambda one: one.measures.accuracy.value)
