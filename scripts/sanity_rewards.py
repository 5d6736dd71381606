"""Rewards that say nothing about the answer, for the arms of sanity.sh.

They stand behind `math_answer=0` in `--reward`, so that the true verifier still says what is correct.
"""

from __future__ import annotations

import hashlib


def coin(tokens, prompt):
    """1.0 or 0.0, each for half of all responses: a bit of a hash, so that a run can be repeated."""
    return float(hashlib.sha256(repr((prompt, list(tokens))).encode()).digest()[0] & 1)


def constant():
    """1.0 for every response."""
    return 1.0
