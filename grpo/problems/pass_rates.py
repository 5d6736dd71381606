"""How often a model solves each problem, as `grpo.evaluate` has measured it, and the problems that are worth a step.

    rates = read_pass_rates(Path("evaluations/before/tiny--arithmetic--chat--sampled.jsonl"))
    kept = keep(rows, rates, low=0.1, high=0.9)

A problem that is always solved, or never, teaches nothing: its group has equal rewards.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grpo.errors import UserError
from grpo.files import read_jsonl

ADVICE = (
    "Give a file of results on the problems that are trained on: python -m grpo.evaluate --split train --model MODEL "
    "--data DATA --no-greedy --out FOLDER writes one into FOLDER."
)


@dataclass(frozen=True)
class Kept:
    """Rows within the limits, and why the others are not there."""

    rows: list[dict[str, Any]]
    easier: int
    """Above the upper limit."""
    harder: int
    """Below the lower limit."""
    unmeasured: int
    """Not in the file."""

    def __str__(self) -> str:
        of = len(self.rows) + self.easier + self.harder + self.unmeasured
        return (
            f"{len(self.rows)} of {of} problems kept by pass rate; {self.harder} are harder, {self.easier} easier, "
            f"{self.unmeasured} not measured"
        )


def problem_key(prompt: Any, answer: Any) -> str:
    """A problem is the same where prompt (text or messages) and gold answer are."""
    return json.dumps([prompt, answer], default=str)


def read_pass_rates(path: Path) -> dict[str, float]:
    """Key of a problem -> the share of its responses that are correct. Raises: UserError for what is no such file."""
    rates = dict(read_jsonl(path, _rate, what="a result of an evaluation", advice=ADVICE, errors="surrogatepass"))
    if not rates:
        raise UserError(f"--pass-rates {path} is empty. {ADVICE}")
    return rates


def keep(rows: Sequence[dict[str, Any]], rates: Mapping[str, float], low: float, high: float) -> Kept:
    """The rows whose pass rate is from `low` to `high`, both included, in their order."""
    found = [rates.get(problem_key(row["problem"], row.get("answer"))) for row in rows]
    return Kept(
        rows=[row for row, rate in zip(rows, found, strict=True) if rate is not None and low <= rate <= high],
        easier=sum(rate is not None and rate > high for rate in found),
        harder=sum(rate is not None and rate < low for rate in found),
        unmeasured=found.count(None),
    )


def _rate(row: dict[str, Any]) -> tuple[str, float]:
    correct = [response["correct"] for response in row["responses"]]
    if not correct or any(each not in (True, False) for each in correct):
        raise ValueError("its responses do not say whether they are correct")
    return problem_key(row["prompt"], row["answer"]), sum(correct) / len(correct)
