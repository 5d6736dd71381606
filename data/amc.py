r"""AMC: 83 problems of the American Mathematics Competitions 12 of 2022 and 2023, copyright MAA.

    load("test")[0]  ->  {"id": "amc/0", "problem": "$\\frac{m}{n}$ is the Irreducible fraction ...", "answer": "142"}

They are AIMO's validation set: problems with an integer answer instead of a choice. Papers that report "AMC23" mean 40
of them, those of 2023. For `--eval-data`: it has one split, which is what every split's name gives.
"""

from __future__ import annotations

from pathlib import Path

from ._source import folder_rows, hub_rows

HUB_NAME, FILE = "AI-MO/aimo-validation-amc", "amc.jsonl"
COLUMNS = ("id", "problem", "answer")


def load(split: str, data_dir: str | Path | None = None) -> list[dict]:
    """All 83 rows, whatever the split, from a folder or else from the hub; raises what these raise (`_source`)."""
    if data_dir is not None:
        return folder_rows(data_dir, FILE, COLUMNS)
    return [
        {"id": f"amc/{i}", "problem": row["problem"], "answer": str(row["answer"]).removesuffix(".0")}
        for i, row in enumerate(hub_rows(HUB_NAME, ("problem", "answer"), split="train"))  # there the answers are 142.0
    ]
