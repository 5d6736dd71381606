r"""A pattern: 1.0 where the stripped response matches the column `pattern` from end to end, else 0.0.

The syntax is that of Python's `re`; flags are written into the pattern, as in `(?is)`. With a column `search` that is
true, a match anywhere is enough. A pattern such as `(a+)+b` can take exponential time; `re` cannot be interrupted, so
nothing here tries to: the worker that runs the verifier is killed at the wall-clock limit, and the response scores 0.

>>> reward("2024-02-29", pattern=r"\d{4}-\d{2}-\d{2}")
1.0
>>> reward("on 2024-02-29", pattern=r"\d{4}-\d{2}-\d{2}")
0.0
>>> reward("on 2024-02-29", pattern=r"\d{4}-\d{2}-\d{2}", search=True)
1.0
"""

from __future__ import annotations

import re


def reward(response: str, pattern: str, search: bool = False) -> float:
    """1.0 where the response matches, else 0.0.

    Raises: re.error where the pattern is not a regular expression.
    """
    compiled = re.compile(pattern)
    match = compiled.search(response) if search else compiled.fullmatch(response.strip())
    return float(match is not None)
