r"""ASDiv (arXiv 2106.15772): word problems of primary school with one number as their answer.

    load("train")[1]  ->  {"id": "asdiv/1", "problem": "Julian is writing a comic book. ...", "answer": "13"}

Licence CC BY-NC 4.0: not for commercial use. It has one split, which is what every split's name gives: train on it with
another set to evaluate on (`--data asdiv --eval-data svamp`), or evaluate on it. The hub has 2,305 problems, of which
those with one number as their answer are taken; the local folder has the 1,788 on which Dr. GRPO (arXiv 2503.20783)
trains as an easy set.
"""

from __future__ import annotations

import re
from pathlib import Path

from ._source import folder_rows, hub_rows

HUB_NAME, FILE = "EleutherAI/asdiv", "asdiv_2k.jsonl"
COLUMNS = ("id", "problem", "answer")
NUMBER = re.compile(r"(-?\d[\d,]*(?:\.\d+)?(?:/\d+)?)(?: \([^;]*\))?")
"""An answer of one number and perhaps its unit: `9 (apples)`. Others list several, or are words."""


def load(split: str, data_dir: str | Path | None = None) -> list[dict]:
    """All rows, whatever the split, from a folder or else from the hub; raises what these raise (`_source`)."""
    if data_dir is not None:
        return folder_rows(data_dir, FILE, COLUMNS)
    rows = []
    for i, row in enumerate(hub_rows(HUB_NAME, ("body", "question", "answer"), split="validation")):
        if number := NUMBER.fullmatch(row["answer"].strip()):
            problem = f"{row['body'].strip()} {row['question'].strip()}"
            rows.append({"id": f"asdiv/{i}", "problem": problem, "answer": number[1].replace(",", "")})
    return rows
