"""What wandb shows beside the curves: a table of samples and a chart of lengths that stay small however long the run.

Every sample of a run is added; the table has those that are spread evenly over its steps:

    samples = Thinned()
    samples.add({"step": 1, "prompt": ...})
    run.log(sample_table(samples.rows))

Longer texts than CELL_CHARACTERS lose their middle. samples.jsonl has all of them whole.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from grpo.logs.metric_names import Metrics

PICTURES: dict[str, str] = {
    "samples": "wandb only: table of responses with prompt, answer, reward, advantage and every verifier's reward, "
    "spread over the run; samples.jsonl has them all",
    "length/by_outcome": "wandb only: length/correct and length/incorrect in one chart, spread over the run",
}
"""What wandb gets beside the metrics. Each upload holds the run so far and takes the place of the one before."""

PICTURE_ROWS = 300
"""Rows that a picture has room for."""

CELL_CHARACTERS = 2000
"""Of a text in the table; a longer one loses its middle, and says so."""


class Thinned:
    """Rows spread evenly over the steps of a run whose length nobody knows: at most PICTURE_ROWS, or two steps'
    where these are more.

    Where the room is full, every other step goes. The first step stays: it is the untrained model.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.stride = 1

    def add(self, row: dict[str, Any]) -> None:
        """Keep the row if its step's turn has come."""
        if self._in_turn(row):
            self.rows.append(row)
        while len(self.rows) > PICTURE_ROWS and self.stride < row["step"]:
            self.stride *= 2
            self.rows = [row for row in self.rows if self._in_turn(row)]

    def _in_turn(self, row: dict[str, Any]) -> bool:
        return row["step"] <= 1 or row["step"] % self.stride == 0


def sample_table(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`samples`, one row each: texts cut to CELL_CHARACTERS, and a column for each verifier."""
    import wandb

    if not samples:
        return {}
    verifiers = list(dict.fromkeys(name for sample in samples for name in sample["verifiers"]))
    columns = ["step", "prompt", "response", "answer", "reward", "advantage", "truncated"]
    columns += [f"reward/{name}" for name in verifiers]
    cells = [
        [
            sample["step"],
            *(cell(text) for text in (sample["prompt"], sample["response"], sample["columns"].get("answer"))),
            *(number(sample[name]) for name in ("reward", "advantage")),
            sample["truncated"],
            *(number(sample["verifiers"].get(name)) for name in verifiers),
        ]
        for sample in samples
    ]
    return {"samples": wandb.Table(columns=columns, data=cells)}


def length_chart(rows: Sequence[Metrics]) -> dict[str, Any]:
    """`length/by_outcome`: the two curves whose distance tells a length bias, against the step."""
    from wandb.plot import line_series

    names = ("length/correct", "length/incorrect")
    curves = {name: [(row["step"], row[name]) for row in rows if row.get(name) is not None] for name in names}
    curves = {name: points for name, points in curves.items() if points}
    if not curves:
        return {}
    chart = line_series(
        xs=[[step for step, _ in points] for points in curves.values()],
        ys=[[length for _, length in points] for points in curves.values()],
        keys=[name.removeprefix("length/") for name in curves],
        title="mean length in tokens, correct and incorrect responses",
        xname="step",
        split_table=True,
    )
    return {"length/by_outcome": chart}


def cell(value: Any) -> str | None:
    """A text for the table: messages as `role: content`, anything else as JSON, the middle cut out of what is long."""
    if value is None:
        return None
    if isinstance(value, list) and value and all(isinstance(part, dict) and "content" in part for part in value):
        value = "\n\n".join(f"{part.get('role')}: {part['content']}" for part in value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    if len(text) > CELL_CHARACTERS:
        half = CELL_CHARACTERS // 2
        text = f"{text[:half]}\n[... {len(text) - 2 * half} characters cut, see samples.jsonl ...]\n{text[-half:]}"
    return text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates are no text to a server


def number(value: float | None) -> float | None:
    """None for what is no number: a verifier that does not apply, or NaN, which JSON has not."""
    return None if value is None or not math.isfinite(value) else float(value)
