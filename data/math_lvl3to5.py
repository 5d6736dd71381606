r"""The harder part of MATH: the training problems of `math12k` of levels 3 to 5; test is MATH-500. MIT licence.

    load("train")[0]  ->  {"id": ..., "problem": "Let ... Find $a+b$ ...", "answer": "0", "level": 5,
                           "subject": "Algebra"}

Dr. GRPO (arXiv 2503.20783) trains on levels 3 to 5 of MATH. This is that rule, not its list: `math_lvl3to5_8k` of
understand-r1-zero has 8,523 rows, by report those of `simplelr_qwen_level3to5` in hkust-nlp/SimpleRL-Zoo-Data, while
the rule gives 8,857 rows of the local folder's file.
"""

from __future__ import annotations

from pathlib import Path

from . import math12k

LEVELS = (3, 4, 5)


def load(split: str, data_dir: str | Path | None = None) -> list[dict]:
    """Rows of "train" or "test"; raises what `math12k` raises."""
    rows = math12k.load(split, data_dir)
    return [row for row in rows if row["level"] in LEVELS] if split == "train" else rows
