"""The picture: its axes show the lines whole and the bands in part, and a label is text whatever it holds."""

import matplotlib.image
import numpy as np
import pytest
from parsed_page import two_groups

from grpo.comparison.figure import draw, limits
from grpo.comparison.panels import GroupCurve, Panel
from grpo.comparison.seed_curves import Band


def panel(mean, low, high, **options):
    x = np.arange(len(mean))
    curve = GroupCurve(x, x, Band(*(np.array(values, dtype=float) for values in (mean, low, high)), x), ())
    return Panel("reward/mean", "Reward", "step", "mean reward", (curve,), **options)


@pytest.mark.parametrize(
    "low,high,expected",
    [
        ([1, 2], [1, 4], (0.85, 4.15)),  # no wider than the line from 1 to 4: a twentieth of that at either end
        ([0.5, 2], [1, 4.5], (0.3, 4.7)),
        ([-9, -9], [9, 9], (-0.25, 5.25)),  # a third of the line's height is shown beyond it
        ([np.nan] * 2, [np.nan] * 2, (0.85, 4.15)),
    ],
)
def test_limits_hold_lines_and_some_of_the_bands(low, high, expected):
    assert limits(panel([1, 4], low, high)) == pytest.approx(expected)


def test_limits_of_a_path_and_of_a_flat_line():
    assert limits(panel([1, 4], [-9, -9], [9, 9], path=True)) == pytest.approx((0.85, 4.15))
    assert limits(panel([2, 2], [2, 2], [2, 2])) == (1.0, 3.0)
    assert limits(panel([0, 0], [0, 0], [0, 0])) == (-1.0, 1.0)


def test_a_label_is_text_whatever_it_holds(tmp_path):
    draw(two_groups(tmp_path / "runs", names=("$x^", r"\frac{")), tmp_path / "x.png")
    assert matplotlib.image.imread(tmp_path / "x.png").shape[:2] == (888, 1800)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["x.png"]
