r"""Whether two answers, as written, are the same answer: by shape, then word by word or, for a scalar, by value.

    equal(r"\{2, 1\}", "1, 2")        -> True       equal("(2, 1)", "(1, 2)")          -> False
    equal("y = 2x + 3", "2x-y+3=0")   -> True       equal(r"\text{(C)}", "C")          -> True

Word by word means in lower case, without articles; a list has no order, a tuple has.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise

from .arithmetic import Unreadable, divide, mp, near
from .reader import MAX_DEPTH, value
from .shapes import MIRROR, NAME, Shape, by_name, expand, interval_parts, shape, vector
from .text import MAX_ANSWER, clean, depth, squash
from .values import has_names, same_value

MAX_PARTS = 64
"""Elements of a list, set or matrix."""
CHOICE = re.compile(r"(?:\\text\s*\{)?\(?\s*([A-Ja-j])\s*\)?\.?\}?")
CHOICE_WITH_TEXT = re.compile(r"(?:\\text\s*\{)?\s*(?:\(\s*([A-J])\s*\)|([A-J])\s*[).:])\s*\}?\s*[^\s},;].*", re.S)
LEAD = re.compile(  # `\text{The answer is }`, `Area:`
    r"(?:\\text\s*\{)?\s*(?!.*\bnot\b)[A-Za-z' ]*?(?:\bis\b|\bare\b|[A-Za-z]:|\babout\b|\bapproximately\b)"
    r"\s*(?:\}\s*:?)?\s*(?=\S)"
)
SMALL = "zero one two three four five six seven eight nine ten eleven twelve".split()
SAME_WORDS = {
    **{word: str(value) for value, word in enumerate(SMALL)},
    **dict.fromkeys("the a an is are answer it option choice its function at of".split(), ""),
    "infinity": "∞",
}
TIME = re.compile(r"(\d{1,2}):([0-5]\d)(?:(?:\\text)?\{?([AaPp])\.?[Mm]\.?\}?)?")
NOTHING = {"∅", "no solution", "no solutions", "no real solution", "no real solutions", "empty set", "none", "⦃⦄"}
EVERYTHING = {"all real numbers", "all reals", "ℝ", "(-∞,∞)", "(-∞,+∞)", "all real x", "real numbers"}


@lru_cache(maxsize=1024)
def equal(answer: str, gold: str) -> bool:
    """Whether two answers, as written, are the same answer."""
    if max(len(answer), len(gold)) > MAX_ANSWER:
        return False
    answer, gold = clean(answer), clean(gold)
    if depth(answer) > MAX_DEPTH or not squash(answer).strip("{}") or not squash(gold).strip("{}"):
        return False
    return _same(answer, gold) or _same_choice(answer, gold)


def _same_choice(answer: str, gold: str) -> bool:
    """`(C)`, `C.`, `Option C` and `(C) 12` are choice C; a gold `(C) 12` may be answered `12` as well."""
    if listed := CHOICE_WITH_TEXT.fullmatch(gold):
        letter = listed[1] or listed[2]
        return _same_choice(answer, letter) or _same(answer, re.sub(r"^.*?[A-J]\s*[).:]\}?\s*", "", gold, count=1))
    if re.fullmatch(r"[A-J]{2,6}", gold) and re.fullmatch(r"(?:\\text\{)?[A-J](?:\s*,\s*[A-J])+\}?", answer):
        return sorted(gold) == re.findall("[A-J]", answer)
    choice = CHOICE.fullmatch(gold)
    if not choice or not choice[1].isupper():
        return False
    answer = re.sub(r"^(?:\\text\s*\{)?\s*(?:option|choice|answer)\s*:?", "", answer, flags=re.I).strip()
    if given := CHOICE.fullmatch(answer):
        return given[1].upper() == choice[1]
    given = CHOICE_WITH_TEXT.fullmatch(answer)
    return (
        given is not None
        and (given[1] or given[2]) == choice[1]
        and not re.search(r"[(,]\s*[A-J]\s*\)", answer[given.end(given.lastindex) :])
    )


def _same(answer: str, gold: str) -> bool:
    if squash(answer) == squash(gold) or _same_time(answer, gold):
        return True
    if not gold[:1].isalpha() and (lead := LEAD.match(answer)):
        answer = answer[lead.end() :]
        if "{" in lead.group() and "}" not in lead.group():
            answer = answer.rstrip("}")
    for group in (NOTHING, EVERYTHING):
        if _words(gold) in group or squash(gold) in group:
            if _words(answer) in group or squash(_value_of(answer)) in group:
                return True
    if (_wordy(gold) or _wordy(answer)) and _words(answer) == _words(gold):
        return True
    return _same_shape(shape(answer), shape(gold))


def _same_time(answer: str, gold: str) -> bool:
    """`20:34` is `8:34 p.m.`: one of them with twelve hours, the other without, and past noon."""
    one, other = TIME.fullmatch(squash(answer)), TIME.fullmatch(squash(gold))
    if not one or not other or bool(one[3]) == bool(other[3]):
        return False
    (twelve, full) = (one, other) if one[3] else (other, one)
    hour = int(twelve[1]) % 12 + (12 if twelve[3].lower() == "p" else 0)
    return 1 <= int(twelve[1]) <= 12 and int(full[1]) == hour >= 13 and twelve[2] == full[2]


def _wordy(text: str) -> bool:
    return re.search(r"[A-Za-z]{3}|^\W*[Nn]o\W*$", re.sub(r"\\[A-Za-z]+", "", text)) is not None


def _words(text: str) -> str:
    """Lower-case words, numbers and signs, without wrappers, articles and full stops: `An Ellipse.` -> `ellipse`."""
    tokens = re.findall(
        r"[^\W\d_]+|\d+(?:\.\d+)?|[^\s\w.'\"{}]", re.sub(r"\\text\s*", "", text).lower().replace(".m.", "m")
    )
    return " ".join(filter(None, (SAME_WORDS.get(token, token) for token in tokens))).replace("does not exist", "dne")


def _same_shape(answer: Shape, gold: Shape) -> bool:
    (kind, parts), (wanted, golds) = answer, gold
    if max(len(parts), len(golds)) > MAX_PARTS:
        return False
    if "relation" in (kind, wanted):
        return _same_relation(answer, gold)
    if kind == wanted == "scalar":
        return same_value(parts[0], golds[0])
    if interval_parts(answer) and interval_parts(gold) and "union" in (kind, wanted):
        return _match_any_order(interval_parts(answer), interval_parts(gold))
    if kind == "list" and wanted == "scalar":  # `1/2 or 0.5` is one answer
        return all(_same(part, golds[0]) for part in parts)
    if {kind, wanted} <= {"list", "set", "scalar"}:
        return _match_any_order(expand(parts), expand(golds))
    if {kind, wanted} == {"ratio", "scalar"}:
        return _same(*("/".join(f"({part})" for part in side) for side in (parts, golds)))
    if "matrix" in (kind, wanted) and kind != wanted:
        parts, golds = (vector(*side) for side in (answer, gold))
        return bool(parts) and _match_in_order(parts, golds)
    if kind == wanted or {kind, wanted} == {"()", "list"}:
        return _match_in_order(
            by_name(parts) if kind == "list" else parts, by_name(golds) if wanted == "list" else golds
        )
    return False


def _match_in_order(parts: list[str], golds: list[str]) -> bool:
    return len(parts) == len(golds) and all(
        _same(_value_of(p), _value_of(g)) for p, g in zip(parts, golds, strict=True)
    )


def _match_any_order(parts: list[str], golds: list[str]) -> bool:
    if len(parts) != len(golds):
        return False
    left = list(golds)
    for part in parts:
        found = next((gold for gold in left if _same(part, gold)), None)
        if found is None:
            return False
        left.remove(found)
    return True


def _value_of(text: str) -> str:
    """What `x = 5`, `x ∈ [1, 2]`, `5 = x`, `f(x) = x + 1 = 1 + x` give to the name; any other text as it is."""
    kind, sides = shape(text)
    if kind != "relation" or not set(sides[1::2]) <= set("=≈∈"):
        return text
    given = [side for side in sides[::2] if not NAME.fullmatch(side)]
    numbers = [side for side in given if not has_names(side)]
    if not given or (len(numbers) < len(given) and given[-1] not in numbers and not _all_same(given)):
        return text if given else sides[-1]
    rounded = "≈" in sides
    if not rounded and not _all_same(numbers):
        return text
    if rounded and len(numbers) > 1:
        return numbers[0] if _close(numbers[0], numbers[-1]) else text
    return given[-1]


def _all_same(sides: list[str]) -> bool:
    return all(_same(a, b) for a, b in pairwise(sides))


def _close(exact: str, rounded: str) -> bool:
    try:
        a, b = (mp().convert(value(text)) for text in (exact, rounded))
        return bool(abs(a - b) <= abs(b) / 100)
    except Unreadable:
        return False


def _same_relation(answer: Shape, gold: Shape) -> bool:
    if interval := interval_parts(gold):
        if (given := interval_parts(answer)) and _match_any_order(given, interval):
            return True
    (kind, sides), (wanted, golds) = answer, gold
    if kind == wanted and set(sides[1::2]) != {"="} and sides[1::2] != golds[1::2]:
        sides = [part.translate(MIRROR) if at % 2 else part for at, part in enumerate(sides)][::-1]
    if kind == wanted and sides[1::2] == golds[1::2]:
        if sides[1::2] == ["="]:
            return _same_equation(sides[::2], golds[::2])
        if len(sides) == 3 and sides[1] in "<>≤≥≠":
            return _proportional(sides[::2], golds[::2], positive=sides[1] != "≠")
        if all(_same(*pair) for pair in zip(sides[::2], golds[::2], strict=True)):
            return True
    if kind == "relation" and wanted != "relation" and "≈" in sides and _close(sides[-3], sides[-1]):
        return _same(sides[-3], "".join(golds)) or _same(sides[-1], "".join(golds)) if wanted == "scalar" else False
    answer = shape(_value_of("".join(sides))) if kind == "relation" else answer
    if wanted == "relation" and (NAME.fullmatch(golds[0]) or not any(has_names(side) for side in golds[::2])):
        gold = shape(_value_of("".join(golds)))
    return "relation" not in (answer[0], gold[0]) and _same_shape(answer, gold)


def _same_equation(sides: list[str], golds: list[str]) -> bool:
    """Two equations of two sides: the same name with the same value, or differences that are proportional."""
    named, wanted = NAME.fullmatch(sides[0]), NAME.fullmatch(golds[0])
    if named and wanted and _same(sides[1], golds[1]):
        one, other = sorted((squash(sides[0]), squash(golds[0])), key=len)
        return one == other or (one in ("y", other[0]) and "(" in other) or _wordy(one) or _wordy(other)
    if wanted and not has_names(golds[1]):
        return squash(sides[1]) == squash(golds[0]) and _same(sides[0], golds[1])
    return _proportional(sides, golds)


def _proportional(sides: list[str], golds: list[str], positive: bool = False) -> bool:
    """Whether left minus right of one relation is a (positive) constant times that of the other."""
    first, second = (f"({a})-({b})" for a, b in (sides, golds))
    ratios = []
    for point in (0, 1, 2, 3):
        try:
            numerator, denominator = value(first, point), value(second, point)
            ratios.append(divide(numerator, denominator))
        except (Unreadable, ZeroDivisionError):
            return False
    if near(ratios[0], 0) or not all(near(ratio, ratios[0]) for ratio in ratios):
        return False
    return not positive or ((not hasattr(ratios[0], "imag") or ratios[0].imag == 0) and ratios[0].real > 0)
