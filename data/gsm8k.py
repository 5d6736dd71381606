r"""GSM8K: 7,473 training and 1,319 test problems of primary-school arithmetic in words (arXiv 2110.14168), MIT licence.

    load("test")[0]  ->  {"problem": "Janet's ducks lay 16 eggs ...", "answer": "18", "solution": "Janet sells ..."}

From the hub through the `datasets` library. The answer is what stands after `####`, without thousands separators.
"""

from __future__ import annotations

import datasets

HUB_NAME, CONFIG = "openai/gsm8k", "main"


def load(split: str) -> list[dict]:
    """Rows of "train" or "test"; raises what `datasets.load_dataset` raises."""
    rows = datasets.load_dataset(HUB_NAME, CONFIG, split=split)
    return [
        {
            "problem": row["question"],
            "answer": row["answer"].rpartition("####")[2].strip().replace(",", ""),
            "solution": row["answer"],
        }
        for row in rows
    ]
