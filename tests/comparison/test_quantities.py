"""The table: every quantity of runs whose numbers are simple is the one computed by hand."""

import numpy as np
import pytest
from synthetic_runs import group, make_run, ramp, row

from grpo.comparison.panels import make_panels
from grpo.comparison.quantities import make_quantities
from grpo.comparison.view import View, make_view

VIEW = View(horizon=10, edge=2, window=1, band="interval", reach=(0.8, 0.9))


def quantities(*groups, view=VIEW):
    return {quantity.measure.key: quantity for quantity in make_quantities(groups, view)}


def test_quantities_of_a_run_by_hand(tmp_path):
    """3 correct responses of 10 tokens and 1 incorrect of 20 + step; accuracy 0.5, 0.7 and 0.9 at steps 0, 5 and 10."""
    found = quantities(group("a", make_run(tmp_path / "a", ramp(20.0))))
    values = {key: quantity.estimates[0].value for key, quantity in found.items()}
    assert values == pytest.approx(
        {
            "reward": 0.95,  # of steps 9 and 10
            "eval/accuracy": 0.9,
            "length/mean": (3 * 10 + 29.5) / 4,
            "length/correct": 10.0,
            "length/incorrect": 29.5,
            "growth/mean": 8 / 4,
            "growth/correct": 0.0,
            "growth/incorrect": 8.0,
            "slope": 100.0,
            "truncated": 0.0,
            "eval/length": 10.0,
            "tokens/0.8": sum(50 + step for step in range(1, 6)) + sum(50 + step for step in range(6, 11)) / 2,
            "steps/0.8": 7.5,
            "tokens/0.9": 555.0,
            "steps/0.9": 10.0,
            "tokens": 555.0,
            "time": 20.0,
        }
    )
    assert all(quantity.estimates[0].low is None for quantity in found.values())


def test_lengths_are_means_over_responses_and_not_over_steps(tmp_path):
    rows = [row(1, 0, (10, 3), (12, 1)), row(2, 0, (10, 1), (20, 3)), row(3, 0, (10, 4), (0, 0))]
    view = View(horizon=3, edge=2, window=1, band="interval", reach=())
    found = quantities(group("a", make_run(tmp_path / "a", rows)), view=view)
    assert found["length/incorrect"].estimates[0].value == 20.0  # step 3 has none
    assert found["growth/incorrect"].estimates[0].value == 20.0 - (12 + 3 * 20) / 4
    assert found["slope"].estimates[0].value == pytest.approx(800.0)


def test_seeds_and_differences(tmp_path):
    """Incorrect responses of three seeds grow by 8, 16 and 24 in one group, by 0, 8 and 16 in the other."""
    one, two = (
        group(name, *(make_run(tmp_path / f"{name}{g}", ramp(20.0, growth=g)) for g in growths))
        for name, growths in (("one", (1, 2, 3)), ("two", (0, 1, 2)))
    )
    growth = quantities(one, two)["growth/incorrect"]
    assert [each.value for each in growth.estimates] == pytest.approx([16.0, 8.0])
    assert growth.values == (pytest.approx((8, 16, 24)), pytest.approx((0, 8, 16)))
    half = 4.302653 * 8 / 3**0.5
    assert (growth.estimates[0].low, growth.estimates[0].high) == pytest.approx((16 - half, 16 + half))
    (less,) = growth.differences
    half = 2.776445 * 8 * (2 / 3) ** 0.5  # equal variances: Welch has 4 degrees of freedom
    assert less.estimate == pytest.approx((-8.0, -8 - half, -8 + half)) and not less.clear


