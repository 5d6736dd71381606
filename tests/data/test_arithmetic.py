"""The default task: the splits, the worked solutions and their slips."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo import plugins

ROOT = Path(__file__).resolve().parents[2]
arithmetic = sys.modules[plugins.load("arithmetic", "data").__module__]

numbers = st.integers(10, 9999)
seeds = st.integers(0, 2**32)


# The data


@pytest.mark.parametrize(("split", "size"), [("train", 8192), ("test", 1024)])
def test_every_row_is_a_right_sum_of_its_level(split, size):
    rows = arithmetic.load(split)
    assert len({row["problem"] for row in rows}) == size
    for row in rows:
        a, b = re.fullmatch(r"(\d+)\+(\d+)=", row["problem"]).groups()
        assert row["answer"] == str(int(a) + int(b))
        assert row["level"] == max(len(a), len(b)) in (2, 3, 4)
        assert min(len(a), len(b)) >= 2
    assert {row["level"] for row in rows[:100]} == {2, 3, 4}


def test_no_sum_is_in_both_splits_in_either_order():
    train, test = (
        {frozenset(row["problem"].rstrip("=").split("+")) for row in arithmetic.load(split)}
        for split in ("train", "test")
    )
    assert not train & test


def test_rows_are_the_same_in_every_process():
    program = (
        "import json, sys; sys.path.insert(0, 'data'); import arithmetic; print(json.dumps(arithmetic.load('test')))"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == arithmetic.load("test")
    assert arithmetic.load("test")[1] == {"problem": "29+770=", "answer": "799", "level": 3}


def test_an_unknown_split_is_an_error_that_names_both():
    with pytest.raises(ValueError, match="no split 'validation': it has 'train' and 'test'"):
        arithmetic.load("validation")


# The worked solutions


@pytest.mark.parametrize(
    ("style", "solution"),
    [
        ("direct", r"\boxed{432}"),
        ("brief", r"12 13 4 \boxed{432}"),
        ("columns", r"7+5=12 4+8+1=13 3+1=4 \boxed{432}"),
        ("checked", r"7+5=12 4+8+1=13 3+1=4 check 12 13 4 \boxed{432}"),
    ],
)
def test_a_careful_solution_in_each_style(style, solution):
    assert arithmetic.worked_solution("47+385=", Random(0), style, slip=0.0) == solution
    assert arithmetic.style_of(solution) == style


@pytest.mark.parametrize(
    ("style", "solution"),
    [
        ("direct", r"\boxed{422}"),
        ("brief", r"12 12 4 \boxed{422}"),
        ("columns", r"7+5=12 4+8=12 4=4 \boxed{422}"),
        ("checked", r"7+5=12 4+8=12 4=4 check 12 13 5 \boxed{532}"),
    ],
)
def test_a_solution_with_every_carry_wrong(style, solution):
    """Of 47+485=532: both carries are forgotten; the check remembers them."""
    assert arithmetic.worked_solution("47+485=", Random(0), style, slip=1.0) == solution


@given(a=numbers, b=numbers, style=st.sampled_from(arithmetic.STYLES), seed=seeds)
def test_a_solution_without_slips_boxes_the_sum(a, b, style, seed):
    solution = arithmetic.worked_solution(f"{a}+{b}=", Random(seed), style, slip=0.0)
    assert solution.endswith(f"\\boxed{{{a + b}}}")
    assert arithmetic.style_of(solution) == style


@given(a=numbers, b=numbers, seed=seeds)
def test_every_written_column_is_right_in_itself(a, b, seed):
    """A slip is in what is carried, never in the adding: `4+8=12` may lack a +1, but is no false equation."""
    solution = arithmetic.worked_solution(f"{a}+{b}=", Random(seed), "columns", slip=0.5)
    *columns, _ = solution.split(" ")
    assert len(columns) == max(len(str(a)), len(str(b)))
    for column in columns:
        left, right = column.split("=")
        assert sum(map(int, left.split("+"))) == int(right)


@pytest.mark.parametrize("style", ["direct", "brief", "columns"])
def test_slips_spoil_the_answer_at_the_stated_rate(style):
    """Each of the three carries of a four-digit sum is right with probability 0.9, so 27.1% of answers are wrong."""
    rng, draws = Random(0), 4000
    wrong = sum(
        not arithmetic.worked_solution(f"{a}+{b}=", rng, style).endswith(f"\\boxed{{{a + b}}}")
        for a, b in ((rng.randint(1000, 9999), rng.randint(10, 9999)) for _ in range(draws))
    )
    expected = 1 - 0.9**3
    assert abs(wrong / draws - expected) < 4 * math.sqrt(expected * (1 - expected) / draws)


def test_a_check_mends_the_slips():
    rng = Random(0)
    for _ in range(200):
        a, b = rng.randint(10, 9999), rng.randint(10, 9999)
        solution = arithmetic.worked_solution(f"{a}+{b}=", rng, "checked", slip=1.0)
        first, second = solution.split(" check ")
        assert second.endswith(f"\\boxed{{{a + b}}}")
        assert [column.split("=")[1] for column in first.split(" ")] != second.split(" ")[:-1]


def test_an_unknown_style_is_an_error_that_names_all():
    with pytest.raises(ValueError, match="no style 'terse': the styles are direct, brief, columns, checked"):
        arithmetic.worked_solution("47+385=", Random(0), "terse")
