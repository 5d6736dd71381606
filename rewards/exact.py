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

import unicodedata

from ._marked import marked_answer


def reward(response: str, answer: str | int) -> float:
    """1.0 where the response's final answer equals `answer` as text, else 0.0.

    Raises: ValueError where the gold answer is empty, for it would reward an empty response.
    """
    gold = _normalised(str(answer))
    if not gold:
        raise ValueError("the column 'answer' is empty: an empty gold answer would reward an empty response.")
    return float(final_answer(response) == gold)


def final_answer(response: str) -> str | None:
    """What the response marks as its answer, else all of it; None where that is empty."""
    marked = marked_answer(response)
    return _normalised(response if marked is None else marked) or None


def _normalised(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()
