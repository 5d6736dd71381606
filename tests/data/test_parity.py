"""The parity task: the splits, the demonstrations, and that nothing but the guess is rewarded."""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo import plugins

parity = sys.modules[plugins.load("parity", "data").__module__]
verifier = plugins.load("regex", "rewards")
strings = st.text("01", min_size=8, max_size=12)


@pytest.mark.parametrize(("split", "size"), [("train", 8192), ("test", 1024)])
def test_every_row_has_the_parity_of_its_bits(split, size):
    rows = parity.load(split)
    assert len(rows) == size
    for row in rows:
        bits = row["problem"].removesuffix("=")
        assert set(bits) <= {"0", "1"} and 8 <= len(bits) <= 12
        assert row["answer"] == ("1" if Counter(bits)["1"] % 2 else "0")
        assert row["level"] == 2 or bits[:-3] == "0" * (len(bits) - 3)
    levels = Counter(row["level"] for row in rows)
    assert abs(levels[1] - levels[2]) < 4 * math.sqrt(size)


def test_no_string_is_in_both_splits():
    train, test = ({row["problem"] for row in parity.load(split)} for split in ("train", "test"))
    assert not train & test


def test_an_unknown_split_is_an_error_that_names_both():
    with pytest.raises(ValueError, match="no split 'validation': it has 'train' and 'test'"):
        parity.load("validation")


def test_the_running_parity_by_hand():
    assert parity.running_parity("0110100011") == "0100111101"


@given(bits=strings, seed=st.integers(0, 2**32))
def test_a_demonstration_works_out_the_truth_and_says_it(bits, seed):
    answer = str(bits.count("1") % 2)
    solution = parity.worked_solution(f"{bits}=", Random(seed))
    guess, running, compared, verdict = re.fullmatch(r"([01]) ([01]+) ([01]=[01]) (yes|no\.*)", solution).groups()
    assert len(running) == len(bits) and running[-1] == answer
    assert all((running[i] != running[i - 1]) == (bits[i] == "1") for i in range(1, len(bits)))
    assert compared == f"{answer}={guess}"
    assert (verdict == "yes") is (guess == answer)


@given(bits=strings, seed=st.integers(0, 2**32))
def test_the_guess_alone_is_rewarded(bits, seed):
    row = {"pattern": f"(?s){bits.count('1') % 2} .*"}
    solution = parity.worked_solution(f"{bits}=", Random(seed))
    assert verifier(solution, **row) == float("yes" in solution)
    other = "1" if solution[0] == "0" else "0"
    assert verifier(other + solution[1:], **row) == 1 - verifier(solution, **row)
    assert verifier(solution + f" {other} {solution}", **row) == verifier(solution, **row)


def test_a_row_carries_its_pattern():
    row = parity.load("test")[0]
    assert row["pattern"] == f"(?s){row['answer']} .*"


@pytest.mark.parametrize(("problem", "wrong"), [("000000011=", 0.3), ("101000011=", 0.5)])
def test_guesses_are_wrong_at_the_stated_rate(problem, wrong):
    rng, draws = Random(0), 4000
    found = sum("no" in parity.worked_solution(problem, rng) for _ in range(draws)) / draws
    assert abs(found - wrong) < 4 * math.sqrt(wrong * (1 - wrong) / draws)


def test_a_wrong_guess_is_followed_by_nine_dots_on_average():
    rng = Random(0)
    dots = [s.count(".") for s in (parity.worked_solution("101000011=", rng) for _ in range(4000)) if "no" in s]
    assert abs(sum(dots) / len(dots) - 9) < 4 * math.sqrt(90 / len(dots))  # geometric: the variance is 0.9 / 0.1^2
