r"""AIME 2024: the 30 problems of both papers of the American Invitational Mathematics Examination, copyright MAA.

    load("test")[0]  ->  {"id": "aime24/0", "problem": "Every morning Aya goes for a ...", "answer": "204"}

Answers are integers from 000 to 999. For `--eval-data`: it has one split, which is what every split's name gives. Of 30
problems one is worth 3.3 points, so sample several responses to each.
"""

from __future__ import annotations

from pathlib import Path

from ._source import folder_rows, hub_rows

HUB_NAME, FILE = "HuggingFaceH4/aime_2024", "aime24.jsonl"
COLUMNS = ("id", "problem", "answer")


def load(split: str, data_dir: str | Path | None = None) -> list[dict]:
    """All 30 rows, whatever the split, from a folder or else from the hub; raises what these raise (`_source`)."""
    if data_dir is not None:
        return folder_rows(data_dir, FILE, COLUMNS)
    return [
        {"id": f"aime24/{i}", "problem": row["problem"], "answer": str(row["answer"])}
        for i, row in enumerate(hub_rows(HUB_NAME, ("problem", "answer"), split="train"))
    ]
