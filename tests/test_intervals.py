"""Intervals and tests, over problems and over seeds: by hand, by another route, and on simulated data."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from grpo.intervals import (
    Difference,
    Estimate,
    bootstrap_interval,
    paired_difference,
    t_half_width,
    t_interval,
    welch_difference,
)

SEEDS = st.lists(st.floats(-1e3, 1e3).map(lambda v: round(v, 3)), min_size=2, max_size=6)

# Over problems ----------------------------------------------------------------------------------------------------


def test_the_interval_is_that_of_the_means_distribution():
    """Two problems, 0 and 1: resampling gives 0, 1/2, 1 with 1/4, 1/2, 1/4, so that the 95% interval is 0 to 1."""
    assert bootstrap_interval([0.0, 1.0]) == Estimate(0.5, 0.0, 1.0)
    many = bootstrap_interval([0.0, 1.0] * 200)  # the binomial's: 0.5 +- 1.96 * 0.5 / 20
    assert (
        many.value == 0.5
        and many.low == pytest.approx(0.451, abs=0.004)
        and many.high == pytest.approx(0.549, abs=0.004)
    )


def test_the_same_data_give_the_same_interval():
    values = np.random.default_rng(0).random(50)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert paired_difference(values, values**2) == paired_difference(values, values**2)


def test_all_correct_and_all_incorrect_are_not_certain():
    """Clopper and Pearson: 0.025^(1/n) is the lower end where all n are correct."""
    assert bootstrap_interval([1.0] * 30) == pytest.approx((1.0, 0.025 ** (1 / 30), 1.0))
    assert bootstrap_interval([0.0] * 30) == pytest.approx((0.0, 0.0, 1 - 0.025 ** (1 / 30)))


def test_one_problem_has_no_interval_and_none_is_an_error():
    assert bootstrap_interval([0.5]) == Estimate(0.5, None, None)
    assert bootstrap_interval([0.75, 0.75, 0.75]) == Estimate(0.75, None, None)  # nothing varies: not certain, unknown
    with pytest.raises(ValueError, match="no problem"):
        bootstrap_interval([])


def test_rows_of_the_same_problem_are_one_cluster():
    """Of three rows on a, all correct, and one on b, incorrect: the draws aa, ab, ba, bb come to 1, 3/4, 3/4, 0."""
    assert bootstrap_interval([1.0, 0.0, 1.0, 1.0], ["a", "b", "a", "a"]) == Estimate(0.75, 0.0, 1.0)
    assert bootstrap_interval([1.0] * 6, "aabbcc") == bootstrap_interval([1.0] * 3)
    assert bootstrap_interval([1.0] * 3) == pytest.approx((1, 0.025 ** (1 / 3), 1))
    assert bootstrap_interval([0.0, 1.0], "aa") == Estimate(0.5, None, None)
    assert paired_difference([0] * 12, [1] * 12, "abcdefabcdef").p_value == pytest.approx(2 / 64)


@given(values=st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=2, max_size=20), times=st.integers(2, 4))
def test_asking_everything_several_times_makes_nothing_surer(values, times):
    keys = list(range(len(values)))
    assert bootstrap_interval(values * times, keys * times) == pytest.approx(bootstrap_interval(values))
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
        estimate = bootstrap_interval(values)
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
    assert found.clear and found.p_value < 0.001
    assert bootstrap_interval(first).high > bootstrap_interval(second).low  # side by side they overlap
    back = paired_difference(second, first)
    assert back.clear and back.estimate.high < -0.03 and back.p_value == pytest.approx(found.p_value, abs=1e-3)


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
    assert found.clear == (p_value < 0.05)


def test_the_test_rejects_equal_models_one_time_in_twenty():
    rng = np.random.default_rng(3)
    rejected = 0
    for _ in range(200):
        difficulty = rng.beta(0.6, 0.6, size=40)
        one, other = (rng.binomial(4, difficulty) / 4 for _ in range(2))
        rejected += paired_difference(one, other).clear
    assert 0.01 <= rejected / 200 <= 0.10


def test_different_problems_cannot_be_paired():
    with pytest.raises(ValueError, match="same problems, not 1 and 2"):
        paired_difference([1.0], [1.0, 0.0])


@pytest.mark.parametrize("first,second,value", [([0, 1, 0], [0, 1, 0], 0.0), ([0.1, 0.2, 0.3], [0.2, 0.3, 0.4], 0.1)])
def test_differences_that_do_not_vary_have_no_interval(first, second, value):
    assert paired_difference(first, second).estimate == (pytest.approx(value), None, None)


def test_a_difference_of_one_problem_has_no_interval():
    assert paired_difference([0.25], [0.5]) == Difference(Estimate(0.25, None, None), 1.0)


# Over seeds -------------------------------------------------------------------------------------------------------


def test_interval_of_three_seeds():
    """Deviation 1, t of 2 degrees of freedom at 0.975 is 4.302653."""
    assert t_interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, 2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5))


@given(SEEDS)
def test_interval_is_scipys(values):
    found = t_interval(values)
    if np.std(values):
        expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-6)
    else:
        assert found.low == found.high == found.value


def test_half_widths_of_several_means_at_once():
    found = t_half_width(np.array([1.0, 2.0, 0.0]), np.array([3, 2, 5]))
    assert found == pytest.approx([4.302653 / 3**0.5, 12.706205 * 2 / 2**0.5, 0.0])


def test_no_interval_of_one_or_of_some():
    assert t_interval([5.0]) == Estimate(5.0, None, None)
    assert t_interval([5.0, None]) == Estimate(5.0, None, None)
    assert t_interval([1.0, None, 3.0]) == Estimate(2.0, None, None)
    assert t_interval([None, None]) is None


def test_welch_by_hand():
    """Variances 1 and 4 over 3 each: standard error sqrt(5/3), and (5/3)^2 / (1/18 + 16/18) = 50/17 degrees."""
    found = welch_difference([1.0, 2.0, 3.0], [4.0, 6.0, 8.0])
    half = stats.t.ppf(0.975, 50 / 17) * (5 / 3) ** 0.5
    assert found.estimate == pytest.approx((4.0, 4 - half, 4 + half))
    assert found.p_value == pytest.approx(2 * stats.t.sf(4 / (5 / 3) ** 0.5, 50 / 17))
    assert found.clear == (found.estimate.low > 0)


@given(SEEDS, SEEDS)
def test_welch_is_antisymmetric_and_its_interval_agrees_with_its_p(first, second):
    one, two = welch_difference(first, second), welch_difference(second, first)
    assert one.estimate.value == pytest.approx(-two.estimate.value)
    if one.p_value is not None:
        low, high = one.estimate[1:]
        assert (low, high) == pytest.approx((-two.estimate.high, -two.estimate.low))
        assert one.p_value == pytest.approx(two.p_value)
        if abs(one.p_value - 0.05) > 1e-6:
            assert one.clear == (one.p_value < 0.05) == (not low <= 0.0 <= high)


@pytest.mark.parametrize("first,second", [([1.0], [2.0, 3.0]), ([1.0, 2.0], [4.0]), ([1.0, 1.0], [2.0, 2.0])])
def test_difference_of_seeds_without_an_interval(first, second):
    found = welch_difference(first, second)
    assert found == Difference(Estimate(np.mean(second) - np.mean(first), None, None), None) and not found.clear


@pytest.mark.parametrize("first,second", [([1.0, 2.0], [1.0, None]), ([None], [1.0]), ([1.0], []), ([], [])])
def test_no_difference_where_a_seed_has_no_value(first, second):
    assert welch_difference(first, second) is None


def test_one_group_without_a_spread():
    found = welch_difference([1.0, 1.0], [2.0, 4.0])  # one degree of freedom, standard error 1
    assert found.estimate == pytest.approx((2.0, 2 - 12.7062047, 2 + 12.7062047))
