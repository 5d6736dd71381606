r"""Scalars: an answer's unit, the base it is written in, and whether two of them have the same value.

    split_unit(r"5\text{ cm}^2")      -> ("5", {"cm": 2})
    same_value("30 minutes", "30")    -> True: a missing unit is forgiven, a wrong one is not
    identical("(x+1)^2", "x^2+2x+1")  -> True: equal at pseudo-random points (the Schwartz-Zippel test)

All of them read what `text.clean` has cleaned.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from .arithmetic import Unreadable, mp, near
from .fallback import agreed_by_math_verify
from .reader import Reader, value
from .units import Unit, agree, is_plain_unit, unit_of

UNIT = r"\\text\s*\{(?:[^{}\d^]|\^\s*\{?\s*-?\d\s*\}?)*\}(?:\s*\^\s*\{?\s*-?\d\s*\}?)?"
TAIL = re.compile(
    rf"([\s/*]*)(°\s*[CF](?![A-Za-z])|[°%'¢¤]|\\Omega|{UNIT}|\\frac\s*\{{\s*{UNIT}\s*\}}\s*\{{\s*{UNIT}\s*\}})\s*\.?$"
)
PLAIN_TAIL = re.compile(
    r"(?<=[\d)}°%π])(\s*)([A-Za-zμΩ](?:[A-Za-zμΩ ./]|(?<=[A-Za-z])-(?=[A-Za-z]))*?)((?:\s*\^\s*\{?-?\d\}?)?)\.?$"
)
MAX_TAILS = 8
BASED = re.compile(
    r"(-?)\(?([0-9A-F.]+)\)?\s*"
    r"(?:_\s*\{?\s*(?:\\text\s*\{)?\s*(\d+|two|three|four|five|six|seven|eight|nine|ten)\}?\s*\}?)?"
)
INTEGERS = {"k", "m", "n"}
"""Names that stand for any integer in a set of solutions."""
GOLD_DIGITS = 4
"""Significant digits of a gold decimal from which on a number that rounds to it is taken for it."""
MORE_PLACES = 2
"""Places that a decimal must have beyond those of a gold decimal to be taken for the more exact of the two."""
DECIMAL = re.compile(r"[-+]?(\d*)\.(\d+)")


def same_value(answer: str, gold: str) -> bool:
    """Whether two scalars are the same number or expression, in units that do not contradict each other."""
    (text, unit), (target, wanted) = split_unit(answer), split_unit(gold)
    if wanted and not unit and split_unit(answer, letters=True)[1] == wanted:  # `12 J` for `12 joules`
        text, unit = split_unit(answer, letters=True)
    if unit and not wanted and split_unit(gold, letters=True)[1] == unit:
        target, wanted = split_unit(gold, letters=True)
    if not text or not target:
        return False
    percent, wanted_percent = "%" in unit, "%" in wanted
    if _angle(unit, wanted, target):
        return identical(f"({text})*π/180", target)
    if _angle(wanted, unit, text):
        return identical(text, f"({target})*π/180")
    if not agree(unit, wanted):
        return False
    if _same_base(text, target):
        return True
    if "_" in text + target and BASED.fullmatch(text) and BASED.fullmatch(target):
        return False
    return (
        identical(text, target)
        or rounds_to(text, target)
        or (
            percent != wanted_percent
            and identical(*(f"({s})/100" if p else s for s, p in ((text, percent), (target, wanted_percent))))
        )
    )


def _angle(unit: Unit, other: Unit, other_text: str) -> bool:
    """Whether one side is in degrees and the other in radians, which it shows by a unit or a π."""
    return unit == {"°": 1} and "π" in other_text and other in ({}, {"rad": 1})


def split_unit(text: str, letters: bool = False) -> tuple[str, Unit]:
    r"""`¤18.90` -> (`18.90`, {dollar: 1}); `5\text{ cm}^2` -> (`5`, {cm: 2}); `5 apples` -> (`5`, {apple: 1}).

    letters: single letters outside of any `\text` are units as well, and not names of variables.
    """
    text, found, money = text.strip(), "", False
    if text[:1] in "¤" or text[:2] == "-¤":
        text, money = text.replace("¤", "", 1).strip(), True
    angle = re.search(r"\\?(?:sin|cos|tan|cot|sec|csc)", text)
    for _ in range(MAX_TAILS):
        tail = TAIL.search(text)
        rest = text[: tail.start()].strip() if tail else ""
        if not rest or (angle and tail[2] == "°") or unit_of(tail[2]) is None:
            break
        found, text = f"{tail[1]}{tail[2]} {found}", rest
    if (tail := PLAIN_TAIL.search(text)) and unit_of(tail[2] + tail[3]) is not None:
        if is_plain_unit(tail[2], apart=bool(tail[1]), letters=letters):
            found, text = f"{tail[2]}{tail[3]} {found}", text[: tail.start()].strip()
    unit = unit_of(found + " dollar" * money)
    return (text, unit) if unit is not None else (text, {})


def _same_base(answer: str, gold: str) -> bool:
    """`2516_8`, `(2516)_{8}` and, with the base left out, `2516`."""
    a, g = BASED.fullmatch(answer), BASED.fullmatch(gold)
    return bool(
        a and g and (a[1], a[2].lstrip("0")) == (g[1], g[2].lstrip("0")) and (a[3] == g[3] or not a[3] or not g[3])
    )


def identical(answer: str, gold: str) -> bool:
    """Whether two expressions have the same value, at every point where they have names."""
    try:
        first, a = _examined(answer)
        second, g = _examined(gold)
    except Unreadable:
        return agreed_by_math_verify(answer, gold)
    except ZeroDivisionError:
        return False
    if not first.named and not second.named:
        return near(a, g) or _rounded(answer, a, g) or _rounded(gold, g, a)
    if len(first.named) == len(second.named) == 1 and first.named != second.named and "π" in answer and "π" in gold:
        (name,), (wanted,) = first.named, second.named
        # `kπ` and `nπ` are the same solutions; a sum with a `k` in it may be one of them, and is compared as it is.
        if {name, wanted} <= INTEGERS and not re.search("[+-]", answer + gold):
            return identical(re.sub(rf"(?<![A-Za-z\\]){name}(?![A-Za-z])", wanted, answer), gold)
    if first.named != second.named and not (first.named & second.named):
        return False
    points = [*range(10, 20)] if first.discrete or second.discrete else [0, 1, 2]
    points += [20, 21] if first.absolute != second.absolute else []
    seen = 0
    for point in points:
        try:
            if not near(value(answer, point), value(gold, point)):
                return False
            seen += 1
        except ZeroDivisionError:
            continue
        except Unreadable:
            if not first.discrete:
                return False
    return seen > 1


def _examined(text: str) -> tuple[Reader, Any]:
    """What has been seen in an expression, and its value at the first point at which it has one."""
    for point in (0, *range(10, 16)):
        reader = Reader(text, point)
        try:
            return reader, reader.read()
        except Unreadable:
            if not reader.discrete or point == 15:
                raise
        except ZeroDivisionError:
            if not reader.named or point == 15:
                raise
    raise Unreadable(text)


def _rounded(text: str, decimal: Any, exact: Any) -> bool:
    """Whether `text` is a long decimal that agrees with a number which no decimal can equal, to its last digit."""
    digits = DECIMAL.fullmatch(text.strip().rstrip("….").strip())
    if not digits or not isinstance(decimal, Fraction):
        return False
    terminating = isinstance(exact, Fraction) and not _reduced(exact.denominator)
    needed = 5 if isinstance(exact, Fraction) else 7
    if terminating or len((digits[1] + digits[2]).lstrip("0")) < needed:
        return False
    if mp().im(exact) != 0:
        return False
    missing = (mp().re(exact) - decimal) * (1 if decimal > 0 else -1) * 10 ** len(digits[2])
    return bool(-0.5 <= missing < 1)  # rounded, or cut off


def rounds_to(answer: str, gold: str) -> bool:
    """Whether the gold answer is a decimal of four digits or more, and the answer a more exact number that rounds to
    it at its own precision: one that no decimal equals, or one with at least two further places. A shorter gold, or an
    answer as short as it, may as well be another number: `13.5` and `5 + 6√2`."""
    digits, given = DECIMAL.fullmatch(gold.strip()), DECIMAL.fullmatch(answer.strip().rstrip("….").strip())
    if not digits or len((digits[1] + digits[2]).lstrip("0")) < GOLD_DIGITS:
        return False
    try:
        (first, a), (second, g) = _examined(answer), _examined(gold)
    except (Unreadable, ZeroDivisionError):
        return False
    if first.named or second.named or not isinstance(g, Fraction) or mp().im(a) != 0:
        return False
    terminating = isinstance(a, Fraction) and not _reduced(a.denominator)
    if terminating and (not given or len(given[2]) < len(digits[2]) + MORE_PLACES):
        return False
    apart = a - g if isinstance(a, Fraction) else mp().re(a) - g  # of fractions exactly: half a unit rounds, too
    return bool(abs(apart) * 10 ** len(digits[2]) <= 0.5)


def _reduced(denominator: int) -> bool:
    """Whether the denominator has a prime factor other than 2 and 5."""
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    return denominator > 1


def has_names(text: str) -> bool:
    """Whether a cleaned expression contains a variable; unreadable text counts as having one."""
    reader = Reader(split_unit(text)[0], 0)
    try:
        reader.read()
    except (Unreadable, ZeroDivisionError):
        return True
    return bool(reader.named - {"∞"})
