"""DAPO's soft penalty on long responses, from 0 down to -1, to be added to a verifier that judges correctness.

With |y| the tokens of the response, L_max the longest response allowed and L_cache a buffer below it (arXiv 2503.14476,
equation 13):

    0                               where |y| <= L_max - L_cache
    (L_max - L_cache - |y|) / L_cache     where L_max - L_cache < |y| <= L_max
    -1                              where |y| > L_max

The trainer offers `max_response_tokens`, its own token limit, to every verifier; a column of that name is not needed.
Usage: `--reward math_answer overlong`.

>>> reward(tokens=range(80), max_response_tokens=100)
0.0
>>> reward(tokens=range(90), max_response_tokens=100)
-0.5
>>> reward(tokens=range(90), max_response_tokens=100, overlong_buffer=40)
-0.75
"""

from __future__ import annotations

from collections.abc import Sequence


def reward(tokens: Sequence[int], max_response_tokens: int, overlong_buffer: int | None = None) -> float:
    """The penalty, in [-1, 0].

    tokens: ids of the response; only their number counts.
    max_response_tokens: L_max, in tokens.
    overlong_buffer: L_cache, in tokens; a fifth of L_max, the paper's proportion, where it is not given.
    Raises: ValueError where the buffer is not within [0, L_max].
    """
    buffer = max_response_tokens // 5 if overlong_buffer is None else overlong_buffer
    if not 0 <= buffer <= max_response_tokens:
        raise ValueError(f"overlong_buffer is {buffer}: it must be between 0 and {max_response_tokens}, the limit.")
    excess = len(tokens) - (max_response_tokens - buffer)
    if excess <= 0:
        return 0.0
    return -1.0 if excess >= buffer else -excess / buffer
