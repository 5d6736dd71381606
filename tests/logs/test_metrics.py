"""The numbers of a step, by hand."""

import pytest
import torch

from grpo.logs.metric_names import METRICS
from grpo.logs.metrics import Stopwatch, rollout_metrics, step_metrics, update_metrics
from grpo.outcomes import correct, truncated
from grpo.records import Group, Problem, Rewards, Rollout


def rollout(length, cut=False):
    return Rollout(tuple(range(length)), (0.0,) * length, "", cut)


GROUPS = [
    Group(Problem("", (), {}), (rollout(10), rollout(20, cut=True))),
    Group(Problem("", (), {}), (rollout(30), rollout(40))),
]
NAN = float("nan")
REWARDS = Rewards(
    total=torch.tensor([[1.1, 0.1], [1.0, 1.0]]),
    by_verifier={"math_answer": torch.tensor([[1.0, 0.0], [1.0, 1.0]]), "form": torch.tensor([[1.0, 1.0], [NAN, 0.0]])},
    errors={"math_answer": 0, "form": 2},
    timeouts={"math_answer": 1, "form": 0},
)


def test_rollout_metrics_by_hand():
    found = rollout_metrics(GROUPS, REWARDS, REWARDS.total)
    expected = {
        "reward/mean": 0.8,
        "reward/math_answer": 0.75,
        "reward/form": 2 / 3,  # None (NaN) is left out of the mean
        "reward/errors": 2.0,
        "reward/timeouts": 1.0,
        "reward/errors/form": 2.0,
        "reward/timeouts/math_answer": 1.0,
        "length/mean": 25.0,
        "length/p95": 38.5,
        "length/correct": (10 + 30 + 40) / 3,
        "length/incorrect": 20.0,
        "length/truncated": 0.25,
        "group/uniform": 0.5,
    }
    assert found == pytest.approx(expected)


def test_correct_is_full_marks_from_the_first_verifier():
    assert correct(REWARDS).tolist() == [[True, False], [True, True]]
    partial = Rewards(REWARDS.total, {"a": torch.tensor([[0.99, NAN], [1.0, 2.0]])}, {}, {})
    assert correct(partial).tolist() == [[False, False], [True, True]]


def test_nothing_to_average_is_null_and_not_nan():
    all_right = Rewards(torch.ones(2, 2), {"a": torch.ones(2, 2)}, {"a": 0}, {"a": 0})
    assert rollout_metrics(GROUPS, all_right, all_right.total)["length/incorrect"] is None


def test_truncated():
    assert truncated(GROUPS).tolist() == [[False, True], [False, False]]


def update(skipped_in_a_row=0.0, **measured):
    return {**measured, "skipped_in_a_row": skipped_in_a_row}


def test_updates_are_averaged_but_for_the_learning_rate_and_the_kl_to_the_old_policy():
    updates = [update(loss=1.0, learning_rate=0.1, old_kl=0.0), update(loss=3.0, learning_rate=0.2, old_kl=0.5)]
    means = {"policy/kl": None, "policy/loss": 2.0, "policy/skipped": 0.0, "policy/skipped_in_a_row": 0.0}
    assert update_metrics(updates) == means | {"policy/learning_rate": 0.2, "policy/old_kl": 0.5}


def test_skipped_updates_are_counted_and_left_out_of_all_else():
    first = update(loss=1.0, learning_rate=0.1, old_kl=0.0)
    skipped = [update(loss=NAN, learning_rate=0.2, old_kl=NAN, skipped_in_a_row=i) for i in (1.0, 2.0)]
    found = update_metrics([first, *skipped, update(loss=2.0, learning_rate=0.2, old_kl=0.3)])
    assert found["policy/loss"] == 1.5 and found["policy/old_kl"] == 0.3
    assert found["policy/skipped"] == 2.0 and found["policy/skipped_in_a_row"] == 2.0
    none = update_metrics(skipped)
    assert none["policy/loss"] is none["policy/old_kl"] is none["policy/learning_rate"] is None
    assert none["policy/skipped"] == none["policy/skipped_in_a_row"] == 2.0


def test_a_step_adds_up(monkeypatch):
    """Five seconds by the clock, of which one is in no stage and half of one is the verifiers'."""
    clock = iter([100.0, 105.0])
    monkeypatch.setattr("grpo.logs.metrics.time.perf_counter", lambda: next(clock))
    watch = Stopwatch()
    watch.seconds = {"time/generate": 2.0, "time/verify": 0.5, "time/update": 1.0, "time/sync": 0.5}
    watch.tokens, watch.passes = 160.0, 20
    row = step_metrics(3, GROUPS, REWARDS, REWARDS.total, [update(learning_rate=0.1, old_kl=0.0)], watch.tokens)
    row |= watch.metrics()
    assert row["step"] == 3 and row["time/step"] == 5.0 and row["tokens"] == 100
    assert row["time/other"] == 1.0 and row["time/idle"] == 0.3 and row["tokens_per_pass"] == 8.0
    assert row["tokens_dropped"] == 60 and row["tokens_per_second"] == 32.0
    explained = set(METRICS)
    for key in row:
        area, _, verifier = key.rpartition("/")
        assert key in explained or (f"{area}/<verifier>" in explained and verifier in REWARDS.by_verifier), key


def test_stopwatch_adds_up_a_stage_that_raises():
    watch = Stopwatch()
    for _ in range(2):
        with pytest.raises(RuntimeError), watch("sync"):
            raise RuntimeError
    assert set(watch.seconds) == {"time/sync"} and watch.seconds["time/sync"] >= 0
