"""grpo/problems/fingerprint.py: the same content has the same fingerprint in every process, any other has another."""

import datetime
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from grpo.problems.fingerprint import fingerprint, seen
from grpo.records import Problem

ITEM = {"prompt": "1+1=", "columns": {"answer": "2", "nums": [1, 1], "tags": {"b", "a", "c"}, "more": {"x": 1, "y": 2}}}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text() | st.integers(), VALUES))
def test_the_order_of_keys_and_the_kind_of_a_sequence_do_not_count(row):
    assert fingerprint([row]) == fingerprint([dict(reversed(row.items()))])
    assert fingerprint([list(row)]) == fingerprint([tuple(row)])


@given(VALUES, VALUES)
def test_what_differs_has_another(one, other):
    differ = repr(one) != repr(other) and one != other
    assert (fingerprint([one]) != fingerprint([other])) >= differ


@pytest.mark.parametrize(
    "one,other",
    [
        ([1, 2], [2, 1]),  # the order of the items, which is that of the draw
        (["a", "b"], ["ab"]),
        (["a\nb"], ["a", "b"]),
        ([1], ["1"]),
        ([1], [True]),
        ([{"a": 1}], [[["a", 1]]]),
        ([{"a": None}], [{}]),
        ([b"a"], ["a"]),
        ([np.arange(5000)], [np.arange(5000) * (np.arange(5000) != 2500)]),  # their texts are the same
        ([Fraction(1, 2)], [Fraction(1, 3)]),
        ([datetime.date(2020, 1, 2)], [datetime.date(2020, 1, 3)]),
        (["\ud800"], ["\ud801"]),  # no text of UTF-8
        ([], [None]),
    ],
)
def test_a_small_difference_counts(one, other):
    assert fingerprint(one) != fingerprint(other)


def test_an_array_is_its_numbers_and_an_object_not_its_place():
    assert fingerprint([np.array([1, 2])]) == fingerprint([[1, 2]]) and fingerprint([np.float32(0.5)]) == fingerprint(
        [0.5]
    )
    assert fingerprint([object()]) == fingerprint([object()])


def test_it_is_the_same_in_every_process():
    code = f"from grpo.problems.fingerprint import fingerprint; print(fingerprint([{ITEM!r}, object()]))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("0", "1", "2")
    }
    assert found == {fingerprint([ITEM, object()])}


def test_the_items_are_taken_one_at_a_time():
    """The next is made when the one before is done with: large data is not there twice."""
    alive = []

    class Item(list):
        def __del__(self):
            alive.remove(1)

    def items():
        for _ in range(100):
            assert len(alive) <= 1
            alive.append(1)
            yield Item([1])

    assert fingerprint(items()) == fingerprint([[1]] * 100)


def test_a_verifier_sees_its_own_columns_and_the_prompt():
    problem = Problem("1+1=", (1, 2), {"problem": "1+1=", "answer": "2", "id": 7})
    assert seen(problem, {"answer", "gold"}) == {"prompt": "1+1=", "columns": {"answer": "2"}}
    assert seen(problem, None)["columns"] == problem.columns
