r"""Text equality: 1.0 where the final answer is, character for character, the gold answer; else 0.0.

The final answer is what the response marks as such, the content of its last `<answer>...</answer>` or last balanced
`\boxed{...}` (a box within the tag counts), and the whole response where nothing is marked. Both sides are brought to
Unicode NFC and stripped of surrounding white space; case counts. For answers that are words, codes or labels.

>>> reward(r"The capital is \boxed{Paris}.", answer="Paris")
1.0
>>> reward("Paris", answer="paris")
0.0
>>> reward("It could be Paris.", answer="Paris")
0.0
"""

from __future__ import annotations

import re
import unicodedata


def reward(response: str, answer: str | int) -> float:
    """1.0 where the response's final answer equals `answer` as text, else 0.0.

    Raises: ValueError where the gold answer is empty, for it would reward an empty response.
    """
    gold = _normalised(str(answer))
    if not gold:
        raise ValueError("the column 'answer' is empty: an empty gold answer would reward an empty response.")
    marked = marked_answer(response)
    return float(_normalised(response if marked is None else marked) == gold)


def _normalised(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


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
