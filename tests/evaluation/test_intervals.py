"""pass@k, maj@k, intervals over problems and the paired test: against enumeration, by hand, and on simulated data."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo.evaluation.intervals import Difference, Estimate, maj_at_k, mean_interval, paired_difference, pass_at_k


@given(right=st.lists(st.booleans(), min_size=1, max_size=8), data=st.data())
def test_pass_at_k_is_the_share_of_subsets_that_hold_a_right_one(right, data):
    k = data.draw(st.integers(1, len(right)))
    subsets = list(combinations(right, k))
    expected = sum(any(subset) for subset in subsets) / len(subsets)
    assert pass_at_k(len(right), sum(right), k) == pytest.approx(expected, abs=1e-12)


@given(n=st.integers(1, 60), data=st.data())
def test_pass_at_1_is_the_average_and_more_draws_never_hurt(n, data):
    right = data.draw(st.integers(0, n))
    values = [pass_at_k(n, right, k) for k in range(1, n + 1)]
    assert values[0] == pytest.approx(right / n, abs=1e-12)
    assert values == sorted(values) and values[-1] == float(right > 0)


def test_pass_at_k_is_unbiased():
    """Over all outcomes of 4 responses that are right with probability 0.3, its mean is 1 - 0.7^2 for k = 2."""
    outcomes = product([0, 1], repeat=4)
    mean = sum(0.3 ** sum(o) * 0.7 ** (4 - sum(o)) * pass_at_k(4, sum(o), 2) for o in outcomes)
    assert mean == pytest.approx(1 - 0.7**2, abs=1e-12)


def test_pass_at_k_of_many_responses_neither_overflows_nor_rounds_to_nothing():
    assert pass_at_k(10_000, 1, 100) == pytest.approx(0.01, rel=1e-12)


@pytest.mark.parametrize("n,right,k", [(4, 1, 0), (4, 1, 5), (4, 5, 2), (4, -1, 2), (0, 0, 1)])
def test_what_pass_at_k_is_not_defined_for(n, right, k):
    with pytest.raises(ValueError, match=f"pass@{k}"):
        pass_at_k(n, right, k)


@pytest.mark.parametrize(
    "answers,right,k,expected",
    [
        ("7 7 8", "110", 3, 1.0),
        ("7 8 8", "100", 3, 0.0),
        ("7 8", "10", 2, 0.5),  # a tie: one of the two tied answers is right
        ("7 7 8 8 9 9", "110000", 6, 1 / 3),
        ("7 8 8 8", "1000", 1, 0.25),  # k = 1 is the average
        ("7 7 8 8", "1100", 2, 0.5),  # two blocks: one all right, one all wrong
        ("7 8 8 7 7", "10011", 4, 0.5),  # the fifth fills no block
        ("- - 7", "001", 3, 1.0),  # no vote from those without an answer
        ("- -", "00", 2, 0.0),
        ("- - 7 7", "0011", 2, 0.5),
        ("7 7 8", "100", 3, 0.5),  # the verifier failed on one of two equal answers
    ],
)
def test_maj_at_k_by_hand(answers, right, k, expected):
    votes = [None if answer == "-" else answer for answer in answers.split()]
    assert maj_at_k(votes, [r == "1" for r in right], k) == pytest.approx(expected)


@given(answers=st.lists(st.sampled_from(["1", "2", "3", None]), min_size=1, max_size=12), data=st.data())
def test_maj_at_k_is_a_share_and_knows_no_order_within_a_block(answers, data):
    right = [answer == "1" for answer in answers]
    shuffled = data.draw(st.permutations(answers))
    value = maj_at_k(answers, right, len(answers))
    assert 0.0 <= value <= 1.0
    assert maj_at_k(shuffled, [answer == "1" for answer in shuffled], len(answers)) == pytest.approx(value)
    assert maj_at_k(answers, right, 1) == pytest.approx(np.mean(right))


@pytest.mark.parametrize("k", [0, 3])
def test_maj_at_k_needs_a_block(k):
    with pytest.raises(ValueError, match=f"maj@{k} of 2 answers"):
        maj_at_k(["1", "2"], [True, False], k)


def test_the_interval_is_that_of_the_means_distribution():
    """Two problems, 0 and 1: resampling gives 0, 1/2, 1 with 1/4, 1/2, 1/4, so that the 95% interval is 0 to 1."""
    assert mean_interval([0.0, 1.0]) == Estimate(0.5, 0.0, 1.0)
    many = mean_interval([0.0, 1.0] * 200)  # the binomial's: 0.5 +- 1.96 * 0.5 / 20
    assert (
        many.value == 0.5
        and many.low == pytest.approx(0.451, abs=0.004)
        and many.high == pytest.approx(0.549, abs=0.004)
    )


def test_the_same_data_give_the_same_interval():
    values = np.random.default_rng(0).random(50)
    assert mean_interval(values) == mean_interval(values)
    assert paired_difference(values, values**2) == paired_difference(values, values**2)


def test_all_right_and_all_wrong_are_not_certain():
    """Clopper and Pearson: 0.025^(1/n) is the lower end where all n are right."""
    assert mean_interval([1.0] * 30) == pytest.approx((1.0, 0.025 ** (1 / 30), 1.0))
    assert mean_interval([0.0] * 30) == pytest.approx((0.0, 0.0, 1 - 0.025 ** (1 / 30)))


def test_one_problem_has_no_interval_and_none_is_an_error():
    assert mean_interval([0.5]) == Estimate(0.5, None, None)
    assert mean_interval([0.75, 0.75, 0.75]) == Estimate(0.75, None, None)  # nothing varies: not certain, unknown
    with pytest.raises(ValueError, match="no problem"):
        mean_interval([])


def test_rows_of_the_same_problem_are_one_cluster():
    """Of three rows on a, all right, and one on b, wrong: the draws aa, ab, ba, bb come to 1, 3/4, 3/4, 0."""
    assert mean_interval([1.0, 0.0, 1.0, 1.0], ["a", "b", "a", "a"]) == Estimate(0.75, 0.0, 1.0)
    assert mean_interval([1.0] * 6, "aabbcc") == mean_interval([1.0] * 3) == pytest.approx((1, 0.025 ** (1 / 3), 1))
    assert mean_interval([0.0, 1.0], "aa") == Estimate(0.5, None, None)
    assert paired_difference([0] * 12, [1] * 12, "abcdefabcdef").p_value == pytest.approx(2 / 64)


@given(values=st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=2, max_size=20), times=st.integers(2, 4))
def test_asking_everything_several_times_makes_nothing_surer(values, times):
    keys = list(range(len(values)))
    assert mean_interval(values * times, keys * times) == pytest.approx(mean_interval(values))
    once = paired_difference(values[::-1], values)
    again = paired_difference(values[::-1] * times, values * times, keys * times)
    assert again.p_value == pytest.approx(once.p_value) and again.estimate == pytest.approx(once.estimate)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """300 evaluations of 60 problems whose difficulties vary, 8 responses each. The naive interval over the 480
    responses, which takes them as independent, is too narrow."""
    rng = np.random.default_rng(7)
    hits = naive = 0
    for _ in range(300):
        difficulty = rng.beta(0.6, 0.6, size=60)  # the population's mean is 0.5
        values = rng.binomial(8, difficulty) / 8
        estimate = mean_interval(values)
        hits += estimate.low <= 0.5 <= estimate.high
        naive += abs(values.mean() - 0.5) <= 1.96 * np.sqrt(values.mean() * (1 - values.mean()) / 480)
    assert 0.91 <= hits / 300 <= 0.98
    assert naive / 300 < 0.75


def test_pairing_sees_what_two_intervals_do_not():
    """Forty problems from hopeless to easy; the second model is better by a little on each but four."""
    first = np.linspace(0.0, 0.9, 40)
    second = first + np.where(np.arange(40) % 10 == 0, 0.0, 0.05)
    found = paired_difference(first, second)
    assert found.estimate.value == pytest.approx(0.045) and found.estimate.low > 0.03
    assert (found.verdict, found.problems) == ("higher", 40) and found.p_value < 0.001
    assert mean_interval(first).high > mean_interval(second).low  # side by side they overlap
    back = paired_difference(second, first)
    assert back.verdict == "lower" and back.p_value == pytest.approx(found.p_value, abs=1e-3)


@pytest.mark.parametrize(
    "differences,p_value",
    [
        ([1, 1, 1], 2 / 8),  # of the eight sign patterns, two are as extreme
        ([1, 1, 1, 1, 1, 1], 2 / 64),
        ([1, 1, -1], 1.0),  # a sum of 1 or more in size: all eight
        ([0, 0, 1, 1, 1], 2 / 8),  # problems that do not differ say nothing
        ([0, 0], 1.0),
        ([1], 1.0),
    ],
)
def test_the_p_value_counts_sign_patterns(differences, p_value):
    found = paired_difference([0] * len(differences), differences)
    assert found.p_value == pytest.approx(p_value)
    assert found.verdict == ("higher" if p_value < 0.05 else "within noise")


def test_the_test_rejects_equal_models_one_time_in_twenty():
    rng = np.random.default_rng(3)
    rejected = 0
    for _ in range(200):
        difficulty = rng.beta(0.6, 0.6, size=40)
        one, other = (rng.binomial(4, difficulty) / 4 for _ in range(2))
        rejected += paired_difference(one, other).verdict != "within noise"
    assert 0.01 <= rejected / 200 <= 0.10


def test_different_problems_cannot_be_paired():
    with pytest.raises(ValueError, match="same problems, not 1 and 2"):
        paired_difference([1.0], [1.0, 0.0])


@pytest.mark.parametrize("first,second,value", [([0, 1, 0], [0, 1, 0], 0.0), ([0.1, 0.2, 0.3], [0.2, 0.3, 0.4], 0.1)])
def test_differences_that_do_not_vary_have_no_interval(first, second, value):
    assert paired_difference(first, second).estimate == (pytest.approx(value), None, None)


def test_a_difference_of_one_problem_has_no_interval():
    assert paired_difference([0.25], [0.5]) == Difference(Estimate(0.25, None, None), 1.0, 1)
