r"""MATH-500: the 500 problems of MATH's test set that "Let's Verify Step by Step" (arXiv 2305.20050) evaluates on.

    load("test")[0]  ->  {"id": ..., "problem": "Convert the point $(0,3)$ ...", "level": 2, "subject": "Precalculus",
                          "answer": "\\left( 3, \\frac{\\pi}{2} \\right)"}

MIT licence. It is meant for `--eval-data`: it has one split, which is what every split's name gives. Trained on with
`--data math500`, its evaluation is contaminated, and the run says so at its start.
"""

from __future__ import annotations

from pathlib import Path

from ._source import folder_rows, hub_rows

HUB_NAME, FILE = "HuggingFaceH4/MATH-500", "math500.jsonl"
COLUMNS = ("id", "problem", "answer", "level", "subject")


def load(split: str, data_dir: str | Path | None = None) -> list[dict]:
    """All 500 rows, whatever the split, from a folder or else from the hub; raises what these raise (`_source`)."""
    if data_dir is not None:
        return folder_rows(data_dir, FILE, COLUMNS)
    return [
        {"id": row["unique_id"]} | {column: row[column] for column in COLUMNS[1:]}
        for row in hub_rows(HUB_NAME, ("unique_id", *COLUMNS[1:]), split="test")
    ]
