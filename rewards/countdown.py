r"""Countdown: 1.0 where the response's arithmetic reaches `target` and uses each of `nums` exactly once, else 0.0.

The expression is what the last `<answer>...</answer>` or balanced `\boxed{...}` holds, with or without `= target` after
it; where neither is there, the left side of the last equation of the text. Further steps (`8 * (1 + 2) = 8 * 3 = 24`)
are not judged. The expression may hold the given numbers, `+ - * /` and round brackets, also written `\times`, `\div`,
`\frac{a}{b}`, and nothing else: no powers, no integer division, no decimals, no digits run together. Python's parser
reads it, a walk over the few permitted node types computes it in exact fractions, and nothing is ever executed.

>>> reward(r"<answer>(1 + 2) * 8</answer>", nums=[8, 1, 2], target=24)
1.0
>>> reward(r"So \boxed{8 \times (1 + 2) = 24}", nums=[8, 1, 2], target=24)
1.0
>>> reward("<answer>8 * 3</answer>", nums=[8, 1, 2], target=24)
0.0
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Sequence
from fractions import Fraction

from ._marked import marked_answer

OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
SPELLINGS = {
    **dict.fromkeys(("\\times", "\\cdot", "\\ast", "\u00d7", "\u00b7"), "*"),
    **dict.fromkeys(("\\div", "\u00f7"), "/"),
    **dict.fromkeys(("\u2212", "\u2013"), "-"),
    **dict.fromkeys(("\\left", "\\right", "\\(", "\\)", "\\[", "\\]", "$", "\\,", "\\;", "\\!"), " "),
}
FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
ARITHMETIC = r"[-+*/() 0-9]+"
EQUATION = re.compile(rf"(?<![-+*/() 0-9]){ARITHMETIC}(?:={ARITHMETIC})+(?!\.?[0-9])")
LENGTH, DEPTH, DIGITS = 300, 30, 30
"""Characters of an expression, brackets within brackets, digits of a number: beyond these it is no answer."""


def reward(response: str, nums: Sequence[int], target: int) -> float:
    """1.0 where the expression is made of exactly `nums` and equals `target`, else 0.0.

    Raises: ValueError where nums is empty or holds a negative number.
    """
    if not nums or min(nums) < 0:
        raise ValueError(f"the column 'nums' must hold at least one number and none below 0, not {nums!r}.")
    expression = _expression(response, target)
    try:
        used, value = _evaluate(ast.parse(expression, mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError):
        return 0.0
    return float(sorted(used) == sorted(map(int, nums)) and value == target)


def _expression(response: str, target: int) -> str:
    """The expression to judge, in Python's spelling; empty where the response has none that may be read."""
    marked = marked_answer(response)
    text = _plain(response if marked is None else marked)
    if marked is None:
        equations = EQUATION.findall(text)
        text = equations[-1] if equations else ""
    expression, *steps = (part.strip() for part in text.split("="))
    if steps and steps[-1].rstrip(".") != str(target):
        return ""
    too_deep = max(expression.count("("), expression.count("-")) > DEPTH
    permitted = len(expression) <= LENGTH and not too_deep and re.fullmatch(ARITHMETIC, expression)
    return expression if permitted else ""


def _plain(text: str) -> str:
    for written, plain in SPELLINGS.items():
        text = text.replace(written, plain)
    for _ in range(DEPTH):  # from the innermost fraction outwards
        text, replaced = FRACTION.subn(r"((\1)/(\2))", text)
        if not replaced:
            break
    return text


def _evaluate(node: ast.expr) -> tuple[list[int], Fraction]:
    """The numbers that occur, and the value. Raises: ValueError at anything but the four operations on integers."""
    match node:
        case ast.Constant(value=int(number)) if number < 10**DIGITS:
            return [number], Fraction(number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            used, value = _evaluate(operand)
            return used, -value
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            (used_left, x), (used_right, y) = _evaluate(left), _evaluate(right)
            return used_left + used_right, OPERATORS[type(op)](x, y)
    raise ValueError(f"{type(node).__name__} is not arithmetic")
