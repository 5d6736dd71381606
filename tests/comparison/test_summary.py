"""Words and figures: numbers as text, verdicts that follow from intervals, and notes on what limits a comparison."""

import pytest
from synthetic_runs import make_run, ramp

from grpo.comparison import compare
from grpo.comparison.groups import group_runs
from grpo.comparison.seeds import Difference, Estimate
from grpo.comparison.summary import difference_cell, estimate_cell, findings, methods, notes, show, summary_table
from grpo.comparison.view import make_view


def compared(*runs, **options):
    return compare(group_runs(runs), make_view(runs, **options), "t")


@pytest.mark.parametrize(
    "value,kind,signed,text",
    [
        (0.12345, "reward", False, "0.123"),
        (-0.5, "reward", False, "−0.500"),
        (0.953, "share", False, "95.3%"),
        (-0.0156, "share", True, "−1.6"),
        (28.04, "tokens", False, "28.0"),
        (0.04, "tokens", True, "+0.0"),
        (-0.04, "tokens", True, "+0.0"),
        (999.0, "count", False, "999"),
        (128_400.0, "count", False, "128.4k"),
        (2_345_678.0, "count", False, "2.35M"),
        (-1_234_567_890.0, "count", True, "−1.23B"),
        (36.4, "steps", False, "36"),
        (59.94, "seconds", False, "59.9 s"),
        (131.0, "seconds", False, "2 min 11 s"),
        (3599.9, "seconds", False, "1 h 00 min"),
        (-3725.0, "seconds", True, "−1 h 02 min"),
        (None, "tokens", False, "–"),
    ],
)
def test_values_as_text(value, kind, signed, text):
    assert show(value, kind, signed) == text


def test_cells():
    assert estimate_cell(Estimate(0.9, 0.8, 1.0, (0.85, 0.95)), "share") == ("90.0%", "[80.0%, 100.0%]")
    assert estimate_cell(Estimate(7.0, None, None, (7.0,), 2), "steps") == ("7", "1 of 3 runs")
    assert estimate_cell(Estimate(7.0, None, None, (7.0,)), "steps") == ("7", "")
    assert difference_cell(Difference(0.052, 0.033, 0.071, 0.002), "share") == (
        "+5.2 points",
        "[+3.3, +7.1], p = 0.002",
    )
    assert difference_cell(Difference(-3.0, -4.0, -2.0, 1e-5), "tokens") == ("−3.0", "[−4.0, −2.0], p < 0.001")
    assert difference_cell(Difference(-3.0, None, None, None), "tokens") == ("−3.0", "")
    assert difference_cell(Difference(None, None, None, None), "share") == ("–", "")


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
    assert (growth.high - growth.mean) / (4.0 - 2.0) == pytest.approx(6.4, abs=0.05)
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
