"""How runs are looked at: what is filled in from the runs, and what no run can serve."""

import pytest
from synthetic_runs import make_run, ramp, row

from grpo.comparison.view import View, make_view
from grpo.errors import UserError


def test_the_view_is_made_from_the_runs(tmp_path):
    runs = [make_run(tmp_path / "a", ramp(20.0, steps=100)), make_run(tmp_path / "b", ramp(20.0, steps=65))]
    view = make_view(runs)
    assert (view.horizon, view.edge, view.window, view.path_window) == (65, 7, 5, 15)  # a window of the longest run's
    assert view.reach == (0.9, 0.95, 0.99)
    view = make_view(runs, until=20, final=0.25, window=4, reach=(0.9, 0.7, 0.9), band="range")
    assert view == View(horizon=20, edge=5, window=5, band="range", reach=(0.7, 0.9), evaluated=(20,))


def test_accuracies_to_reach_lie_between_start_and_best(tmp_path):
    assert make_view([make_run(tmp_path / "a", ramp(20.0))]).reach == (0.7, 0.8, 0.9)
    assert make_view([make_run(tmp_path / "b", [row(1, 0, (1, 1), (1, 1))])]).reach == ()


@pytest.mark.parametrize(
    "options,message",
    [
        ({"until": 11}, "--until 11 .* the shortest run, a, ends at 10"),
        ({"until": 0}, "--until 0"),
        ({"final": 0.0}, "--final 0.0"),
        ({"final": 0.6}, "--final 0.6"),
        ({"window": 0}, "--smooth 0"),
        ({"reach": (0.5, 90.0)}, "--reach 0.5 90.0"),
    ],
)
def test_a_view_that_no_run_can_serve_is_refused(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        make_view([make_run(tmp_path / "a", ramp(20.0))], **options)
