r"""Additions of two numbers of two to four digits, made by a seeded generator: the default task, no download.

    load("test")[1]   -> {"problem": "29+770=", "answer": "799", "level": 3}
    worked_solution("47+385=", Random(0), "columns", slip=0.0)   -> r"7+5=12 4+8+1=13 3+1=4 \boxed{432}"

The same file writes the worked solutions on which `scripts/make_tiny_model.py` warm-starts the tiny model. They come
in four styles, from the bare answer to every column written out, and in each a carry goes wrong now and then (`SLIP`).
So the warm-started model answers in all four ways and is often wrong, and reinforcement learning can find out that it
pays to write the steps down and to mind the carries.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from random import Random

SEED = 20250321
SIZES = {"train": 8192, "test": 1024}
LEVELS = (2, 3, 4)
"""Digits of the longer number; the shorter one has between two and as many."""

STYLES = ("direct", "brief", "columns", "checked")
SLIP = 0.1
"""Probability that the carry out of a column is wrong: forgotten where there is one, invented where there is none."""


def load(split: str) -> list[dict]:
    """Rows {"problem": "47+385=", "answer": "432", "level": 3}, always the same; no sum is in both splits.

    Raises: ValueError for a split other than "train" and "test".
    """
    if split not in SIZES:
        raise ValueError(f"arithmetic has no split '{split}': it has 'train' and 'test'.")
    rng = Random(f"{SEED} {split}")
    rows = {}
    while len(rows) < SIZES[split]:
        row = draw_problem(rng, split)
        rows[row["problem"]] = row
    return list(rows.values())


def draw_problem(rng: Random, split: str) -> dict:
    """One random row of a split, every level equally likely."""
    while True:
        level = rng.choice(LEVELS)
        numbers = [random_number(rng, level), random_number(rng, rng.randint(min(LEVELS), level))]
        rng.shuffle(numbers)
        if split_of(*numbers) == split:
            return {"problem": "{}+{}=".format(*numbers), "answer": str(sum(numbers)), "level": level}


def random_number(rng: Random, digits: int) -> int:
    """A number of exactly so many digits."""
    return rng.randrange(10 ** (digits - 1), 10**digits)


def split_of(a: int, b: int) -> str:
    """The split that a+b belongs to, by a hash of the unordered pair: one sum in eight is a test problem."""
    return "test" if zlib.crc32(f"{min(a, b)}+{max(a, b)}".encode()) % 8 == 0 else "train"


@dataclass(frozen=True)
class Column:
    """One column of a written addition."""

    digits: tuple[int, ...]
    """The digits that stand in it, those of the first number first; the shorter number may have none."""
    carry: int
    """What the column to its right hands over, as the writer has it: 0 or 1."""

    @property
    def total(self) -> int:
        return sum(self.digits) + self.carry

    def __str__(self) -> str:
        """`4+8+1=13`; a digit that stands alone is `3=3`."""
        summands = [*self.digits, self.carry] if self.carry else self.digits
        return f"{'+'.join(map(str, summands))}={self.total}"


def written_columns(a: int, b: int, rng: Random, slip: float) -> list[Column]:
    """The columns of a+b from the right; each carry is wrong with probability `slip` and the writer goes on with it."""
    reversed_digits = [[int(digit) for digit in reversed(str(number))] for number in (a, b)]
    columns: list[Column] = []
    for place in range(max(map(len, reversed_digits))):
        carry = columns[-1].total // 10 if columns else 0
        if columns and rng.random() < slip:
            carry = 1 - carry
        columns.append(Column(tuple(digits[place] for digits in reversed_digits if place < len(digits)), carry))
    return columns


def read_off(columns: list[Column]) -> str:
    """The number under the line: the last digit of every column, and the whole total of the leftmost."""
    return str(columns[-1].total) + "".join(str(column.total % 10) for column in reversed(columns[:-1]))


def worked_solution(problem: str, rng: Random, style: str, slip: float = SLIP) -> str:
    r"""A response to a problem in one of four styles, each carry wrong with probability `slip`.

    direct   \boxed{432}
    brief    12 13 4 \boxed{432}                                      the total of each column, from the right
    columns  7+5=12 4+8+1=13 3+1=4 \boxed{432}                        each column written out
    checked  7+5=12 4+8+1=13 3+1=4 check 12 13 4 \boxed{432}          and once more, the second time without a slip

    Raises: ValueError for an unknown style.
    """
    if style not in STYLES:
        raise ValueError(f"there is no style '{style}': the styles are {', '.join(STYLES)}.")
    a, b = map(int, problem.rstrip("=").split("+"))
    columns = written_columns(a, b, rng, slip)
    steps = []
    if style in ("columns", "checked"):
        steps += map(str, columns)
    if style == "checked":
        columns = written_columns(a, b, rng, slip=0.0)
        steps.append("check")
    if style in ("brief", "checked"):
        steps += [str(column.total) for column in columns]
    return " ".join([*steps, f"\\boxed{{{read_off(columns)}}}"])


def style_of(response: str) -> str:
    """The style in which a response is written, told by its form."""
    if "check" in response:
        return "checked"
    if "+" in response:
        return "columns"
    return "direct" if response.startswith("\\boxed{") else "brief"
