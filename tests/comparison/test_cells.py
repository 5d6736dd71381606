"""Numbers as text: values of every kind, their intervals, differences and p."""

import pytest
from synthetic_runs import group, make_run, ramp

from grpo.comparison.cells import (
    difference_cell,
    difference_cells,
    estimate_cell,
    estimate_cells,
    seeds_text,
    show,
    show_p,
)
from grpo.comparison.quantities import make_quantities
from grpo.comparison.view import View
from grpo.intervals import Difference, Estimate


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


def test_the_cell_of_an_estimate():
    assert estimate_cell(Estimate(0.9, 0.8, 1.0), (0.85, 0.95), "share") == ("90.0%", "[80.0%, 100.0%]")
    assert estimate_cell(Estimate(-3.0, -4.0, -2.0), (-3.0, -3.0), "tokens", True) == ("−3.0", "[−4.0, −2.0]")
    assert estimate_cell(Estimate(7.0, None, None), (7.0, None, None), "steps") == ("7", "1 of 3 runs")
    assert estimate_cell(Estimate(7.0, None, None), (7.0,), "steps") == ("7", "")
    assert estimate_cell(None, (None,), "steps") == ("–", "")
    assert estimate_cell(None, (None, None), "steps") == ("–", "0 of 2 runs")


def test_the_cell_of_a_difference():
    less = Difference(Estimate(0.052, 0.033, 0.071), 0.002)
    assert difference_cell(less, "share") == ("+5.2 points", "[+3.3, +7.1], p = 0.002")
    less = Difference(Estimate(-3.0, -4.0, -2.0), 1e-5)
    assert difference_cell(less, "tokens") == ("−3.0", "[−4.0, −2.0], p < 0.001")
    assert difference_cell(Difference(Estimate(-3.0, None, None), None), "tokens") == ("−3.0", "")
    assert difference_cell(None, "share") == ("–", "")


@pytest.mark.parametrize(
    "p,text", [(0.00099, "p < 0.001"), (0.001, "p = 0.001"), (0.0456, "p = 0.046"), (1.0, "p = 1")]
)
def test_p_as_text(p, text):
    assert show_p(p) == text


def test_the_cells_of_a_quantity(tmp_path):
    """Incorrect responses of two seeds grow by 9 and 18 in one group, those of a single one by 9 in the other."""
    runs = [make_run(tmp_path / f"{i}", ramp(20.0, growth=growth)) for i, growth in enumerate((1.0, 2.0, 1.0))]
    groups = [group("two", *runs[:2]), group("one", runs[2])]
    view = View(horizon=10, edge=1, window=1, band="interval", reach=())
    growth = next(each for each in make_quantities(groups, view) if each.measure.key == "growth/incorrect")
    assert estimate_cells(growth) == [("+13.5", "[−43.7, +70.7]"), ("+9.0", "")]  # 12.706205 * 9 / 2
    assert difference_cells(growth) == [("−4.5", "")]
    assert [seeds_text(each) for each in groups] == ["2 seeds", "1 seed"]
