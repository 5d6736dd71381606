r"""Countdown: make a target out of three or four numbers by arithmetic, the task of TinyZero; Apache-2.0 licence.

    load("test")[0]  ->  {"id": "countdown/test/0", "nums": [47, 76, 55, 60], "target": 24,
                          "problem": "Using each of the numbers 47, 76, 55, 60 exactly once, write ..."}

There is no `answer`: many are right, and the verifier `countdown` judges by `nums` and `target`. The hub's set has one
split, of which TinyZero trains on the first 327,680 rows and tests on the next 1,024. Here test is the same, and train
the first 65,536 rows, more than 500 steps of 128 problems draw. The local folder has 10,240 and 1,024 rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ._source import folder_rows, hub_rows, of_split

REWARD = ("countdown",)
HUB_NAME = "Jiayi-Pan/Countdown-Tasks-3to4"
HUB_SPLITS = {"train": "train[:65536]", "test": "train[327680:328704]"}
FILES = {"train": "countdown_train.jsonl", "test": "countdown_test.jsonl"}


def load(split: str, data_dir: str | Path | None = None) -> list[dict]:
    """Rows of "train" or "test", from a folder or else from the hub; raises what these raise (`_source`)."""
    if data_dir is not None:
        rows = folder_rows(data_dir, of_split(FILES, split), ("id", "nums", "target"))
    else:
        found = hub_rows(HUB_NAME, ("nums", "target"), split=of_split(HUB_SPLITS, split))
        rows = [{"id": f"countdown/{split}/{i}"} | row for i, row in enumerate(found)]
    return [row | {"problem": problem(row["nums"], row["target"])} for row in rows]


def problem(nums: Sequence[int], target: int) -> str:
    """The task in words, with what the verifier asks of a response."""
    return (
        f"Using each of the numbers {', '.join(map(str, nums))} exactly once, write an expression equal to {target}. "
        r"You may use +, -, *, / and brackets. Put the expression in \boxed{}, as in \boxed{(1 + 2) / 3}."
    )
