"""scripts/scaling.py: a step on many cards, against sums by hand."""

import sys
from dataclasses import replace
from itertools import pairwise

import pytest
from conftest import ROOT

sys.path.append(str(ROOT / "scripts"))
from scaling import CARDS, Options, generation, lengths, main, pass_seconds, step

SMALL = Options(parameters=1.0, kv_bytes=0, responses=8, mean_tokens=10, slots=2, bandwidth=2e9, reached=1.0, updates=1)
"""A pass takes a second: 1e9 parameters of 2 bytes, 2e9 bytes a second, and no cache."""


def test_generation_by_hand():
    assert pass_seconds(SMALL, 100) == 1.0
    # Two slots: 5 and 3 start; after 3 the 4 starts, which ends after 7; the 1 starts after 5, and ends after 6.
    assert generation(SMALL, [5, 3, 4, 1]) == 7.0
    assert generation(replace(SMALL, slots=1), [5, 3, 4, 1]) == 13.0
    assert generation(SMALL, []) == 0.0


def test_a_step_by_hand():
    options = replace(SMALL, operations=8e9, busy=1.0, in_node=1e30, across=1e30)
    one = step(options, 1, [5, 3, 4, 1])
    assert (one.generate, one.waited, one.exchange) == (7.0, 0.0, 0.0)
    assert one.update == pytest.approx(8 * 1e9 * 13 / 8e9) and one.longest == 5.0
    two = step(options, 2, [5, 3, 4, 1])  # ranks have 5 and 4, 3 and 1
    assert (two.generate, two.waited) == (5.0, 1.0) and two.update == one.update / 2


def test_no_number_of_cards_is_faster_than_the_longest_response():
    options = Options(responses=2048)
    drawn = lengths(options)
    steps = [step(options, cards, drawn) for cards in CARDS]
    assert all(one.whole >= other.whole for one, other in pairwise(steps))
    few = replace(options, slots=1)
    assert step(few, 1024, drawn).generate >= max(drawn) * pass_seconds(options, 0)
    assert drawn == lengths(options) and max(drawn) <= options.max_tokens


def test_the_command_says_where_it_ends(capsys):
    assert main(["--responses", "1024"]) == 0
    said = capsys.readouterr().out
    assert said.count("\n| ") == len(CARDS) + 1 and "by arithmetic" in said and "prime-rl" in said
