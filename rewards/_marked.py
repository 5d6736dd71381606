r"""The part of a response that it marks as its answer.

    marked_answer(r"so \boxed{4} <answer>5</answer>")  -> "5"
    marked_answer(r"\boxed{\frac{1}{2}}.")             -> r"\frac{1}{2}"
    marked_answer("It is 5.")                          -> None

The last `<answer>` tag counts, and a box within it; else the last balanced box of the text.
"""

from __future__ import annotations

import re


def marked_answer(response: str) -> str | None:
    r"""Content of the last `<answer>` tag, else of the last balanced `\boxed{}`; None where there is neither."""
    end = response.rfind("</answer>")
    start = response.rfind("<answer>", 0, max(end, 0))
    tagged = response[start + len("<answer>") : end] if start >= 0 else None
    box: tuple[int, int] | None = None
    open_braces: list[int | None] = []  # for each open brace, where its box's content starts; None: a plain brace
    text = response if tagged is None else tagged
    for brace in re.finditer(r"\\[{}]|\\f?boxed\s*\{|[{}]", text):
        if brace[0] == "}" and open_braces:
            content = open_braces.pop()
            box = box if content is None else (content, brace.start())
        elif brace[0].endswith("{") and brace[0] != r"\{":
            open_braces.append(brace.end() if brace[0].startswith("\\") else None)
    return tagged if box is None else text[box[0] : box[1]]
