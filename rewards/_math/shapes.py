r"""What kind of thing an answer is, and its parts.

    shape("1, 2")    -> ("list", ["1", "2"])       shape("⦃1, 2⦄")      -> ("set", ["1", "2"])
    shape("(1, 2]")  -> ("(]", ["1", "2"])         shape("2 < x ≤ 3")   -> ("relation", ["2", "<", "x", "≤", "3"])
    interval_parts(shape("x > 3"))                 -> ["(3,∞)"]

All of them read what `text.clean` has cleaned.
"""

# ruff: noqa: RUF002 (the docstrings show signs that look like others)

from __future__ import annotations

import re
from itertools import pairwise

from .arithmetic import mp
from .reader import value
from .text import CLOSING, OPENING, closing, split
from .values import has_names

Shape = tuple[str, list[str]]
MIRROR = str.maketrans("<>≤≥", "><≥≤")
NAME = re.compile(
    r"\|\s*[A-Z]{2}\s*\||[A-Z]{1,3}\s*:\s*[A-Z]{1,3}|"
    r"\\frac\s*\{\s*d\s*\w?\s*\}\s*\{\s*d\s*\w\s*\}|"
    r"\(\s*[A-Za-z](?:_\w)?(?:\s*,\s*[A-Za-z](?:_\w)?)+\s*\)|"
    r"(?:(?:\\text\s*\{[^{}=]*\}|\\?[A-Za-z]++|[α-ωℓ])\s*+)++"
    r"(?:_\s*(?:\w|\{[^{}]*\}))?'*\s*(?:\(\s*[\w, ']*\))?\s*(?:\^\{?-1\}?\(\w*\))?"
)  # `x`, `S_{n}`, `f(x)`, `f^{-1}(x)`, `\angle ABC`, `\text{Area}`, `(x, y)`, `dy/dx`, `|AB|`, `S : T`
PARAMETER = re.compile(r"(?:where\s+)?[A-Za-z]\s*∈\s*[ℤℕℝ]")
BUILDER = re.compile(r"[A-Za-z]\s*(?:∈\s*ℝ\s*)?[|:](.*)", re.S)


def shape(text: str) -> Shape:
    r"""(kind, parts) of a cleaned answer.

    `1, 2` list · `⦃1, 2⦄` set · `(1, 2]` tuple, kind "(]" · `(0,1) ∪ (2,3)` union · `2 < x ≤ 3` relation, operators
    at the odd places · `\begin{pmatrix}..` matrix, first part the number of rows · all else scalar.
    """
    text = split(text.strip(), "⇒")[-1]
    while (wrapper := re.match(r"(?:\\text\s*)?\{", text)) and closing(text, wrapper.end() - 1) == len(text) - 1:
        text = text[wrapper.end() : -1].strip()
    if (
        re.fullmatch(r"¤?\s*-?\d{1,3}(,\d{3})+(?!\d).*", text)
        and len(split(re.sub(r",(?=\d{3})", "", text), ",;")) == 1
    ):
        text = re.sub(r",(?=\d{3})", "", text)
    if matrix := re.fullmatch(
        r"[(\[]?\s*\\begin\s*\{([a-zA-Z]*)\}(?:\{[clr|]*\})?(.*)\\end\s*\{\1\}\s*[)\]]?", text, re.S
    ):
        rows = [row.split("&") for row in matrix[2].split("\\\\") if row.strip()]
        if matrix[1] in ("cases", "aligned", "align"):
            return "list", [" ".join(row) for row in rows]
        if matrix[1] != "vmatrix":
            return "matrix", [str(len(rows)), *(cell for row in rows for cell in row)]
    listed = [part for part in split(text, ",;")[::2] if part]
    if len(listed) > 1:
        listed = [part for part in listed if not PARAMETER.fullmatch(part)] or listed[:1]
    if len(listed) > 1:
        return "list", listed
    text = listed[0] if listed else text
    sides = split(text, "=<>≤≥≠≈∈")
    if len(sides) > 1:
        return "relation", sides
    if len(union := split(text, "∪")) > 1:
        return "union", union[::2]
    if len(minus := split(text, "∖")) == 3 and (pieces := without_points(minus[0], minus[2])):
        return "union", pieces
    if len(text) > 1 and text[0] in "([⦃" and text[-1] in ")]⦄" and _closed_at_end(text):
        inner = [part for part in split(text[1:-1], ",;")[::2] if part]
        if text[0] == "⦃":
            built = BUILDER.fullmatch(text[1:-1].strip())
            return shape(built[1]) if built else ("set", inner)
        if len(inner) > 1:
            return text[0] + text[-1], inner
        if text[0] + text[-1] in ("()", "[]") and inner:
            return shape(inner[0])
    if "±" in text:
        return "list", [text.replace("±", "+"), text.replace("±", "-")]
    if len(ratio := split(text, ":")) > 1:
        return "ratio", ratio[::2]
    return "scalar", [text]