def test_intervals_keep_to_what_can_be(tmp_path):
    """t intervals of 0.9 and 1.0, of 10 and 310 tokens and of 1 and 0.5 would go beyond 100%, below 0 and above 1."""
    runs = []
    for name, accuracy, length, reward in (("a", 0.9, 10.0, 1.0), ("b", 1.0, 310.0, 0.5)):
        rows = [row(1, reward, (5.0, 3), (length, 1)), row(2, reward, (5.0, 3), (length, 1), eval__accuracy=accuracy)]
        runs.append(make_run(tmp_path / name, rows))
    view = View(horizon=2, edge=1, window=1, band="interval", reach=())
    found = {key: each.estimates[0] for key, each in quantities(group("a", *runs), view=view).items()}
    half = 12.706205 * 0.1 / 2
    assert (found["eval/accuracy"].low, found["eval/accuracy"].high) == pytest.approx((0.95 - half, 1.0))
    assert found["length/incorrect"].low == 0.0
    assert found["length/incorrect"].high == pytest.approx(160 + 12.706205 * 150)
    assert found["reward"].high == pytest.approx(0.75 + 12.706205 * 0.25)  # a reward can be anything
    curves = {panel.key: panel.curves[0].y for panel in make_panels([group("a", *runs)], view)}
    assert curves["eval/accuracy"].high.tolist() == [1.0] and curves["length/incorrect"].low.tolist() == [0.0, 0.0]
    assert curves["reward/mean"].high[0] == pytest.approx(0.75 + 12.706205 * 0.25)


def test_what_is_beyond_the_horizon_does_not_count(tmp_path):
    run = make_run(tmp_path / "a", ramp(20.0, steps=20))
    found = quantities(group("a", run), view=View(horizon=10, edge=2, window=1, band="interval", reach=(0.9, 1.1)))
    assert found["tokens"].estimates[0].value == 555 and found["eval/accuracy"].estimates[0].value == 0.9
    assert found["steps/0.9"].estimates[0].value == 10 and "steps/1.1" not in found  # reached at step 15


def test_a_seed_that_never_arrives_is_counted(tmp_path):
    slow = [{**each, "eval/accuracy": 0.5} if "eval/accuracy" in each else each for each in ramp(20.0)]
    both = group("a", make_run(tmp_path / "a", ramp(20.0)), make_run(tmp_path / "b", slow))
    reached = quantities(both, both)["steps/0.8"]
    assert reached.values[0] == (pytest.approx(7.5), None)
    assert reached.estimates[0] == (pytest.approx(7.5), None, None)
    assert reached.differences == (None,)


def test_a_single_runs_accuracy_has_its_evaluations_interval(tmp_path):
    rows = ramp(20.0)
    rows[-1] |= {"eval/accuracy_low": 0.85, "eval/accuracy_high": 0.94, "eval/length_incorrect": 31.0}
    found = quantities(group("a", make_run(tmp_path / "a", rows)), group("b", make_run(tmp_path / "b", ramp(20.0))))
    accuracy = found["eval/accuracy"]
    assert [(each.low, each.high) for each in accuracy.estimates] == [(0.85, 0.94), (None, None)]
    assert accuracy.differences[0].estimate == (pytest.approx(0.0), None, None)
    assert found["eval/length_incorrect"].estimates == ((31.0, None, None), None)


def test_a_run_of_rewards_alone(tmp_path):
    rows = [{"step": step, "reward/mean": 0.5} for step in range(1, 11)]
    assert list(quantities(group("a", make_run(tmp_path / "a", rows)))) == ["reward"]


def test_a_run_that_was_only_correct(tmp_path):
    found = quantities(group("a", make_run(tmp_path / "a", [row(s, 1, (10, 4), (0, 0)) for s in range(1, 11)])))
    assert "length/incorrect" not in found and "slope" not in found
    assert found["length/correct"].estimates[0].value == 10.0


def test_edges_are_never_empty(tmp_path):
    for steps in (1, 2, 3):
        run = make_run(tmp_path / str(steps), ramp(20.0, steps=steps))
        view = make_view([run])
        assert (view.edge, view.window) == (1, 1)
        assert np.isfinite(quantities(group("a", run), view=view)["length/incorrect"].estimates[0].value)
