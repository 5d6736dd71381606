"""Pictures stay small: what is kept of a long run, and what a cell says."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo.logs.pictures import CELL_CHARACTERS, PICTURE_ROWS, Thinned, cell, length_chart, number, sample_table


def sample(step, **changed):
    return {
        "step": step,
        "prompt": "1+1=",
        "response": r"\boxed{2}",
        "reward": 1.0,
        "advantage": 0.5,
        "truncated": False,
        "verifiers": {"math_answer": 1.0, "form": None},
        "columns": {"answer": "2", "level": 3},
        **changed,
    }


def thinned(steps, each):
    kept = Thinned()
    for step in range(1, steps + 1):
        for _ in range(each):
            kept.add({"step": step})
    return kept


def test_a_short_run_is_kept_whole():
    assert [row["step"] for row in thinned(150, 2).rows] == [step for step in range(1, 151) for _ in range(2)]


def test_a_thousand_steps_are_thinned_evenly():
    """2,000 rows do not fit, nor every second or fourth step of 1,000; every eighth does: 125 steps of 2 rows."""
    assert [row["step"] for row in thinned(1000, 2).rows] == [s for s in [1, *range(8, 1001, 8)] for _ in range(2)]


@given(steps=st.integers(1, 900), each=st.integers(1, 400))
def test_kept_rows_fit_and_are_spread(steps, each):
    steps = min(steps, 4000 // each)
    kept = thinned(steps, each)
    assert len(kept.rows) <= max(PICTURE_ROWS, 2 * each)
    assert {row["step"] for row in kept.rows} == {s for s in range(1, steps + 1) if s == 1 or s % kept.stride == 0}
    assert kept.stride == 1 or (2 * (steps // kept.stride) + 3) * each > PICTURE_ROWS  # not thinner than it must be


def test_a_row_each():
    table = sample_table([sample(1), sample(2, advantage=float("nan"), verifiers={"math_answer": 0.0, "form": 1.0})])
    assert table["samples"].columns == [
        *("step", "prompt", "response", "answer", "reward", "advantage", "truncated"),
        *("reward/math_answer", "reward/form"),
    ]
    assert table["samples"].data == [
        [1, "1+1=", r"\boxed{2}", "2", 1.0, 0.5, False, 1.0, None],
        [2, "1+1=", r"\boxed{2}", "2", 1.0, None, False, 0.0, 1.0],
    ]


def test_answers_of_any_type_share_a_column():
    samples = [sample(step, columns=columns) for step, columns in enumerate([{}, {"answer": 7}, {"answer": ["a", 1]}])]
    assert [row[3] for row in sample_table(samples)["samples"].data] == [None, "7", '["a", 1]']


def test_nothing_to_draw_is_nothing():
    assert sample_table([]) == {} and length_chart([{"step": 0, "eval/accuracy": 0.5}]) == {}


def test_the_chart_has_the_points_that_exist():
    rows = [
        {"step": 1, "length/correct": None, "length/incorrect": 20.0},
        {"step": 2, "length/correct": 12.0, "length/incorrect": 21.0},
    ]
    chart = length_chart(rows)["length/by_outcome"]
    assert chart.table.data == [[2, "correct", 12.0], [1, "incorrect", 20.0], [2, "incorrect", 21.0]]


def test_a_long_text_keeps_its_ends_and_says_what_is_missing():
    text = "".join(random.Random(0).choices("abc", k=CELL_CHARACTERS + 500))
    shown = cell(text)
    assert shown == f"{text[:1000]}\n[... 500 characters cut, see samples.jsonl ...]\n{text[-1000:]}"
    assert cell(text[:CELL_CHARACTERS]) == text[:CELL_CHARACTERS]


@pytest.mark.parametrize(
    "value,shown",
    [
        ([{"role": "system", "content": "be brief"}, {"role": "user", "content": "1+1="}],
         "system: be brief\n\nuser: 1+1="),
        ("a \ud800 b", "a ? b"),
        ({"é": 1}, '{"é": 1}'),
        ([], "[]"),
        (None, None),
    ],
)  # fmt: skip
def test_cells(value, shown):
    assert cell(value) == shown
    json.dumps(cell(value)).encode()


def test_numbers():
    assert [number(value) for value in (None, float("nan"), float("inf"), 1, 0.5)] == [None, None, None, 1.0, 0.5]
