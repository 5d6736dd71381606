r"""MATH-500: the 500 problems of MATH's test set that "Let's Verify Step by Step" (arXiv 2305.20050) evaluates on.

    load("test")[0]  ->  {"problem": "Convert the point $(0,3)$ ...", "answer": "\\left( 3, \\frac{\\pi}{2} \\right)",
                          "level": 2, "subject": "Precalculus", ...}

From the hub through the `datasets` library. It is meant for `--eval-data`: it has one split, which is what every
split's name gives. Trained on with `--data math500`, its evaluation is contaminated, and the run says so at its start.
"""

from __future__ import annotations

import datasets

HUB_NAME = "HuggingFaceH4/MATH-500"


def load(split: str) -> list[dict]:
    """All 500 rows, whatever the split; raises what `datasets.load_dataset` raises."""
    return list(datasets.load_dataset(HUB_NAME, split="test"))
