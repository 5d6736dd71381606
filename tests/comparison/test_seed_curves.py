"""Curves of seeds: smoothing, bands, where an accuracy is reached and slopes, against hand-computed numbers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo.comparison.seed_curves import band, first_reach, slope, smooth

NAN = math.nan


def test_running_mean_is_centred_and_cut_at_the_ends():
    steps, values = np.arange(1, 6), np.array([1.0, 2.0, 6.0, 4.0, 12.0])
    assert smooth(steps, values, 3).tolist() == [1.5, 3.0, 4.0, 22 / 3, 8.0]
    assert smooth(steps, values, 1).tolist() == values.tolist()


def test_running_mean_is_of_steps_and_not_of_rows():
    assert smooth(np.array([1, 2, 10]), np.array([1.0, 3.0, 8.0]), 3).tolist() == [2.0, 2.0, 8.0]


def test_running_mean_weighs_and_leaves_gaps_out():
    steps, values = np.arange(1, 6), np.array([10.0, NAN, 20.0, NAN, NAN])
    weights = np.array([1.0, 0.0, 3.0, 0.0, 0.0])
    np.testing.assert_array_equal(smooth(steps, values, 3, weights), [10, 17.5, 20, 20, NAN])
    np.testing.assert_array_equal(smooth(steps, values, 3, np.full(5, NAN)), [10, 15, 20, 20, NAN])


@given(st.lists(st.lists(st.integers(1, 50), max_size=4), min_size=1, max_size=12), st.integers(0, 5))
def test_weighted_running_mean_is_the_mean_over_all_responses(lengths, half):
    """Lengths of a step's responses, in any number."""
    steps = np.arange(1, len(lengths) + 1)
    means = np.array([np.mean(each) if each else NAN for each in lengths])
    found = smooth(steps, means, 2 * half + 1, np.array([float(len(each)) for each in lengths]))
    for i in range(len(lengths)):
        inside = [length for each in lengths[max(0, i - half) : i + half + 1] for length in each]
        assert found[i] == pytest.approx(np.mean(inside)) if inside else np.isnan(found[i])


def test_band_of_seeds():
    values = np.array([[1.0, 1.0, 5.0], [2.0, NAN, NAN], [3.0, 3.0, NAN]])
    found, extremes = band(values, "interval"), band(values, "range")
    np.testing.assert_array_equal(found.mean, [2, 2, NAN])  # one of three is not more than half
    np.testing.assert_array_equal(found.count, [3, 2, 1])
    np.testing.assert_allclose(found.low, [2 - 4.302653 / 3**0.5, 2 - 12.7062047, NAN], rtol=1e-6)
    np.testing.assert_allclose(found.high, [2 + 4.302653 / 3**0.5, 2 + 12.7062047, NAN], rtol=1e-6)
    np.testing.assert_array_equal(extremes.low, [1, 1, NAN])
    np.testing.assert_array_equal(extremes.high, [3, 3, NAN])


@pytest.mark.parametrize("kind", ["interval", "range"])
def test_band_of_one_seed_is_a_line(kind):
    found = band(np.array([[1.0, 2.0]]), kind)
    assert found.mean.tolist() == [1, 2] and np.isnan(found.low).all() and np.isnan(found.high).all()


@pytest.mark.parametrize(
    "values,level,expected",
    [
        ([0.5, 0.7, 0.9], 0.8, 15.0),
        ([0.5, NAN, 0.9], 0.7, 10.0),
        ([0.5, 0.7, 0.9], 0.7, 10.0),
        ([0.5, 0.9, 0.6], 0.7, 5.0),  # the first time
        ([0.5, 0.7, 0.9], 0.4, 0.0),
        ([0.5, 0.7, 0.9], 0.95, None),
        ([NAN, NAN, NAN], 0.5, None),
    ],
)
def test_where_an_accuracy_is_reached(values, level, expected):
    found = first_reach(np.array([0.0, 10.0, 20.0]), np.array(values), level)
    assert found == (None if expected is None else pytest.approx(expected))


def test_slope_by_hand_and_by_polyfit():
    steps, values, weights = np.array([1.0, 2, 3, 4]), np.array([5.0, 7, NAN, 11]), np.array([1.0, 1, 1, 1])
    assert slope(steps, values, weights) == pytest.approx(2.0)
    values, weights = np.array([5.0, 6, 9, 11]), np.array([4.0, 1, 0, 2])
    expected = np.polyfit(steps, values, 1, w=np.sqrt(weights))[0]
    assert slope(steps, values, weights) == pytest.approx(expected)
    assert slope(steps, values, np.array([1.0, 0, 0, 0])) is None
