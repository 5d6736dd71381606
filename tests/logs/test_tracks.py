"""What is kept of a run is right, and no more than what is asked for."""

import math
import pickle

import pytest

from grpo.logs.tracks import LONG, SHORT, TRACKED, Track, begun, followed, share_correct


def track(*values):
    found = Track()
    for value in values:
        found = found.then(value)
    return found


def test_the_first_and_the_last_values():
    found = track(*range(25))
    assert found.first == tuple(range(SHORT)) and found.last == tuple(range(25 - LONG, 25)) and found.count == 25


def test_the_best_is_a_mean_of_five_or_the_first_value():
    assert track(0.5).best == track(0.5, 0.9, 0.9, 0.9).best == 0.5
    assert track(0.5, 1.0, 1.0, 1.0, 1.0).best == 0.9
    assert track(0.5, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0).best == 0.9
    assert track(-1.0, -3.0, -3.0, -3.0, -3.0).best == -1.0


def test_noise_is_the_deviation_from_step_to_step():
    assert track(1.0).noise == track(1.0, 1.0).noise == 0
    assert track(1.0, 3.0, 1.0).noise == pytest.approx(math.sqrt(2))  # differences of 2 and 2: sqrt((4 + 4) / 2 / 2)


def test_what_is_no_number_adds_nothing():
    for row in ({}, dict.fromkeys(TRACKED), dict.fromkeys(TRACKED, math.nan), {"step": 0, "eval/accuracy": 0.5}):
        assert followed(begun(), row) == begun()
    once = followed(begun(), {"policy/kl": 0.5, "policy/entropy": None})
    assert once["policy/kl"].last == (0.5,) and once["policy/entropy"].count == 0


def test_a_long_run_takes_no_more_room():
    def room(steps):
        tracks = begun()
        for step in range(steps):
            tracks = followed(tracks, dict.fromkeys(TRACKED, step / 7) | {"length/mean": 1.0, "length/correct": 1.0})
        return len(pickle.dumps(tracks))

    assert room(2000) - room(50) < 50


@pytest.mark.parametrize(
    "mean, correct, incorrect, share",
    [
        (12.0, 10.0, 18.0, 0.75),
        (18.0, None, 18.0, 0.0),
        (10.0, 10.0, None, 1.0),
        (10.0, 10.0, 10.0, None),  # lengths that tell nothing
        (None, None, None, None),
        (10.0, None, None, None),
    ],
)
def test_the_share_of_correct_responses(mean, correct, incorrect, share):
    row = {"length/mean": mean, "length/correct": correct, "length/incorrect": incorrect}
    assert share_correct(row) == share
