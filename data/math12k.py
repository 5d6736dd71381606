r"""MATH (arXiv 2103.03874) in the usual split of 12,000 training problems and the 500 of MATH-500 as test; MIT licence.

    load("train")[0]  ->  {"id": ..., "problem": "Let ... Find $a+b$ ...", "answer": "0", "level": 5,
                           "subject": "Algebra"}

The training problems are MATH's own 7,500 and the 4,500 of its test set that are not in MATH-500, as in "Let's Verify
Step by Step" (arXiv 2305.20050); the local folder has 11,965 of them. The answer is the content of the reference
solution's last `\boxed{}`, as published (`\frac43`, `11\sqrt2`, `\text{(C)}`); a row without one is left out, because
nothing could be verified. The level is 1 to 5, or None for the two problems whose level is unknown.
"""

from __future__ import annotations

from pathlib import Path

from ._source import folder_rows, hub_rows, of_split

HUB_NAME = "nlile/hendrycks-MATH-benchmark"
FILES = {"train": "math_train_12k.jsonl", "test": "math500.jsonl"}
COLUMNS = ("id", "problem", "answer", "level", "subject")


def load(split: str, data_dir: str | Path | None = None) -> list[dict]:
    """Rows of "train" or "test", from a folder or else from the hub; raises what these raise (`_source`)."""
    if data_dir is not None:
        return folder_rows(data_dir, of_split(FILES, split), COLUMNS, optional=("level",))
    return [
        {"id": row["unique_id"]} | {column: row[column] for column in COLUMNS[1:]}
        for row in hub_rows(HUB_NAME, ("unique_id", *COLUMNS[1:]), split=split)
        if row["answer"]
    ]
