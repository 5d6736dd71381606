r"""MATH (arXiv 2103.03874) in the usual split of 12,000 training problems and the 500 of MATH-500 as test; MIT licence.

    load("train")[0]  ->  {"problem": "Let ... Find $a+b$ ...", "answer": "0"}

From the hub through the `datasets` library. The answer is the content of the reference solution's last `\boxed{}`.
"""

from __future__ import annotations

import datasets

HUB_NAME = "hiyouga/math12k"


def load(split: str) -> list[dict]:
    """Rows of "train" or "test"; raises what `datasets.load_dataset` raises."""
    return list(datasets.load_dataset(HUB_NAME, split=split))
