r"""The lecture's toy task: the prompt holds numbers, the response should be those numbers in ascending order.

Two rewards for the same task, to see what a reward's shape does to learning (CS336, lecture 17). `reward` counts the
positions that are exactly right; `inclusion` (`--reward sorted_list:inclusion`) also pays for numbers that are merely
there and for neighbours that are merely in order. Both are in [0, 1], and 1.0 for the sorted list alone. The numbers
are the integers in the last `<answer>...</answer>`, or in the whole response where there is no such tag.

>>> reward("1 2 3", answer="1 2 3"), inclusion("1 2 3", answer=[1, 2, 3])
(1.0, 1.0)
>>> reward("1 3 2", answer="1 2 3")  # one position of three
0.3333333333333333
>>> inclusion("1 3 2", answer="1 2 3")  # three numbers and one ordered pair, of three numbers and two pairs
0.8
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise


def reward(response: str, answer: str | Sequence[int]) -> float:
    """Positions at which response and gold hold the same number, over the length of the longer of the two.

    Raises: ValueError where the gold answer is empty or not sorted.
    """
    gold, found = _gold(answer), _integers(_final(response))
    return sum(x == y for x, y in zip(gold, found, strict=False)) / max(len(gold), len(found))


def inclusion(response: str, answer: str | Sequence[int]) -> float:
    """(numbers found + neighbours in order) / (2 m - 1), with m the length of the longer of response and gold.

    A number is *found* where it occurs in the gold list and its copies there are not used up, from left to right; every
    other number of the response is surplus. *Neighbours in order* are adjacent numbers of the response, both found, of
    which the second is not smaller. So a surplus number earns nothing, and makes the divisor larger.

    Raises: ValueError where the gold answer is empty or not sorted.
    """
    gold, response_numbers = _gold(answer), _integers(_final(response))
    left = Counter(gold)
    found: list[int | None] = []
    for number in response_numbers:
        left[number] -= 1
        found.append(number if left[number] >= 0 else None)
    ordered = sum(x is not None and y is not None and x <= y for x, y in pairwise(found))
    included = sum(number is not None for number in found)
    return (included + ordered) / (2 * max(len(gold), len(found)) - 1)


def final_answer(response: str) -> str | None:
    """The numbers of the response, with spaces between them."""
    return " ".join(map(str, _integers(_final(response)))) or None


def _gold(answer: str | Sequence[int]) -> list[int]:
    gold = _integers(answer) if isinstance(answer, str) else [int(number) for number in answer]
    if not gold or gold != sorted(gold):
        raise ValueError(f"the column 'answer' must hold integers in ascending order, not {answer!r}.")
    return gold


def _final(response: str) -> str:
    end = response.rfind("</answer>")
    start = response.rfind("<answer>", 0, max(end, 0))
    return response[start + len("<answer>") : end] if start >= 0 else response


def _integers(text: str) -> list[int]:
    # 18 digits: longer runs are cut into several wrong numbers, and int() never meets its limit of 4,300 digits.
    return [int(number) for number in re.findall(r"-?[0-9]{1,18}", text)]
