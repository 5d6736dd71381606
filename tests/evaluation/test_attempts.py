"""pass@k and maj@k: against enumeration and by hand."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo.evaluation.attempts import maj_at_k, pass_at_k


@given(correct=st.lists(st.booleans(), min_size=1, max_size=8), data=st.data())
def test_pass_at_k_is_the_share_of_subsets_that_hold_a_correct_one(correct, data):
    k = data.draw(st.integers(1, len(correct)))
    subsets = list(combinations(correct, k))
    expected = sum(any(subset) for subset in subsets) / len(subsets)
    assert pass_at_k(len(correct), sum(correct), k) == pytest.approx(expected, abs=1e-12)


@given(n=st.integers(1, 60), data=st.data())
def test_pass_at_1_is_the_average_and_more_draws_never_hurt(n, data):
    correct = data.draw(st.integers(0, n))
    values = [pass_at_k(n, correct, k) for k in range(1, n + 1)]
    assert values[0] == pytest.approx(correct / n, abs=1e-12)
    assert values == sorted(values) and values[-1] == float(correct > 0)


def test_pass_at_k_is_unbiased():
    """Over all outcomes of 4 responses that are correct with probability 0.3, its mean is 1 - 0.7^2 for k = 2."""
    outcomes = product([0, 1], repeat=4)
    mean = sum(0.3 ** sum(o) * 0.7 ** (4 - sum(o)) * pass_at_k(4, sum(o), 2) for o in outcomes)
    assert mean == pytest.approx(1 - 0.7**2, abs=1e-12)


def test_pass_at_k_of_many_responses_neither_overflows_nor_rounds_to_nothing():
    assert pass_at_k(10_000, 1, 100) == pytest.approx(0.01, rel=1e-12)


@pytest.mark.parametrize("n,correct,k", [(4, 1, 0), (4, 1, 5), (4, 5, 2), (4, -1, 2), (0, 0, 1)])
def test_what_pass_at_k_is_not_defined_for(n, correct, k):
    with pytest.raises(ValueError, match=f"pass@{k}"):
        pass_at_k(n, correct, k)


@pytest.mark.parametrize(
    "answers,correct,k,expected",
    [
        ("7 7 8", "110", 3, 1.0),
        ("7 8 8", "100", 3, 0.0),
        ("7 8", "10", 2, 0.5),  # a tie: one of the two tied answers is correct
        ("7 7 8 8 9 9", "110000", 6, 1 / 3),
        ("7 8 8 8", "1000", 1, 0.25),  # k = 1 is the average
        ("7 7 8 8", "1100", 2, 0.5),  # two blocks: one all correct, one all incorrect
        ("7 8 8 7 7", "10011", 4, 0.5),  # the fifth fills no block
        ("- - 7", "001", 3, 1.0),  # no vote from those without an answer
        ("- -", "00", 2, 0.0),
        ("- - 7 7", "0011", 2, 0.5),
        ("7 7 8", "100", 3, 0.5),  # the verifier failed on one of two equal answers
    ],
)
def test_maj_at_k_by_hand(answers, correct, k, expected):
    votes = [None if answer == "-" else answer for answer in answers.split()]
    assert maj_at_k(votes, [r == "1" for r in correct], k) == pytest.approx(expected)


@given(answers=st.lists(st.sampled_from(["1", "2", "3", None]), min_size=1, max_size=12), data=st.data())
def test_maj_at_k_is_a_share_and_knows_no_order_within_a_block(answers, data):
    correct = [answer == "1" for answer in answers]
    shuffled = data.draw(st.permutations(answers))
    value = maj_at_k(answers, correct, len(answers))
    assert 0.0 <= value <= 1.0
    assert maj_at_k(shuffled, [answer == "1" for answer in shuffled], len(answers)) == pytest.approx(value)
    assert maj_at_k(answers, correct, 1) == pytest.approx(np.mean(correct))


@pytest.mark.parametrize("k", [0, 3])
def test_maj_at_k_needs_a_block(k):
    with pytest.raises(ValueError, match=f"maj@{k} of 2 answers"):
        maj_at_k(["1", "2"], [True, False], k)
