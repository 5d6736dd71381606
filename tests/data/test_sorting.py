"""The sorting task: the splits, the demonstrations and their slips, and that its verifier reads its answers."""

from __future__ import annotations

import math
import sys
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo import plugins

sorting = sys.modules[plugins.load("sorting", "data").__module__]
verifier = plugins.load("sorted_list", "rewards")
lists = st.lists(st.integers(0, 99), min_size=3, max_size=6)


@pytest.mark.parametrize(("split", "size"), [("train", 8192), ("test", 1024)])
def test_every_row_holds_its_numbers_in_order(split, size):
    rows = sorting.load(split)
    assert len({row["problem"] for row in rows}) == size
    for row in rows:
        numbers = [int(number) for number in row["problem"].removesuffix("=").split(" ")]
        assert row["answer"] == " ".join(str(number) for number in sorted(numbers))
        assert row["level"] == len(numbers) and 0 <= min(numbers) <= max(numbers) <= 99
        assert verifier(row["answer"], row["answer"]) == 1.0
    assert {row["level"] for row in rows} == {3, 4, 5, 6}


def test_no_numbers_are_in_both_splits_in_any_order():
    train, test = ({row["answer"] for row in sorting.load(split)} for split in ("train", "test"))
    assert not train & test


def test_rows_are_always_the_same():
    assert sorting.load("test") == sorting.load("test")
    assert sorting.load("test")[2] == {"problem": "84 65 55=", "answer": "55 65 84", "level": 3}


def test_an_unknown_split_is_an_error_that_names_both():
    with pytest.raises(ValueError, match="no split 'validation': it has 'train' and 'test'"):
        sorting.load("validation")


@given(numbers=lists, seed=st.integers(0, 2**32))
def test_a_demonstration_without_slips_is_the_answer(numbers, seed):
    problem = sorting.written(numbers) + "="
    assert sorting.worked_solution(problem, Random(seed), slip=0.0) == sorting.written(sorted(numbers))


@given(numbers=lists, seed=st.integers(0, 2**32))
def test_a_slip_never_invents_a_number(numbers, seed):
    left = list(numbers)
    for number in sorting.worked_solution(sorting.written(numbers) + "=", Random(seed), slip=1.0).split(" "):
        left.remove(int(number))


def test_slips_spoil_a_demonstration_at_the_stated_rate():
    """Four numbers: three chances to change places (0.1), four to get lost (0.05)."""
    rng, draws = Random(0), 4000
    wrong = sum(sorting.worked_solution("7 1 9 4=", rng) != "1 4 7 9" for _ in range(draws))
    expected = 1 - 0.9**3 * 0.95**4
    assert abs(wrong / draws - expected) < 4 * math.sqrt(expected * (1 - expected) / draws)
