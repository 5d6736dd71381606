"""grpo/verifiers/cases.py: wrong answers that are close to gold ones, and never admissible."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo.verifiers.cases import gold_cases, perturbed


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        ("7", "8"),
        ("9", "0"),
        ("1,999", "1,990"),
        ("3.14", "3.15"),
        (r"\frac{1}{2}", r"\frac{1}{3}"),
        ("(B)", "(A)"),
        (r"\text{A}", r"\text{B}"),
        (r"\pi", r"-(\pi) - 7"),
        (r"\infty", r"-(\infty) - 7"),
        ("Monday", "-(Monday) - 7"),
    ],
)
def test_perturbed(answer, wrong):
    assert perturbed(answer) == wrong


@given(st.text(max_size=8), st.lists(st.text("0123456789", max_size=1)))
def test_a_perturbed_answer_is_never_admissible(answer, others):
    assert perturbed(answer, [answer, *others]) not in (answer, *others)


def test_perturbed_avoids_the_other_admissible_answers():
    assert perturbed("1", ["1", "2", "3"]) == "4"


def test_gold_cases():
    rows = [{"answer": 2}, {"answer": ["1/2", "1/3"]}, {"answer": []}]
    expected = [(rows[0], "2", "3"), (rows[1], "1/2", "1/4"), (rows[1], "1/3", "1/4")]
    assert gold_cases(rows, "answer") == expected
