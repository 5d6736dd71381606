"""Each warning: at which step it comes, that it comes once, and that a resumed run says what an unbroken one says."""

import dataclasses
import math
import re
from itertools import count

import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo.config import Config
from grpo.logs.guards import GUARDS, STOPS, Guards, RunWarning

HEALTHY = {
    "reward/mean": 0.5,
    "group/uniform": 0.3,
    "policy/kl": 0.02,
    "policy/entropy": 0.3,
    "length/truncated": 0.05,
    "policy/engine_gap": 1e-4,
}


def rows(*runs):
    """`(3, {"reward/mean": 0.5}), ...`: so many steps with these values, and else healthy ones."""
    steps = count(1)
    return [{"step": next(steps), **HEALTHY, **values} for times, values in runs for _ in range(times)]


def warnings(history, earlier=(), stop_on=()):
    """Step -> the names of the warnings that come at it."""
    guards = Guards(earlier, stop_on)
    found = {row["step"]: [warning.name for warning in guards.look(row)] for row in history}
    return {step: names for step, names in found.items() if names}


def rewards(*runs):
    return rows(*((times, {"reward/mean": value}) for times, value in runs))


CASES = {
    # Ten steps after the first, the mean of ten is 0 and the noise 0.7 / sqrt(2 * 10) = 0.16: 0.7 is more than 4 times.
    "from the first update on": (rewards((1, 0.7), (30, 0.0)), {11: ["reward_collapse"]}),
    # Less than a quarter of the gain is left below 0.5, with four of ten at 0.0. Noise: 0.8 / sqrt(2 * 94) = 0.06.
    "after a gain": (
        rewards((1, 0.4), *((1, 0.41 + i / 100) for i in range(40)), (50, 0.8), (30, 0.0)),
        {95: ["reward_collapse"]},
    ),
    # 4 times the noise, sqrt((0.16 + 0.64) / 2 / 36) = 0.105, is first exceeded by 6 * 0.08.
    "after two leaps": (rewards((1, 0.4), (30, 0.8), (30, 0.0)), {37: ["reward_collapse"]}),
    "of negative rewards": (rewards((1, -0.6), (30, -0.2), (30, -1.0)), {37: ["reward_collapse"]}),
    "below zero": (rewards((1, 0.0), (30, 0.2), (30, -0.2)), {37: ["reward_collapse"]}),
    "a gain half lost is no collapse": (rewards((1, 0.2), (30, 0.8), (30, 0.5)), {}),
    "a small loss is no collapse": (rewards((30, 0.5), (30, 0.45)), {}),
    "ever 0": (rewards((60, 0.0)), {}),
    "a single step is none": (rewards((1, 0.7), (30, 0.8), (1, 0.0), (30, 0.8)), {}),
    "within noise": (rewards(*[(1, 0.0), (1, 1.0)] * 20, (12, 0.0)), {}),
    "uniform groups": (rows((5, {}), (40, {"group/uniform": 1.0})), {24: ["uniform_groups"]}),
    "uniform from the start": (rows((40, {"group/uniform": 0.95})), {20: ["uniform_groups"]}),
    "nearly uniform": (rows((60, {"group/uniform": 0.94})), {}),
    "uniform now and then": (rows(*[(17, {"group/uniform": 1.0}), (3, {})] * 4), {}),
    # The median of ten lies between the fifth and the sixth: with five at 0.9 it is 0.46.
    "KL": (rows((20, {}), (40, {"policy/kl": 0.9})), {26: ["kl_runaway"]}),
    "KL from the start": (rows((40, {"policy/kl": 0.6})), {10: ["kl_runaway"]}),
    "KL that is infinite": (rows((20, {}), (40, {"policy/kl": math.inf})), {25: ["kl_runaway"]}),
    "KL in single steps": (rows(*[(3, {}), (2, {"policy/kl": 2.6})] * 10), {}),
    # The mean of ten is below 5% of the first, 0.015, with none of 0.3 left.
    "entropy": (rows((20, {}), (40, {"policy/entropy": 0.001})), {30: ["entropy_collapse"]}),
    "entropy, for a model that begins low": (
        rows((20, {"policy/entropy": 0.05}), (40, {"policy/entropy": 0.0099})),
        {30: ["entropy_collapse"]},
    ),
    "entropy that falls, but not to 0": (rows((20, {}), (40, {"policy/entropy": 0.02})), {}),
    "entropy of solved problems": (
        rows((20, {}), (40, {"policy/entropy": 0.001, "length/mean": 9.0, "length/correct": 9.0})),
        {},
    ),
    "entropy of unsolved problems": (
        rows((20, {}), (40, {"policy/entropy": 0.001, "length/mean": 9.0, "length/incorrect": 9.0})),
        {30: ["entropy_collapse"]},
    ),
    # More than a quarter: with five of ten at 0.5 and the others at 0.05, 0.275.
    "lengths": (rows((20, {}), (40, {"length/truncated": 0.5})), {25: ["length_limit"]}),
    "lengths from the start": (rows((40, {"length/truncated": 0.3})), {10: ["length_limit"]}),
    "lengths below a quarter": (rows((60, {"length/truncated": 0.25})), {}),
    "gap": (rows((20, {}), (40, {"policy/engine_gap": 1.5e-3})), {26: ["engine_gap"]}),
    "gap three times as large, and above all rounding": (
        rows((20, {"policy/engine_gap": 4e-3}), (40, {"policy/engine_gap": 1.3e-2})),
        {26: ["engine_gap"]},
    ),
    "gap that stays": (rows((60, {"policy/engine_gap": 2e-2})), {}),
    "gap that grows in float32": (rows((20, {"policy/engine_gap": 3e-7}), (40, {"policy/engine_gap": 9e-6})), {}),
    "all is well": (rows((100, {})), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_warning_comes_at_its_step_and_once(name):
    history, expected = CASES[name]
    assert warnings(history) == expected


def test_every_guard_has_a_case_that_it_warns_of():
    assert {name for _, expected in CASES.values() for names in expected.values() for name in names} == set(GUARDS)


@pytest.mark.parametrize("missing", [{}, dict.fromkeys(HEALTHY), dict.fromkeys(HEALTHY, math.nan)])
def test_what_is_absent_gives_no_warning(missing):
    assert warnings([{"step": step, **missing} for step in range(100)]) == {}


def test_steps_without_a_value_are_left_out():
    """As the row of step 0, which is an evaluation, or the KL where no reference is kept."""
    history = [{"step": 0, "eval/accuracy": 0.5}]
    for step in range(1, 60):
        history.append({"step": step, **HEALTHY, "policy/kl": 1.0 if step % 2 else None})
    assert warnings(history) == {19: ["kl_runaway"]}  # the tenth value


def test_a_solved_task_is_told_of_as_such_and_is_no_collapse():
    """Reward 1, entropy near 0, every group all correct: the one warning says that nothing is left to learn."""
    solved = {"reward/mean": 1.0, "group/uniform": 1.0, "policy/entropy": 1e-4, "length/mean": 9.0}
    history = rows((30, {}), (60, {**solved, "length/correct": 9.0, "length/incorrect": None}))
    assert warnings(history) == {49: ["uniform_groups"]}
    guards = Guards(history[:48])
    (warning,) = guards.look(history[48])
    assert "at a mean reward of 1.00" in warning.text and "the problems are solved" in warning.text


def test_what_stops_is_what_was_asked_for():
    bad = rows((40, {"policy/kl": 3.0, "length/truncated": 0.9}))
    guards = Guards(stop_on=["length_limit"])
    found = [warning for row in bad for warning in guards.look(row)]
    assert [(warning.name, warning.stops) for warning in found] == [("kl_runaway", False), ("length_limit", True)]
    assert STOPS == tuple(GUARDS)


def test_the_readme_explains_each_warning():
    section = (ROOT / "grpo" / "logs" / "README.md").read_text().partition("## Warnings")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)`", section, re.MULTILINE) == list(GUARDS)


@pytest.mark.parametrize("name", GUARDS)
def test_a_warning_is_a_sentence_with_flags_that_exist(name):
    cases = (history for history, expected in CASES.values() if [name] in expected.values())
    for history in cases:
        guards = Guards()
        (warning,) = (found for row in history for found in guards.look(row))
        assert isinstance(warning, RunWarning) and warning.name == name
        assert not warning.text[0].isupper() and warning.text.endswith(".") and "nan" not in warning.text
        flags = re.findall(r"--[a-z-]+", warning.text)
        known = {"--" + field.name.replace("_", "-") for field in dataclasses.fields(Config)}
        assert flags and set(flags) <= known


# Resuming --------------------------------------------------------------------------------------------------------

VALUES = st.one_of(st.none(), st.just(math.nan), st.sampled_from([-0.5, 0.0, 0.001, 0.3, 0.5, 1.0, 2.6]))
ROW = st.fixed_dictionaries({}, optional=dict.fromkeys((*HEALTHY, "length/mean", "length/correct"), VALUES))


@given(st.lists(st.tuples(st.integers(1, 25), ROW), max_size=6), st.data())
@settings(max_examples=200, deadline=None)
def test_a_resumed_run_says_what_the_unbroken_one_says(runs, data):
    steps = count(1)
    history = [{"step": next(steps), **row} for times, row in runs for _ in range(times)]
    split = data.draw(st.integers(0, len(history)))
    unbroken = Guards()
    said = [unbroken.look(row) for row in history]
    resumed = Guards(history[:split])
    assert [resumed.look(row) for row in history[split:]] == said[split:]
    names = [warning.name for found in said for warning in found]
    assert len(names) == len(set(names))


def test_a_warning_that_is_to_end_the_run_ends_a_resumed_one_too():
    """What still holds is said again, also where `--stop-on` was not there when it was said first."""
    history = [{"step": step, "policy/kl": 3.0} for step in range(1, 31)]
    again = Guards(history[:20], stop_on=["kl_runaway"])
    found = [(row["step"], warning.name, warning.stops) for row in history[20:] for warning in again.look(row)]
    assert found == [(21, "kl_runaway", True)]
