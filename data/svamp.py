r"""SVAMP (arXiv 2103.07191): 1,000 word problems of primary school whose wording was varied; MIT licence.

    load("test")[1]  ->  {"id": "svamp/1", "problem": "Marco and his dad went strawberry picking. ...", "answer": "19"}

For `--eval-data`: it has one split, which is what every split's name gives. The 700 + 300 rows of the hub's copy are
SVAMP's 1,000, all of them a test set in its paper.
"""

from __future__ import annotations

from pathlib import Path

from ._source import folder_rows, hub_rows

HUB_NAME, FILE = "ChilleD/SVAMP", "svamp_test.jsonl"
COLUMNS = ("id", "problem", "answer")


def load(split: str, data_dir: str | Path | None = None) -> list[dict]:
    """All 1,000 rows, whatever the split, from a folder or else from the hub; raises what these raise (`_source`)."""
    if data_dir is not None:
        return folder_rows(data_dir, FILE, COLUMNS)
    return [
        {
            "id": f"svamp/{i}",
            "problem": f"{row['Body'].strip()} {row['Question'].strip()}",
            "answer": str(row["Answer"]).removesuffix(".0"),  # there the answers are 145.0
        }
        for i, row in enumerate(hub_rows(HUB_NAME, ("Body", "Question", "Answer"), split="train+test"))
    ]