def without_points(whole: str, points: str) -> list[str]:
    """`(-1, 5) ∖ ⦃0, 2⦄` -> `(-1,0)`, `(0,2)`, `(2,5)`; [] where it cannot be told."""
    base = shape("(-∞,∞)" if whole == "ℝ" else whole)
    kind, holes = shape(points)
    if kind != "set" or base[0] not in ("()", "(]", "[)", "[]") or any(has_names(hole) for hole in holes):
        return []
    ends = [base[1][0], *sorted(holes, key=lambda hole: mp().re(value(hole))), base[1][1]]
    pieces = [f"({low},{high})" for low, high in pairwise(ends)]
    return [base[0][0] + pieces[0][1:], *pieces[1:-1], pieces[-1][:-1] + base[0][1]]


def _closed_at_end(text: str) -> bool:
    depth = 0
    for index, char in enumerate(text):
        depth += (char in OPENING) - (char in CLOSING)
        if depth == 0:
            return index == len(text) - 1
    return False


def interval_parts(side: Shape) -> list[str]:
    """An inequality in one name, or several joined by `or`, or a union, as intervals; [] for anything else."""
    kind, parts = side
    if kind in ("()", "(]", "[)", "[]") and len(parts) == 2:
        return [kind[0] + ",".join(parts) + kind[1]]
    if kind == "union":
        return parts
    if kind == "list":
        pieces = [shape(part) for part in parts]
        found = [interval_parts(piece) for piece in pieces if piece[0] == "relation"]
        return [piece for each in found for piece in each] if len(found) == len(parts) and all(found) else []
    if kind != "relation":
        return []
    if parts[1:2] == ["∈"] and NAME.fullmatch(parts[0]):
        return interval_parts(shape(parts[2]))
    if len(parts) == 3 and has_names(parts[2]):
        parts = [parts[2], parts[1].translate(MIRROR), parts[0]]
    if len(parts) == 5 and set(parts[1::2]) <= set(">≥"):
        parts = [part.translate(MIRROR) if at % 2 else part for at, part in enumerate(parts)][::-1]
    name = parts[0] if len(parts) == 3 else parts[2]
    ends = [part for part in parts[::2] if part != name]
    if not re.fullmatch(r"\\?[A-Za-zα-ω](?:_\w)?", name) or any(has_names(end) for end in ends):
        return []
    match parts:
        case [_, "<" | "≤" as operator, high]:
            return [f"(-∞,{high}{')' if operator == '<' else ']'}"]
        case [_, ">" | "≥" as operator, low]:
            return [f"{'(' if operator == '>' else '['}{low},∞)"]
        case [_, "≠", hole]:
            return [f"(-∞,{hole})", f"({hole},∞)"]
        case [low, "<" | "≤" as left, _, "<" | "≤" as right, high]:
            return [f"{'(' if left == '<' else '['}{low},{high}{')' if right == '<' else ']'}"]
    return []


def vector(kind: str, parts: list[str]) -> list[str]:
    """The entries of a matrix of one row or column, or of a tuple in round brackets."""
    if kind == "matrix":
        rows, entries = int(parts[0]), parts[1:]
        return entries if rows in (1, len(entries)) else []
    return parts if kind == "()" else []


def expand(parts: list[str]) -> list[str]:
    """`1 ± i, -2` -> `1 + i, 1 - i, -2`."""
    return [side for part in parts for side in ([part.replace("±", s) for s in "+-"] if "±" in part else [part])]


def by_name(parts: list[str]) -> list[str]:
    """`y = 2, x = 1` in the order of the names; any other list as it is."""
    names = [part.partition("=")[0].strip() for part in parts if "=" in part]
    return sorted(parts) if len(set(names)) == len(parts) else parts
