"""Schedules by hand, on an optimizer, and through a resume that goes further than was planned."""

import math

import pytest
from conftest import make_policy

from grpo.algorithm.kl_weight import KLCoefficient, OldKLCoefficient
from grpo.model.checkpoint import Trained, restore, save_checkpoint
from grpo.model.schedule import factor
from grpo.model.settings import OptimizerSettings
from grpo.problems.lengths import EarlierLengths


def factors(schedule, updates=4, warmup=0):
    settings = OptimizerSettings(schedule=schedule, updates=updates, warmup_updates=warmup)
    return [factor(update, settings) for update in range(updates)]


def test_factors_by_hand():
    assert factors("constant") == [1, 1, 1, 1]
    assert factors("linear") == [1, 0.75, 0.5, 0.25]
    half = math.sqrt(0.5)
    assert factors("cosine") == pytest.approx([1, (1 + half) / 2, 0.5, (1 - half) / 2])


def test_the_decay_begins_where_the_warm_up_ends():
    assert factors("linear", updates=6, warmup=2) == pytest.approx([1 / 3, 2 / 3, 1, 0.75, 0.5, 0.25])
    assert factors("constant", updates=4, warmup=2) == pytest.approx([1 / 3, 2 / 3, 1, 1])


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_no_update_is_made_at_0_and_none_below_it(schedule):
    assert all(value > 0 for value in factors(schedule, updates=500, warmup=20))
    settings = OptimizerSettings(schedule=schedule, updates=3)
    assert factor(7, settings) == pytest.approx(0.0, abs=1e-12)
    assert factors(schedule, updates=2, warmup=5) == pytest.approx([1 / 6, 2 / 6])


def trained(folder, **settings):
    policy = make_policy(folder, learning_rate=1e-3, **settings)
    return Trained(policy, KLCoefficient(0.0), OldKLCoefficient(0.0), EarlierLengths([], waiting=False))


def test_a_resumed_run_has_the_rate_of_its_own_schedule_at_once(tmp_path, tied_folder, tokenizer):
    """Planned for 4 updates, stopped after 2, and continued to 8: the third update has 6/8 of the rate, not 2/4."""
    begun = trained(tied_folder, schedule="linear", updates=4)
    for parameter in begun.policy.model.parameters():
        parameter.grad = parameter.detach().clone()
    for _ in range(2):
        begun.policy.optimizer.step()
        begun.policy.schedule.step()
    save_checkpoint(tmp_path / "checkpoint-2", 2, begun, tokenizer)
    for updates, expected in ((4, 0.5e-3), (8, 0.75e-3)):
        again = trained(tmp_path / "checkpoint-2", schedule="linear", updates=updates)
        restore(tmp_path / "checkpoint-2", again)
        assert again.policy.optimizer.param_groups[0]["lr"] == pytest.approx(expected)
        assert again.policy.schedule.get_last_lr() == [pytest.approx(expected)]
