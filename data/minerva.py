r"""Minerva: 272 problems of undergraduate science from MIT OpenCourseWare ("OCWCourses" of arXiv 2206.14858).

    load("test")[0]  ->  {"id": "minerva/0", "problem": "If the Bohr energy levels scale ...", "answer": "9.6"}

Licence CC BY-NC-SA 4.0: not for commercial use. An answer may be a list, any of which is right (40 rows of the local
folder's file). For `--eval-data`: it has one split, which is what every split's name gives.
"""

from __future__ import annotations

from pathlib import Path

from ._source import folder_rows, hub_rows

HUB_NAME, FILE = "math-ai/minervamath", "minerva.jsonl"
COLUMNS = ("id", "problem", "answer")


def load(split: str, data_dir: str | Path | None = None) -> list[dict]:
    """All 272 rows, whatever the split, from a folder or else from the hub; raises what these raise (`_source`)."""
    if data_dir is not None:
        return folder_rows(data_dir, FILE, COLUMNS)
    return [
        {"id": f"minerva/{i}", "problem": row["question"], "answer": row["answer"]}
        for i, row in enumerate(hub_rows(HUB_NAME, ("question", "answer"), split="test"))
    ]
