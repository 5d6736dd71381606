"""Accuracy, log loss, calibration and the length of what wins, by hand."""

import json
import math

import pytest

from grpo.preferences.reward_report import Judged, pair_accuracy, report, softplus, words

LN = math.log
JUDGED = [
    Judged("p", (LN(3), 0.0, 0.0), (1, 0, 0), (5, 9, 5)),  # right twice, once the longer one loses, once a tie
    Judged("q", (0.0, LN(4)), (2, 1), (8, 3)),  # wrong, and the longer one wins
    Judged("q", (1.0, 1.0), (0, 1), (3, 8)),  # a tie
]


def test_by_hand():
    found = report(JUDGED)
    assert (found.comparisons, found.pairs) == (3, 4)
    assert found.accuracy.value == pair_accuracy(JUDGED) == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    assert found.log_loss == pytest.approx((2 * LN(4 / 3) + LN(5) + LN(2)) / 4)
    assert found.longer_wins.value == pytest.approx((0 + 0.5 + 1 + 1) / 4)
    assert found.bar == pytest.approx(0.625)
    assert found.longer_preferred == pytest.approx((0 + 0.5 + 0 + 0.5) / 4)
    # The model gives 3/4 twice, is right twice; 4/5, and is wrong; and 1/2 of a tie.
    shown = [(b.pairs, round(b.probability, 6), b.correct) for b in found.calibration]
    assert shown == [(1, 0.5, 0.5), (2, 0.75, 1.0), (1, 0.8, 0.0)]
    assert json.loads(json.dumps(found.to_json()))["accuracy"]["value"] == found.accuracy.value


def test_the_interval_is_over_prompts():
    """Ten equal prompts of a hundred pairs each are ten things, not a thousand."""
    many = [Judged(i, (1.0, 0.0) if i % 2 else (0.0, 1.0), (1, 0), (1, 1)) for i in range(10) for _ in range(100)]
    interval = report(many).accuracy
    assert interval.high - interval.low > 0.4


def test_a_model_that_is_no_better_than_length_is_said():
    longer = [Judged(i, (0.0, 1.0), (0, 1), (1, 2)) for i in range(3)]
    assert "warning: the model is no better than the length alone" in words(report(longer))
    blind = [Judged(i, (0.0, 1.0), (0, 1), (1, 1)) for i in range(3)]
    assert "warning" not in words(report(blind)) and "accuracy 100.0%" in words(report(blind))


def test_far_off_rewards_stay_finite():
    found = report([Judged("p", (-800.0, 800.0), (1, 0), (1, 1))])
    assert found.log_loss == pytest.approx(1600) and softplus(-800) == 0.0
