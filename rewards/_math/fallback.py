r"""math-verify, for the few short scalars that the calculator does not read: those with a sum, an integral, a limit.

    agreed_by_math_verify(r"\int_0^1 2x dx", "1")   -> True
    agreed_by_math_verify("5 a (", "5")             -> False, unasked: math-verify would read the 5

math-verify's own time limits are off: they work in a main thread only, and the caller has a better one.
"""

from __future__ import annotations

import logging
import re

from .reader import UNREAD
from .text import CLOSING, OPENING


def agreed_by_math_verify(answer: str, gold: str) -> bool:
    """What math-verify says of two short scalars, one of which has a sum, an integral or a limit in it.

    Not asked about any other text that `Reader` refuses: of `5 a (` it reads the 5.
    """
    if not any(command in answer + gold for command in UNREAD) or not all(map(_may_be_shown, (answer, gold))):
        return False
    from math_verify import LatexExtractionConfig, parse, verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns, rightly, that its time limits are off
    form = [LatexExtractionConfig(boxed_match_priority=-1)]
    parsed = [parse(f"${_latex(side)}$", form, parsing_timeout=None) for side in (gold, answer)]
    return all(parsed) and verify(*parsed, timeout_seconds=None)


def _may_be_shown(text: str) -> bool:
    """Short, balanced, with numbers of at most two digits, flat exponents and no words."""
    if len(text) > 200 or re.search(r"\d{3}|[\":]|__|!|\\binom|\\text|\\begin|(?<![\\A-Za-z])[A-Za-z]{4}", text):
        return False
    balanced = all(text.count(a) == text.count(b) for a, b in zip(OPENING, CLOSING, strict=True))
    return balanced and text.count("^") <= 8 and not re.search(r"\^\s*\{[^{}]*\^", text)


def _latex(text: str) -> str:
    spelled = {"≤": r"\le ", "≥": r"\ge ", "∞": r"\infty ", "π": r"\pi ", "*": r"\cdot ", "°": r"^\circ ", "±": r"\pm "}
    return "".join(spelled.get(char, char) for char in text)
