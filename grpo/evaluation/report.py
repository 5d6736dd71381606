"""Evaluations -> tables: on the console, as report.md, and as numbers in summary.json. Pure but for `write_report`.

A table's first columns name the evaluation (model, data, template, decoding, or a file); a name that is the same in all
of them stands once, above the table.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from grpo.evaluation import accuracy_by
from grpo.evaluation.intervals import Estimate
from grpo.evaluation.pairing import Comparison, Evaluated
from grpo.files import write_json, write_text

ABSENT = "–"


@dataclass(frozen=True)
class Section:
    """A table with its title, and what has to be known to read it."""

    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str]


# Tables ----------------------------------------------------------------------------------------------------------


def sections(found: Sequence[Evaluated], comparisons: Sequence[Comparison]) -> list[Section]:
    """The whole report."""
    parts = [main_section(found)]
    for column in ("level", "subject"):
        parts += breakdowns(found, column)
    return parts + ([comparison_section(comparisons)] if comparisons else [])


def main_section(found: Sequence[Evaluated]) -> Section:
    """A line an evaluation: accuracy with its interval, pass@k, maj@k, lengths, what was cut."""
    shared, names = split_names(found)
    measures = [one.measures for one in found]
    ks = sorted({k for one in measures for k in one.pass_at})
    votes = [k for k in ks if any(k in one.maj_at for one in measures)]
    failed = any(one.failures for one in measures)
    header = [*names, "problems", "n", "accuracy (avg@n)", *(f"pass@{k}" for k in ks), *(f"maj@{k}" for k in votes)]
    header += ["truncated", "tokens", "right", "wrong", *(["failures"] if failed else [])]
    rows = [
        [
            *(one.names[name] for name in names),
            str(one.measures.problems),
            str(one.measures.responses),
            percent(one.measures.accuracy),
            *(percent(one.measures.pass_at.get(k)) for k in ks),
            *(percent(one.measures.maj_at.get(k)) for k in votes),
            f"{one.measures.truncated:.1%}",
            *(number(getattr(one.measures, name)) for name in ("length", "length_correct", "length_incorrect")),
            *([str(one.measures.failures)] if failed else []),
        ]
        for one in found
    ]
    notes = [
        "Accuracy in %, with the 95% interval of a bootstrap over problems. n responses a problem; a truncated one is "
        "wrong. Tokens: mean length of all, of right and of wrong responses."
    ]
    if ks:
        notes.append("pass@k: the chance that k responses hold a right one, unbiased (Chen et al. 2021).")
    if votes:
        notes.append("maj@k: the most frequent answer is right; answers are the same where their text is.")
    if any(set(one.pass_at) - set(one.maj_at) for one in measures):
        notes.append("No maj@k where the verifier's file has no final_answer, or no response has an answer.")
    if failed:
        notes.append("Failures: responses on which the verifier raised or timed out. They count as wrong.")
    autos = {one.names["model"]: one.settings["template"] for one in found if one.names.get("template") == "auto"}
    if autos:
        notes.append("Template auto: " + ", ".join(f"{model}: {template}" for model, template in autos.items()) + ".")
    told = [name for name in names if name != "decoding"]  # which leaves out nothing
    dropped = {", ".join(one.names[name] for name in told): one.dropped for one in found if one.dropped}
    if dropped:
        listed = "; ".join(f"{label}: {count}" if label else str(count) for label, count in dropped.items())
        notes.append(f"Problems left out because their prompts are longer than --max-prompt-tokens: {listed}.")
    return Section("Results" + (f": {shared}" if shared else ""), header, rows, notes)


def breakdowns(found: Sequence[Evaluated], column: str) -> list[Section]:
    """Accuracy by level or by subject, a table a data set that has them."""
    parts = []
    for data in dict.fromkeys(one.names.get("data", "") for one in found):
        group = [one for one in found if one.names.get("data", "") == data]
        by = [accuracy_by(one.results, column) for one in group]
        ordered = sorted({value for one in by for value in one}, key=lambda value: (isinstance(value, str), value))
        if len(ordered) < 2:
            continue
        counts = {value: sorted({one[value][0] for one in by if value in one}) for value in ordered}
        shared, names = split_names(group)
        rows = [
            [*(one.names[name] for name in names), *(percent(cells[v][1] if v in cells else None) for v in ordered)]
            for one, cells in zip(group, by, strict=True)
        ]
        header = [*names, *(f"{value} ({' or '.join(map(str, counts[value]))})" for value in ordered)]
        parts.append(
            Section(f"Accuracy by {column}" + (f": {shared}" if shared else ""), header, rows, ["(number of problems)"])
        )
    return parts


def comparison_section(comparisons: Sequence[Comparison]) -> Section:
    """A line a comparison: the difference in points, how sure it is, and whether it is more than noise."""
    places = any(one.where for one in comparisons)
    rows = []
    for one in comparisons:
        estimate = one.difference.estimate
        rows.append(
            [
                *([one.where] if places else []),
                f"{one.second} − {one.first}",
                str(one.difference.problems),
                points(estimate),
                f"{one.difference.p_value:.4f}",
                one.difference.verdict,
            ]
        )
    notes = [
        "Difference of accuracy in points on the problems that both have, paired, with its 95% bootstrap interval; p "
        "from a two-sided sign-flip permutation test. Within noise: p is 0.05 or more, so that chance alone would do.",
    ]
    if len(comparisons) > 1:
        notes.append(
            f"{len(comparisons)} comparisons: the p-values are not corrected for their number, and at this level one "
            "in twenty is called a difference by chance."
        )
    if any("best templates" in one.where for one in comparisons):
        notes.append("Best templates are chosen by the accuracy that is shown, which flatters both models a little.")
    header = [*(["where"] if places else []), "difference", "problems", "points", "p", "reading"]
    return Section("Compared with the first", header, rows, notes)


def split_names(found: Sequence[Evaluated]) -> tuple[str, list[str]]:
    """What is the same in all (as text), and the names that differ; of a single evaluation, all are the same."""
    names = list(found[0].names)
    differ = [name for name in names if any(a.names[name] != b.names[name] for a, b in pairwise(found))]
    return ", ".join(f"{name} {found[0].names[name]}" for name in names if name not in differ), differ


def percent(estimate: Estimate | None) -> str:
    """`57.9 [55.1, 60.6]`"""
    if estimate is None:
        return ABSENT
    low, high = estimate.low, estimate.high
    interval = "" if low is None or high is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * estimate.value:.1f}{interval}"


def points(estimate: Estimate) -> str:
    """`+3.1 [-0.4, +6.6]`"""
    low, high = estimate.low, estimate.high
    interval = "" if low is None or high is None else f" [{100 * low:+.1f}, {100 * high:+.1f}]"
    return f"{100 * estimate.value:+.1f}{interval}"


def number(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.1f}"


# Writing ---------------------------------------------------------------------------------------------------------


def print_report(parts: Sequence[Section], console: Console) -> None:
    """Tables on the console."""
    for part in parts:
        console.print(part.title, highlight=False, markup=False, soft_wrap=True, style="bold")  # as wide as it is
        table = Table(*(Column(escape(name), overflow="fold") for name in part.header))
        for row in part.rows:
            table.add_row(*map(escape, row))
        console.print(table)
        console.print("\n".join(part.notes) + "\n", highlight=False, markup=False, soft_wrap=True, style="dim")


def markdown(parts: Sequence[Section]) -> str:
    """The same as a page."""
    lines = ["# Evaluation"]
    for part in parts:
        table = [part.header, ["---"] * len(part.header), *part.rows]
        lines += ["", f"## {_plain(part.title)}", ""]
        lines += ["| " + " | ".join(map(_plain, row)) + " |" for row in table]
        lines += ["", *(f"{note}  " for note in part.notes)]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """A name from the data, as it is: on one line, and with no mark-up that a page would act on."""
    return re.sub(r"([\\|<`])", r"\\\1", " ".join(text.split()))


def summary(found: Sequence[Evaluated], comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """Every number of the report, shares in 0..1."""

    def interval(estimate: Estimate) -> dict[str, float | None]:
        return estimate._asdict()

    evaluations = []
    for one in found:
        measures = asdict(one.measures)
        measures["accuracy"] = interval(one.measures.accuracy)
        measures |= {name: {k: interval(e) for k, e in getattr(one.measures, name).items()} for name in ESTIMATES}
        for column in ("level", "subject"):
            by = accuracy_by(one.results, column)
            measures[f"by_{column}"] = {str(v): {"problems": count, **interval(e)} for v, (count, e) in by.items()}
        evaluations.append({**one.names, "dropped": one.dropped, **measures, "settings": one.settings})
    compared = [
        {
            "where": one.where,
            "second": one.second,
            "first": one.first,
            "problems": one.difference.problems,
            "difference": interval(one.difference.estimate),
            "p_value": one.difference.p_value,
            "verdict": one.difference.verdict,
        }
        for one in comparisons
    ]
    return {"evaluations": evaluations, "comparisons": compared}


ESTIMATES = ("pass_at", "maj_at")
"""Measures that hold an estimate for each k."""


def write_report(out: Path, found: Sequence[Evaluated], comparisons: Sequence[Comparison]) -> None:
    """`report.md` and `summary.json`, each whole or not at all; the folder is made."""
    write_text(out / "report.md", markdown(sections(found, comparisons)))
    write_json(out / "summary.json", summary(found, comparisons))
