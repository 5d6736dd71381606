"""The folder of a run over comparisons: config.json, metrics.jsonl (a line an update), report.json; and its order.

for update, (epoch, rows) in enumerate(passes(count=100, size=32, epochs=2, seed=0), start=1): ...
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from grpo.errors import RunError
from grpo.files import append_jsonl, write_json
from grpo.preference_flags import PreferenceFlags

MAX_SKIPPED = 3
"""Skipped updates in a row that end a run, as in training."""
SAID = 10
"""Lines that a pass over the data prints."""


class Journal:
    """What is written and said."""

    def __init__(self, options: PreferenceFlags) -> None:
        self.folder = options.run_folder
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "config.json", asdict(options))
        self.started = time.perf_counter()

    def say(self, text: str) -> None:
        print(text, flush=True)

    def log(self, metrics: dict[str, Any], updates: int, skipped_in_a_row: float = 0.0) -> None:
        """A line of metrics.jsonl; some of them are shown. Raises: RunError where updates are skipped."""
        append_jsonl(self.folder / "metrics.jsonl", [metrics | {"time": time.perf_counter() - self.started}])
        if metrics["update"] % max(1, updates // SAID) == 0 or metrics["update"] in (0, updates):
            shown = " ".join(
                f"{name} {value:.4g}" for name, value in metrics.items() if value is not None and name != "update"
            )
            self.say(f"update {metrics['update']}/{updates}: {shown}")
        if skipped_in_a_row >= MAX_SKIPPED:
            raise RunError(
                f"{MAX_SKIPPED} updates in a row had a NaN or infinite number in them and were skipped. Most often "
                "--learning-rate is too high."
            )


def count_updates(count: int, size: int, epochs: int) -> int:
    """Updates of `epochs` passes over `count` things, `size` in each."""
    return math.ceil(count / size) * epochs


def passes(count: int, size: int, epochs: int, seed: int) -> Iterator[tuple[int, list[int]]]:
    """(epoch from 1, indices of an update), shuffled for each pass; the last update of a pass may be smaller."""
    for epoch in range(1, epochs + 1):
        order = list(range(count))
        random.Random(f"{seed}/{epoch}").shuffle(order)
        for start in range(0, count, size):
            yield epoch, order[start : start + size]
