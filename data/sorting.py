r"""Numbers to sort, made by a seeded generator: the toy task of CS336's lecture 17. No download.

    load("test")[2]   -> {"problem": "84 65 55=", "answer": "55 65 84", "level": 3}
    worked_solution("84 65 55=", Random(0), slip=0.0)   -> "55 65 84"

The response is the numbers in ascending order and nothing else. The same file writes the demonstrations on which
`scripts/make_tiny_model.py` warm-starts the tiny model: neighbours change places and numbers get lost in them now and
then (`SLIP`), so that there is something to learn. Two rewards read the response: `--reward sorted_list` counts the
positions that are exactly right, `--reward sorted_list:inclusion` also pays for numbers that are merely there.
"""

from __future__ import annotations

import zlib
from random import Random

REWARD = ("sorted_list",)
"""What `--reward` means for this data set where it is left unset."""
SEED = 20250417
SIZES = {"train": 8192, "test": 1024}
LEVELS = (3, 4, 5, 6)
"""How many numbers."""
LARGEST = 99
SLIP = 0.1
"""Probability, at each place of the sorted list, that two neighbours have changed places; that a number is missing has
half of it."""


def load(split: str) -> list[dict]:
    """Rows {"problem": "31 4 87 15=", "answer": "4 15 31 87", "level": 4}, always the same; no multiset in both splits.

    Raises: ValueError for a split other than "train" and "test".
    """
    if split not in SIZES:
        raise ValueError(f"sorting has no split '{split}': it has 'train' and 'test'.")
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
        numbers = [rng.randint(0, LARGEST) for _ in range(level)]
        if split_of(numbers) == split:
            return {"problem": written(numbers) + "=", "answer": written(sorted(numbers)), "level": level}


def split_of(numbers: list[int]) -> str:
    """The split that these numbers belong to in any order, by a hash: one multiset in eight is a test problem."""
    return "test" if zlib.crc32(written(sorted(numbers)).encode()) % 8 == 0 else "train"


def worked_solution(problem: str, rng: Random, slip: float = SLIP) -> str:
    """The numbers of a problem in ascending order, with slips as `SLIP` says."""
    numbers = sorted(map(int, problem.rstrip("=").split()))
    for place in range(1, len(numbers)):
        if rng.random() < slip:
            numbers[place - 1 : place + 1] = numbers[place], numbers[place - 1]
    kept = [number for number in numbers if rng.random() >= slip / 2]
    return written(kept or numbers)


def written(numbers: list[int]) -> str:
    """`4 15 31 87`"""
    return " ".join(map(str, numbers))
