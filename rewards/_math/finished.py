r"""Is a right answer an answer, or the task put differently? `47+385` equals 432, and says nothing.

    finished("47+385", "432")                                -> False: arithmetic that is still to be done
    finished("47+385 = 432", "432")                          -> True: it says the number
    finished("2^{10}", "1024")                               -> True, but
    finished("2^{10}", "1024", ["What is 2^10?"])            -> False: made of the prompt's own numbers
    finished("(x+1)^2", "x^2+2x+1", ["Expand $(x+1)^2$."])   -> False: a formula of the prompt, given back

Values, not calculations, are fractions in lowest terms, mixed numbers, percentages, scientific notation, factorials,
binomials and roots. Nothing but the last rule applies where the gold answer is a calculation itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from math import gcd

from .arithmetic import Unreadable
from .reader import TOKEN, value
from .shapes import NAME, shape
from .text import CLOSING, MATH, MAX_ANSWER, clean, split, squash
from .values import has_names, split_unit

LARGE = 10**6
"""A power may stand for a number above this, whatever the prompt says."""
MAX_PROMPT = 20_000
"""Characters of a prompt that are read."""
FIGURE = re.compile(r"\d+(?:\.\d+)?")
SCIENTIFIC = re.compile(r"(?<![\w.)}])(?:(\d+(?:\.\d+)?)\s*\*\s*)?10\s*\^\s*(?:\{\s*-?\d+\s*\}|-?\d+)")
WORDS = re.compile(r"\\text\s*\{[^{}]*\}(?:\s*\^\s*(?:\{-?\d\}|-?\d))?")
RELATIONS = "=≈∈<>≤≥≠⇒"


def finished(answer: str, gold: str, asked: Sequence[str] = ()) -> bool:
    """Whether an answer that equals the gold answer is more than the task put differently.

    asked: the texts of the prompt.
    """
    answer, gold = clean(answer), clean(gold)
    if squash(answer) == squash(gold):
        return True
    if _is_plain(gold) and any(_restates(text, gold, asked) for text in _values(answer)):
        return False
    return not _is_quoted(answer, asked)


def _is_plain(gold: str) -> bool:
    """Whether the gold answer is a rational number that needs no computing, or several."""
    kind, parts = shape(gold)
    if kind == "relation":
        return len(parts) == 3 and NAME.fullmatch(parts[0]) is not None and _is_plain(parts[2])
    if kind != "scalar":
        return bool(parts) and all(map(_is_plain, parts))
    number = split_unit(parts[0])[0]
    return not operations(number) and not has_names(number) and isinstance(_number(number), Fraction)


def _number(text: str) -> object:
    try:
        return value(text)
    except (Unreadable, ZeroDivisionError):
        return None


def _values(answer: str) -> list[str]:
    """The scalars that an answer gives; of `47+385 = 432`, in which one is written as a number, none."""
    kind, parts = shape(answer)
    if "±" in answer:  # which `shape` would write as two sums
        return [text for side in answer.split("±") for text in _values(side)]
    if kind == "scalar":
        return [split_unit(parts[0])[0]]
    if kind == "relation":
        sides = [_values(side) for side in parts[::2] if not NAME.fullmatch(side)]
        said = any(len(side) == 1 and _is_written_out(side[0]) for side in sides)
        return [] if said else [text for side in sides for text in side]
    return [text for part in parts for text in _values(part)]


def _restates(text: str, gold: str, asked: Sequence[str]) -> bool:
    """Whether a scalar is plain arithmetic, or a calculation with no other numbers than the prompt's."""
    if _is_arithmetic(text):
        return True
    found = operations(text)
    if not asked or _is_written_out(text) or not (found or "/" in text or r"\frac" in text):
        return False
    number = _number(split_unit(split(gold, RELATIONS)[-1])[0])
    if "^" in found and isinstance(number, Fraction) and max(abs(number.numerator), number.denominator) > LARGE:
        return False
    used = set(FIGURE.findall(text)) - {"0", "1"}
    given = {figure for each in asked for figure in FIGURE.findall(re.sub(r"(?<=\d),(?=\d{3})", "", each[:MAX_PROMPT]))}
    return used <= given


def operations(text: str) -> list[str]:
    r"""The operators between numbers, in order; a division counts from the second on.

    "47+385" -> ["+"] · "2(3)" -> ["*"] · r"\frac{8}{2}" -> [] · "1.5*10^{3}" -> [] · "-5" -> [] · "8/4/2" -> ["/"]
    """
    tokens = _tokens(text)
    found, divided = [], False
    for before, token in zip(["", *tokens], tokens, strict=False):
        operand = before != "" and (before[0] in "0123456789." or before in CLOSING + "%!°π")
        if token in ("/", r"\frac"):
            found += ["/"] * divided
            divided = True
        elif operand and token in ("+", "-", "*", "^"):
            found.append(token)
        elif operand and token == "(" and before != "}":
            found.append("*")
    return found


def _is_arithmetic(text: str) -> bool:
    """Whether two integers or decimals stand to be added, subtracted or multiplied: `47+385`, `(2)(3)`, not `1/2+3`."""
    flat, before = ["", ""], ""
    for token in _tokens(text):
        if token in ("(", "["):
            flat += ["*"] * (before == ")" or _is_figure(before))
        elif token not in (")", "]"):
            flat.append(token)
        before = token
    flat += ["", ""]
    for at, token in enumerate(flat):
        if token in ("+", "-", "*") and _is_figure(flat[at - 1]) and flat[at - 2] not in ("/", "^"):
            right = at + 1 + (flat[at + 1] in ("+", "-"))
            if _is_figure(flat[right]) and flat[right + 1] not in ("/", "^", "!", r"\frac"):
                return True
    return False


def _is_figure(token: str) -> bool:
    return FIGURE.match(token) is not None


def _tokens(text: str) -> list[str]:
    """The tokens of a scalar, scientific notation read as one number and words left out."""
    return TOKEN.findall(WORDS.sub(" ", SCIENTIFIC.sub(lambda match: match[1] or "1", text)))


def _is_quoted(answer: str, asked: Sequence[str]) -> bool:
    """Whether the answer, more than a number, is a formula of the prompt or a side of one."""
    kind, parts = shape(answer)
    if (
        not asked
        or kind not in ("scalar", "relation")
        or (kind == "scalar" and _is_written_out(split_unit(parts[0])[0]))
    ):
        return False
    given = squash(parts[-1] if kind == "relation" and NAME.fullmatch(parts[0]) else answer)
    for text in asked:
        for match in MATH.finditer(text[:MAX_PROMPT]):
            formula = next(filter(None, match.groups()))
            if len(formula) <= MAX_ANSWER:
                formula = clean(formula)
                if given in map(squash, [formula, *split(formula, RELATIONS)[::2]]):
                    return True
    return False


def _is_written_out(text: str) -> bool:
    """A number, a fraction in lowest terms, a mixed number, a name: nothing shorter could be asked for."""
    text = squash(SCIENTIFIC.sub(lambda match: match[1] or "1", text))
    if fraction := re.fullmatch(r"-?\(?\d*(?:\\frac\{?(\d+)\}?\{?(\d+)\}?|(\d+)/(\d+))\)?", text):
        numerator, denominator = (int(digits) for digits in fraction.groups() if digits)
        return denominator > 1 and gcd(numerator, denominator) == 1
    return re.fullmatch(r"-?\(?-?(?:[\d.,]+(?:e-?\d+)?[%°]?|\\?\w)\)?", text) is not None
