"""Evaluations -> the tables of a report, each with what has to be known to read it.

A table's first columns name the evaluation (model, data, template, decoding, or a file); a name that is the same in all
of them stands once, above the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from grpo.evaluation.measures import accuracy_by
from grpo.evaluation.pairing import Evaluated, PairedDifference
from grpo.intervals import Estimate

ABSENT = "–"


@dataclass(frozen=True)
class Section:
    """A table with its title, and what has to be known to read it."""

    title: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str]


def sections(found: Sequence[Evaluated], differences: Sequence[PairedDifference]) -> list[Section]:
    """The whole report."""
    parts = [main_section(found)]
    for column in ("level", "subject"):
        parts += breakdowns(found, column)
    return parts + ([differences_section(differences)] if differences else [])


def main_section(found: Sequence[Evaluated]) -> Section:
    """A line an evaluation: accuracy with its interval, pass@k, maj@k, lengths, what was cut."""
    shared, names = split_names(found)
    measures = [one.measures for one in found]
    ks = sorted({k for one in measures for k in one.pass_at})
    votes = [k for k in ks if any(k in one.maj_at for one in measures)]
    failed = any(one.failures for one in measures)
    header = [*names, "problems", "n", "accuracy (avg@n)", *(f"pass@{k}" for k in ks), *(f"maj@{k}" for k in votes)]
    header += ["truncated", "tokens", "correct", "incorrect", *(["failures"] if failed else [])]
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
        "incorrect. Tokens: mean length of all, of correct and of incorrect responses."
    ]
    if ks:
        notes.append("pass@k: the chance that k responses hold a correct one, unbiased (Chen et al. 2021).")
    if votes:
        notes.append("maj@k: the most frequent answer is correct; answers are the same where their text is.")
    if any(set(one.pass_at) - set(one.maj_at) for one in measures):
        notes.append("No maj@k where the verifier's file has no final_answer, or no response has an answer.")
    if failed:
        notes.append("Failures: responses on which the verifier raised or timed out. They count as incorrect.")
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


def differences_section(differences: Sequence[PairedDifference]) -> Section:
    """A line a difference: in points, how sure it is, and whether it is more than noise."""
    places = any(one.where for one in differences)
    rows = []
    for one in differences:
        estimate = one.difference.estimate
        rows.append(
            [
                *([one.where] if places else []),
                f"{one.second} − {one.first}",
                str(one.problems),
                points(estimate),
                f"{one.difference.p_value:.4f}",
                one.verdict,
            ]
        )
    notes = [
        "Difference of accuracy in points on the problems that both have, paired, with its 95% bootstrap interval; p "
        "from a two-sided sign-flip permutation test. Within noise: p is 0.05 or more, so that chance alone would do.",
    ]
    if len(differences) > 1:
        notes.append(
            f"{len(differences)} differences: the p-values are not corrected for their number, and at this level one "
            "in twenty is called higher or lower by chance."
        )
    if any("best templates" in one.where for one in differences):
        notes.append("Best templates are chosen by the accuracy that is shown, which flatters both models a little.")
    header = [*(["where"] if places else []), "difference", "problems", "points", "p", "reading"]
    return Section("Differences from the first", header, rows, notes)


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
