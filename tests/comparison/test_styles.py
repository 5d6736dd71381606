"""Styles: no two groups look alike, and more than can be told apart are refused."""

import pytest

from grpo.comparison.styles import MOST, styles
from grpo.errors import UserError


def test_no_two_groups_look_alike():
    looks = styles([str(i) for i in range(MOST)])
    assert len({(look.colour, look.dashes) for look in looks}) == MOST == 28
    assert looks[:3] == styles(["a", "b", "c"])  # a group more changes no other


def test_a_few_are_told_apart_by_each_means_alone():
    looks = styles(["a", "b", "c", "d"])
    for kind in ("colour", "dashes", "marker"):
        assert len({getattr(look, kind) for look in looks}) == 4


def test_too_many_are_refused():
    with pytest.raises(UserError, match=f"{MOST + 1} groups of runs cannot be told apart in one picture; {MOST} can"):
        styles([str(i) for i in range(MOST + 1)])
