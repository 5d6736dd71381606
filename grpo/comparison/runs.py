"""Run folders -> runs: the rows of metrics.jsonl and, where there is one, config.json.

    >>> run = read_run(Path("runs/first"))
    >>> run.steps, run.column("length/incorrect")  # [N] each; NaN where a step has none
    (array([0, 1, 2]), array([nan, 12.8, 13.5]))

N rows, one a step. Nothing but metrics.jsonl is needed, and nothing heavy is loaded.
"""

from __future__ import annotations

import glob
import math
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from grpo.errors import UserError
from grpo.files import read_json, read_jsonl

METRICS_FILE = "metrics.jsonl"


@dataclass(frozen=True)
class Run:
    """One run as it was logged."""

    folder: Path
    rows: tuple[dict[str, Any], ...]
    """By step, each step once."""
    config: dict[str, Any] | None = None
    """config.json; None where the folder has none."""
    partial: bool = False
    """Whether the last line is incomplete: the run is being written, or was cut off."""

    @property
    def name(self) -> str:
        return os.fsencode(self.folder.resolve().name).decode("utf-8", "replace")

    @cached_property
    def steps(self) -> np.ndarray:
        """[N] int."""
        return np.array([row["step"] for row in self.rows])

    @property
    def last_step(self) -> int:
        return int(self.steps[-1])

    def column(self, key: str) -> np.ndarray:
        """[N] a metric by row; NaN where it is absent, null or not finite."""
        return np.array([_number(row.get(key)) for row in self.rows])

    @cached_property
    def tokens_spent(self) -> np.ndarray:
        """[N] response tokens generated in training up to and with each row's step; NaN from the first gap on.

        Those of groups that dynamic sampling has dropped are spent as well.
        """
        tokens = self.column("tokens") + np.nan_to_num(self.column("tokens_dropped"))
        return np.cumsum(np.where((self.steps == 0) & np.isnan(tokens), 0.0, tokens))

    @cached_property
    def response_counts(self) -> dict[str, np.ndarray]:
        """[N] how many responses each step's `length/correct` and `length/incorrect` are the mean of.

        Solved from the step's own numbers: tokens / mean length responses in all, and of the share q that is incorrect
        mean = (1 - q) * correct + q * incorrect. Where the two lengths are equal q is taken from the neighbouring
        steps; where a metric is missing the counts are NaN.
        """
        total, mean = self.column("tokens") / self.column("length/mean"), self.column("length/mean")
        correct, incorrect = self.column("length/correct"), self.column("length/incorrect")
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(np.abs(incorrect - correct) > 1e-3, (mean - correct) / (incorrect - correct), np.nan)
        share[np.isnan(incorrect) & ~np.isnan(correct)] = 0.0
        share[np.isnan(correct) & ~np.isnan(incorrect)] = 1.0
        solved, equal = ~np.isnan(share), ~np.isnan(correct) & ~np.isnan(incorrect)
        if solved.any():
            share[equal & ~solved] = np.interp(self.steps, self.steps[solved], share[solved])[equal & ~solved]
        count = np.round(total * share.clip(0.0, 1.0))
        return {"length/correct": np.round(total) - count, "length/incorrect": count}


def find_runs(arguments: Sequence[str]) -> list[Path]:
    """Run folders, their metrics.jsonl, folders of runs and glob patterns -> run folders, each once, in order.

    Raises: UserError for an argument with no run behind it.
    """
    found: dict[Path, Path] = {}
    for argument in arguments:
        folders = list(_folders(argument))
        if not folders:
            raise UserError(
                f"There is no run at {argument}: a run is a folder with a {METRICS_FILE}, such as runs/NAME. Give run "
                "folders, a folder that holds them, or a quoted pattern such as 'runs/grpo-*'."
            )
        for folder in folders:
            found.setdefault(folder.resolve(), folder)
    if not found:
        raise UserError("Name the runs to compare: python -m grpo.compare runs/a runs/b.")
    return list(found.values())


def read_run(folder: Path) -> Run:
    """Read what a run has written so far. Raises: UserError for a file that is no metrics.jsonl."""
    rows: dict[int, dict[str, Any]] = {}
    torn: list[bytes] = []
    read = read_jsonl(
        folder / METRICS_FILE,
        _with_step,
        what="a row of metrics: a JSON object with a whole number `step`",
        advice="Remove the line, or leave the run out.",
        errors="surrogatepass",
        torn=torn,
    )
    for row in read:
        rows[row["step"]] = rows.get(row["step"], {}) | row  # of a step made twice the later values count
    config = _config(folder / "config.json")
    return Run(folder, tuple(rows[step] for step in sorted(rows)), config, partial=bool(torn))


def samples(run: Run) -> list[dict[str, Any]]:
    """The rows of samples.jsonl; none where the run has none. Raises: UserError for a line that is no sample."""
    path = run.folder / "samples.jsonl"
    if not path.is_file():
        return []
    return read_jsonl(
        path,
        _with_step,
        what="a response with its `step`",
        advice="Remove the line, or the file: metrics.jsonl alone is enough.",
        errors="replace",
        torn=[],
    )


def _with_step(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"step": int(row["step"])}


def _folders(argument: str) -> Iterable[Path]:
    path = Path(argument)
    if path.name == METRICS_FILE and path.is_file():
        return [path.parent]
    if (path / METRICS_FILE).is_file():
        return [path]
    inside = path.iterdir() if path.is_dir() else map(Path, glob.glob(argument))
    return sorted(folder for folder in inside if (folder / METRICS_FILE).is_file())


def _config(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    config = read_json(path, "Mend or remove it: metrics.jsonl alone is enough.")
    return config if isinstance(config, dict) else None


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and abs(value) <= sys.float_info.max else math.nan
