"""The panels: points of curves, means over seeds, and where they end."""

import numpy as np
from synthetic_runs import group, make_run, ramp, row

from grpo.comparison.panels import make_panels
from grpo.comparison.view import View

VIEW = View(horizon=10, edge=1, window=3, band="range", reach=())


def panels(*groups, view=VIEW):
    return {panel.key: panel for panel in make_panels(groups, view)}


def test_seven_panels_of_known_curves(tmp_path):
    found = panels(group("a", make_run(tmp_path / "a", ramp(20.0)), make_run(tmp_path / "b", ramp(22.0, growth=2.0))))
    assert [panel.title for panel in found.values()] == [
        "Reward", "Response length", "Length of correct responses", "Length of incorrect responses",
        "Held-out accuracy", "Reward against length", "Token efficiency",
    ]  # fmt: skip
    (incorrect,) = found["length/incorrect"].curves
    assert incorrect.x.tolist() == list(range(1, 11))
    seeds = [[21.5, *range(22, 30), 29.5], [25.0, *range(26, 42, 2), 41.0]]
    assert [seed.y.tolist() for seed in incorrect.seeds] == seeds
    np.testing.assert_allclose(incorrect.y.mean, np.mean(seeds, axis=0))
    assert incorrect.y.low.tolist() == seeds[0] and incorrect.y.high.tolist() == seeds[1]
    (accuracy,) = found["eval/accuracy"].curves
    assert (accuracy.x.tolist(), accuracy.y.mean.tolist()) == ([0, 5, 10], [0.5, 0.7, 0.9])
    (efficiency,) = found["efficiency"].curves
    tokens = [[0, 265, 555], [0, 290, 630]]  # sums of 50 + step, of 52 + 2 * step
    assert [seed.x.tolist() for seed in efficiency.seeds] == tokens
    assert efficiency.x.tolist() == np.mean(tokens, axis=0).tolist() and efficiency.y.mean.tolist() == [0.5, 0.7, 0.9]


def test_reward_against_length_is_smoothed_three_times_as_wide(tmp_path):
    (path,) = panels(group("a", make_run(tmp_path / "a", ramp(20.0))))["path"].curves
    assert path.steps.tolist() == list(range(1, 11))
    assert path.y.mean[4] == np.mean(np.arange(1, 10) / 10) and path.x[4] == np.mean(
        [(50 + s) / 4 for s in range(1, 10)]
    )


def test_a_mean_ends_where_its_shortest_seed_ends(tmp_path):
    short, long = make_run(tmp_path / "a", ramp(20.0, steps=6)), make_run(tmp_path / "b", ramp(20.0, steps=10))
    found = panels(group("a", short, long))
    (reward,) = found["reward/mean"].curves
    assert reward.x[-1] == 6 and [seed.x[-1] for seed in reward.seeds] == [6, 10]
    assert found["eval/accuracy"].curves[0].x.tolist() == [0, 5]


def test_a_gap_that_all_were_correct_in(tmp_path):
    """Filled by the running mean where a neighbour has incorrect responses, left out where none has."""
    rows = [row(s, 1, (10, 4), (20, 4) if s < 3 else (0, 0)) for s in range(1, 7)]
    (curve,) = panels(group("a", make_run(tmp_path / "a", rows)))["length/incorrect"].curves
    assert curve.x.tolist() == [1, 2, 3] and curve.y.mean.tolist() == [20, 20, 20]


def test_a_single_run_has_its_raw_curve_and_its_evaluations_interval(tmp_path):
    rows = ramp(20.0)
    rows[-1] |= {"eval/accuracy_low": 0.85, "eval/accuracy_high": 0.94}
    found = panels(group("a", make_run(tmp_path / "a", rows)))
    assert found["length/incorrect"].curves[0].seeds[0].raw.tolist() == list(range(21, 31))
    for key in ("eval/accuracy", "efficiency"):
        np.testing.assert_array_equal(found[key].curves[0].y.low, [np.nan, np.nan, 0.85])
        np.testing.assert_array_equal(found[key].curves[0].y.high, [np.nan, np.nan, 0.94])


def test_what_no_run_has_is_empty(tmp_path):
    rows = [{"step": step, "reward/mean": 0.5} for step in range(1, 11)]
    empty = {key for key, panel in panels(group("a", make_run(tmp_path / "a", rows))).items() if panel.empty}
    assert empty == {"length/mean", "length/correct", "length/incorrect", "eval/accuracy", "path", "efficiency"}
