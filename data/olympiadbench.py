r"""OlympiadBench (arXiv 2402.14008): its English olympiad problems in mathematics that are text only; MIT licence.

    load("test")[1]  ->  {"id": "olympiadbench/1", "problem": "Given a positive integer $n$, determine the largest ...",
                          "answer": "$\\frac{1}{2 n+2}$"}

An answer of several parts is one text, `$69$,$84$`. The local folder has 675 rows, the hub 674 or 675 by differing
reports. For `--eval-data`: it has one split, which is what every split's name gives.
"""

from __future__ import annotations

from pathlib import Path

from ._source import folder_rows, hub_rows

HUB_NAME, FILE = "math-ai/olympiadbench", "olympiadbench.jsonl"
COLUMNS = ("id", "problem", "answer")


def load(split: str, data_dir: str | Path | None = None) -> list[dict]:
    """All rows, whatever the split, from a folder or else from the hub; raises what these raise (`_source`)."""
    if data_dir is not None:
        return folder_rows(data_dir, FILE, COLUMNS)
    return [
        {"id": f"olympiadbench/{i}", "problem": row["question"], "answer": ",".join(row["final_answer"])}
        for i, row in enumerate(hub_rows(HUB_NAME, ("question", "final_answer"), split="test"))
    ]
