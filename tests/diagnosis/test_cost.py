"""Seconds of a step and of a run, by hand."""

import pytest

from grpo.config import Config
from grpo.diagnosis.cost import cost_findings, evaluation_seconds, generation_seconds, span, step_seconds
from grpo.resolve import resolve

SECONDS = {"generate": 2.0, "verify": 0.5, "logprobs": 1.0, "reference": 3.0, "gradient": 4.0, "sync": 0.25}
FLAGS = dict(name="none", problems_per_step=64, responses_per_problem=8, steps=10)


def config(**flags):
    return resolve(Config(**(FLAGS | flags)))


@pytest.mark.parametrize(
    "responses,expected", [(512, (4.0, 16.0)), (256, (2.0, 8.0)), (128, (2.0, 4.0)), (64, (2.0, 2.0)), (16, (2.0, 2.0))]
)
def test_generation_is_together_at_best_and_one_by_one_at_worst(responses, expected):
    assert generation_seconds(2.0, 64, responses, 256) == expected
    assert generation_seconds(2.0, 64, responses, 32) == (expected[1], expected[1])  # fewer at once than rehearsed


def test_a_step_by_hand():
    """512 responses are 8 times the rehearsal's 64: verify 4, reference 24, gradient 32, sync once."""
    rest = 8 * (0.5 + 3 + 4) + 0.25
    assert step_seconds(config(), SECONDS, 64) == (4 + rest, 16 + rest)
    # several updates need the log-probabilities of before, and several epochs so many gradients
    more = 8 * (1 + 2 * 4)
    assert step_seconds(config(epochs_per_step=3), SECONDS, 64) == (4 + rest + more, 16 + rest + more)
    assert step_seconds(config(dynamic_sampling=2), SECONDS, 64)[1] == 3 * 16 + rest


def test_longer_responses_than_the_rehearsals_stretch_the_upper_end():
    low, high = step_seconds(config(), SECONDS, 64, stretch=10.0)
    assert low == 4 + 8 * 7.5 + 0.25 and high == 10 * (16 + 8 * 7) + 8 * 0.5 + 0.25


def test_evaluations_by_hand():
    """Before step 1, after step 10, and after 4 and 8."""
    assert evaluation_seconds(config(eval_every=4), SECONDS, 64, 64) == (4 * 2.5, 4 * 2.5)
    assert evaluation_seconds(config(eval_every=0, eval_responses=2), SECONDS, 64, 64) == (2 * 3, 2 * 5)
    assert evaluation_seconds(config(eval_every=10), SECONDS, 64, 64)[0] == 2 * 2.5  # the last is one of them
    assert evaluation_seconds(config(), SECONDS, 64, 0) == (0.0, 0.0)


def test_the_finding_says_what_it_is_an_estimate_of():
    (finding,) = cost_findings(config(), SECONDS, 64, held_out=0, max_tokens=96)
    assert finding.found.startswith("about 64 to 76 s a step, 11 to 13 min for 10 steps: an estimate from 64 of")
    (finding,) = cost_findings(config(), SECONDS, 64, held_out=8, max_tokens=48)
    assert "and their evaluations" in finding.found and "responses of 96 tokens, at least with 48" in finding.found


@pytest.mark.parametrize(
    "ends,text",
    [
        ((0.5, 0.5), "0.5 s"),
        ((90, 200), "1.5 to 3.3 min"),
        ((100.4, 119), "100 to 119 s"),
        ((36_000, 720_000), "10 to 200 h"),
    ],
)
def test_spans(ends, text):
    assert span(*ends) == text
