"""A comparison in words: verdicts that follow from intervals, and notes on what limits a comparison."""

import pytest
from synthetic_runs import make_run, ramp

from grpo.comparison.comparison import compare
from grpo.comparison.groups import group_runs
from grpo.comparison.summary import findings, methods, notes, summary_table
from grpo.comparison.view import make_view


def compared(*runs, **options):
    return compare(group_runs(runs), make_view(runs, **options), "t")


def test_a_finding_says_every_group_and_whether_it_is_noise(tmp_path):
    """Growths of 9 and 9.09, and of 18 and 18.09, tokens between the first and the last of ten steps."""
    runs = [
        make_run(tmp_path / f"{name}-seed{seed}", ramp(20.0, growth=g + seed / 100))
        for name, g in (("one", 1.0), ("two", 2.0))
        for seed in (0, 1)
    ]
    growth, *_ = findings(compared(*runs))
    assert str(growth) == (
        "Growth of length, incorrect (tokens; step 10 less step 1): one: +9.0 [+8.5, +9.6]; two: +18.0 [+17.5, "
        "+18.6] (+9.0 [+8.7, +9.3], p < 0.001: more than the noise of seeds)."
    )
    accuracy = findings(compared(*runs))[3]
    assert (accuracy.title, accuracy.meaning) == ("Held-out accuracy", "at step 10")
    assert accuracy.groups == (
        "one: 90.0% [90.0%, 90.0%]",
        "two: 90.0% [90.0%, 90.0%] (+0.0 points, without an interval)",
    )


def test_nothing_to_note_of_equal_runs(tmp_path):
    runs = [make_run(tmp_path / str(seed), ramp(20.0), {"seed": seed}) for seed in (0, 1, 2)]
    assert notes(compared(*runs)) == []


def test_two_seeds_and_an_accuracy_of_the_untrained_model_are_noted(tmp_path):
    """The interval of two values: 12.706 * |a - b| / 2 to either side of the mean."""
    runs = [make_run(tmp_path / str(seed), ramp(20.0, growth=1 + seed), {"seed": seed}) for seed in (0, 1)]
    view = compared(*runs, until=3)
    said = "\n".join(notes(view))
    assert "Two seeds only: grpo. A 95% t interval of two values reaches 6.4 times their distance" in said
    growth = next(each for each in view.quantities if each.measure.key == "growth/incorrect").estimates[0]
    assert (growth.high - growth.value) / (4.0 - 2.0) == pytest.approx(6.4, abs=0.05)
    assert "Held-out values are of the untrained model: up to step 3 only step 0 was evaluated." in said
    accuracy = next(each for each in view.quantities if each.measure.key == "eval/accuracy")
    assert accuracy.measure.meaning == "at step 0"


@pytest.mark.parametrize("width,columns", [(50, 0), (65, 3), (80, 4)])
def test_the_console_has_whole_numbers_or_none(tmp_path, width, columns):
    """Two groups: with their difference, without it, or no table."""
    runs = [make_run(tmp_path / name, ramp(20.0)) for name in ("one", "two")]
    table = summary_table(compared(*runs), width)
    assert isinstance(table, str) if columns == 0 else len(table.columns) == columns


def test_notes_on_what_limits_the_comparison(tmp_path):
    unevaluated = ramp(20.0, steps=7)
    for each in unevaluated[1:]:
        each.pop("eval/accuracy", None)
    short = make_run(tmp_path / "short", unevaluated, {"seed": 0})
    again = make_run(tmp_path / "again", ramp(20.0), {"seed": 0, "commit": "other"})
    lone = make_run(tmp_path / "lone", [{"step": 8, "reward/mean": 1.0}])
    said = "\n".join(notes(compared(short, again, lone)))
    assert "The table is of the steps up to 7; 2 of 3 runs go further, up to step 10" in said
    assert "One seed only: lone." in said
    assert "grpo has 2 runs of seed 0: they are not independent." in said
    assert "for want of a config.json: lone." in said
    assert "made by 2 different commits" in said
    assert "Without a held-out accuracy: lone." in said and "Without incorrect responses: lone." in said
    assert "The last evaluations stand at different steps: 0, 5." in said


def test_methods_say_bands_and_smoothing(tmp_path):
    run = make_run(tmp_path / "a", ramp(20.0, steps=100))
    assert "95% t interval" in methods(compared(run))[0] and "of 5 steps (15 for" in methods(compared(run))[1]
    assert "lowest to the highest seed" in methods(compared(run, band="range"))[0]
    assert methods(compared(run, window=1))[1] == "No curve is smoothed."
    assert "last 10 of 100 steps" in methods(compared(run))[2]
