"""A report: its tables on the console and as report.md, its numbers as summary.json."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from grpo.evaluation.measures import accuracy_by
from grpo.evaluation.pairing import Evaluated, PairedDifference
from grpo.evaluation.sections import Section, sections
from grpo.files import write_json, write_text
from grpo.intervals import Estimate

ESTIMATES = ("pass_at", "maj_at")
"""Measures that hold an estimate for each k."""


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


def summary(found: Sequence[Evaluated], differences: Sequence[PairedDifference]) -> dict[str, Any]:
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
    pairs = [
        {
            "where": one.where,
            "second": one.second,
            "first": one.first,
            "problems": one.problems,
            "difference": interval(one.difference.estimate),
            "p_value": one.difference.p_value,
            "verdict": one.verdict,
        }
        for one in differences
    ]
    return {"evaluations": evaluations, "comparisons": pairs}


def write_report(out: Path, found: Sequence[Evaluated], differences: Sequence[PairedDifference]) -> None:
    """`report.md` and `summary.json`, each whole or not at all; the folder is made."""
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "report.md", markdown(sections(found, differences)))
    write_json(out / "summary.json", summary(found, differences))
