"""What several responses to one problem come to: pass@k, one of k is correct, and maj@k, the most frequent answer is.

>>> pass_at_k(4, 1, 2)                                        # 4 responses, 1 correct; 2 drawn of them
0.5
>>> maj_at_k(["7", "8", "7", None], [True, False, True, False], 4)
1.0
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np


def pass_at_k(responses: int, correct: int, k: int) -> float:
    """The chance that k of a problem's responses, drawn without replacement, hold a correct one.

    1 - C(n-c, k) / C(n, k), unbiased for one more draw of k from the model (Chen et al., arXiv 2107.03374, equation 1).

    Raises: ValueError unless 0 <= correct <= responses and 1 <= k <= responses.
    """
    if not (0 <= correct <= responses and 1 <= k <= responses):
        raise ValueError(f"pass@{k} of {responses} responses, {correct} correct, does not exist")
    return 1.0 - math.comb(responses - correct, k) / math.comb(responses, k)


def maj_at_k(answers: Sequence[str | None], correct: Sequence[bool], k: int) -> float:
    """The share of blocks of k responses whose most frequent answer is correct: self-consistency (arXiv 2203.11171).

    Blocks are consecutive and disjoint; responses that fill no block are left out. None casts no vote, and a block
    without a vote is incorrect. Answers that tie count as the share of them that is correct.

    Raises: ValueError unless 1 <= k <= responses.
    """
    if not 1 <= k <= len(answers) == len(correct):
        raise ValueError(f"maj@{k} of {len(answers)} answers and {len(correct)} verdicts does not exist")
    starts = range(0, len(answers) - k + 1, k)
    return sum(_vote(answers[i : i + k], correct[i : i + k]) for i in starts) / len(starts)


def _vote(answers: Sequence[str | None], correct: Sequence[bool]) -> float:
    votes = Counter(answer for answer in answers if answer is not None)
    most = max(votes.values(), default=0)
    tied = {answer for answer, count in votes.items() if count == most}
    # Tied answers have equally many votes. Equal ones have equal verdicts, unless the verifier failed on one or reads
    # more than the answer: then the mean.
    return float(np.mean([c for a, c in zip(answers, correct, strict=True) if a in tied])) if tied else 0.0
