"""Losses of preferences, held to numbers computed by hand, and to what they must not depend on."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grpo.algorithm.choices import PREFERENCE_LOSS_NAMES
from grpo.algorithm.preference_losses import PREFERENCE_LOSSES, bradley_terry, ipo, sigmoid, slopes

LN = math.log


def of(*values):
    return torch.tensor(values, dtype=torch.float64)


# A reward model ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rewards,scores,margin,centre,expected",
    [
        ((LN(3), 0.0), (1, 0), 0, 0, LN(4 / 3)),
        ((LN(3), 0.0), (1, 0), LN(3), 0, LN(2)),  # a margin takes the difference away
        ((0.0, LN(3)), (1, 0), 0, 0, LN(4)),  # the loser has the higher reward
        ((LN(4), LN(2), 0.0), (1, 1, 0), 0, 0, 0.314304),  # a tie is no pair: the mean is over two
        ((LN(4), LN(2), 0.0), (2, 1, 0), 0, 0, 0.344691),  # and here over three
        ((LN(4), LN(2), 0.0), (1, 1, 0), 0, 0.01, 0.314304 + 0.012011),
        ((800.0, 0.0), (1, 0), 0, 0, 0.0),
        ((-800.0, 0.0), (1, 0), 0, 0, 800.0),  # log(1 + exp(800)), written out, would be infinite
    ],
)
def test_bradley_terry_by_hand(rewards, scores, margin, centre, expected):
    found = bradley_terry(of(*rewards), of(*scores), margin, centre)
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_a_margin_counts_in_units_of_the_scores():
    """Scores 5 and 3 with m = 0.5 ask for a difference of 1."""
    assert bradley_terry(of(1.0, 0.0), of(5.0, 3.0), 0.5).item() == pytest.approx(LN(2))


def test_the_gradient_pulls_the_winner_up_and_the_loser_down():
    scores = of(1, 0)
    assert slopes(of(LN(3), 0.0), lambda r: bradley_terry(r, scores)).tolist() == pytest.approx([-0.25, 0.25])


def test_equal_scores_are_no_comparison():
    with pytest.raises(ValueError, match="different scores"):
        bradley_terry(of(1.0, 2.0), of(1.0, 1.0))


rewards = st.lists(st.floats(-5, 5), min_size=2, max_size=6)


@given(rewards, st.floats(-100, 100), st.floats(0, 2))
def test_only_differences_count_unless_they_are_centred(values, shift, margin):
    scores = torch.arange(len(values), dtype=torch.float64) // 2 + torch.arange(len(values))
    r = of(*values)
    before = bradley_terry(r, scores, margin)
    torch.testing.assert_close(bradley_terry(r + shift, scores, margin), before, atol=1e-9, rtol=1e-9)
    turned = bradley_terry(r.flip(0), scores.flip(0), margin)  # nor does the order in which responses stand
    torch.testing.assert_close(turned, before, atol=1e-12, rtol=1e-12)


# DPO --------------------------------------------------------------------------------------------------------------


def test_the_names_are_those_of_the_functions():
    assert tuple(PREFERENCE_LOSSES) == PREFERENCE_LOSS_NAMES


def test_dpo_by_hand():
    h = of(2 * LN(3))  # beta h = ln 3
    assert sigmoid(h, 0.5).item() == pytest.approx(LN(4 / 3))
    assert sigmoid(h, 0.5, 0.1).item() == pytest.approx(0.397543, abs=1e-6)
    assert slopes(h, lambda h: sigmoid(h, 0.5, 0.1)).item() == pytest.approx(-0.075)
    assert ipo(h, 0.5).item() == pytest.approx(1.433347, abs=1e-6)
    assert ipo(of(1.0), 0.5).item() == 0.0
    assert slopes(of(0.0), lambda h: ipo(h, 0.5)).item() == pytest.approx(-2.0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("beta", [0.1, 0.5, 2.0])
def test_a_policy_that_is_the_reference(beta, smoothing):
    """The loss is ln 2 for every smoothing: "0.693 is stuck" means that nothing has moved."""
    assert sigmoid(of(0.0), beta, smoothing).item() == pytest.approx(LN(2))
    slope = slopes(of(0.0), lambda h: sigmoid(h, beta, smoothing)).item()
    assert slope == pytest.approx(-beta * (1 - 2 * smoothing) / 2)


def test_smoothing_has_a_minimum():
    least = of(LN(0.9 / 0.1) / 0.5)
    assert slopes(least, lambda h: sigmoid(h, 0.5, 0.1)).item() == pytest.approx(0.0, abs=1e-12)
    assert sigmoid(least - 0.1, 0.5, 0.1) > sigmoid(least, 0.5, 0.1) < sigmoid(least + 0.1, 0.5, 0.1)


@pytest.mark.parametrize("name", PREFERENCE_LOSSES)
def test_far_off_pairs_stay_finite(name):
    h = of(-800.0, 800.0)
    found = PREFERENCE_LOSSES[name](h, 1.0, 0.0)
    assert found.isfinite().all() and slopes(h, lambda h: PREFERENCE_LOSSES[name](h, 1.0, 0.0)).isfinite().all()


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=4), st.floats(0.05, 2), st.floats(0, 0.5))
def test_slopes_are_differences(values, beta, smoothing):
    h, step = of(*values), 1e-6
    for loss in PREFERENCE_LOSSES.values():
        expected = (loss(h + step, beta, smoothing) - loss(h - step, beta, smoothing)) / (2 * step)
        torch.testing.assert_close(slopes(h, lambda h: loss(h, beta, smoothing)), expected, atol=1e-6, rtol=1e-6)  # noqa: B023


def test_the_best_policy_is_the_reference_tilted_by_the_reward():
    """Two responses, reference (1/2, 1/2), the first preferred 3 times in 4, beta 1: the expected loss over labels is
    least at (3/4, 1/4), which is ref exp(r / beta) / Z for rewards ln 3 apart."""

    def expected_loss(first):
        h = of(LN(first / 0.5) - LN((1 - first) / 0.5))
        return (0.75 * sigmoid(h, 1.0) + 0.25 * sigmoid(-h, 1.0)).item()

    grid = [i / 1000 for i in range(1, 1000)]
    assert min(grid, key=expected_loss) == 0.75
    tilted = 0.5 * math.exp(LN(3)) / (0.5 * math.exp(LN(3)) + 0.5)
    assert tilted == pytest.approx(0.75)
