r"""Guess first, then work it out: the parity of a string of bits, made by a seeded generator; for the embedded model.

    load("test")[0]   -> {"problem": "1100110001=", "answer": "1", "pattern": "(?s)1 .*", "level": 2}

This task tests one claim: that GRPO makes *incorrect* responses longer and Dr. GRPO does not (arXiv 2503.20783, section
3.1). For that, errors must persist, the policy must be able to tell within a response that it is wrong, and length must
be free. So a response begins with a guess, and only then works out the parity after each bit, compares, and says so:

    1 1000100001 1=1 yes          right
    0 1000100001 1=0 no......     wrong: the running parity ends in 1, and the guess was 0

The guess alone is rewarded. In one look, parity is beyond a model of this size: at level 2 (8 to 12 bits that count) it
is right half the time, whatever is learnt. At level 1 (leading zeros, then at most 3 bits) it can be learnt; the
demonstrations, on which `scripts/make_tiny_model.py` warm-starts the tiny model, guess wrong there with probability
`SLIP`. How many dots follow a `no` is free: in the demonstrations each is followed by another with probability `GO_ON`.
"""

from __future__ import annotations

import zlib
from random import Random

REWARD = ("regex",)
"""What `--reward` means for this data set where it is left unset: the response begins with the answer."""
SEED = 20250326
SIZES = {"train": 8192, "test": 1024}
LENGTHS = (8, 9, 10, 11, 12)
"""Bits in a string."""
EASY_BITS = 3
"""Bits that count at level 1; all before them are 0."""
SLIP = 0.3
GO_ON = 0.9


def load(split: str) -> list[dict]:
    """Rows {"problem": "0110=", "answer": "0", "pattern": "(?s)0 .*", "level": 2}, always the same.

    No string is in both splits. There are few strings at level 1: they recur within their split.

    Raises: ValueError for a split other than "train" and "test".
    """
    if split not in SIZES:
        raise ValueError(f"parity has no split '{split}': it has 'train' and 'test'.")
    rng = Random(f"{SEED} {split}")
    return [draw_problem(rng, split) for _ in range(SIZES[split])]


def draw_problem(rng: Random, split: str) -> dict:
    """One random row of a split, both levels equally likely."""
    level = rng.choice((1, 2))
    while True:
        length = rng.choice(LENGTHS)
        counting = EASY_BITS if level == 1 else length
        bits = "".join(rng.choice("01") for _ in range(counting)).zfill(length)
        if split_of(bits) == split:
            answer = str(bits.count("1") % 2)
            return {"problem": f"{bits}=", "answer": answer, "pattern": f"(?s){answer} .*", "level": level}


def split_of(bits: str) -> str:
    """The split that a string belongs to, by a hash: one string in eight is a test problem."""
    return "test" if zlib.crc32(bits.encode()) % 8 == 0 else "train"


def running_parity(bits: str) -> str:
    """The parity after each bit: `0110` -> `0100`."""
    return "".join(str(bits[: end + 1].count("1") % 2) for end in range(len(bits)))


def worked_solution(problem: str, rng: Random) -> str:
    """A guess, the running parity, a comparison of the two, and after a wrong guess some dots."""
    bits = problem.rstrip("=")
    parity = bits.count("1") % 2
    easy = "1" not in bits[:-EASY_BITS]
    guess = 1 - parity if rng.random() < (SLIP if easy else 0.5) else parity
    text = f"{guess} {running_parity(bits)} {parity}={guess} {'yes' if guess == parity else 'no'}"
    while guess != parity and rng.random() < GO_ON:
        text += "."
    return text
