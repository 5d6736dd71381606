"""Draws of problems: every pass has each once, in an order of its own."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from grpo.problems.draw import draw
from grpo.records import Problem


@given(size=st.integers(1, 30), count=st.integers(1, 40), seed=st.integers(0, 5))
def test_every_pass_draws_every_problem_once(size, count, seed):
    problems = [Problem(str(i), (i,), {}) for i in range(size)]
    drawn = [p.prompt for step in range(1, size + 1) for p in draw(problems, count, step, seed)]
    assert len(drawn) == size * count  # `count` whole passes
    assert Counter(drawn) == {str(i): count for i in range(size)}
    for start in range(0, len(drawn), size):
        assert len(set(drawn[start : start + size])) == size


def test_draws_are_shuffled_by_seed_and_pass_and_depend_on_nothing_else():
    problems = [Problem(str(i), (i,), {}) for i in range(100)]
    first = draw(problems, 100, 1, seed=0)
    assert first == draw(problems, 100, 1, seed=0)
    assert first != problems
    assert first != draw(problems, 100, 2, seed=0)
    assert first != draw(problems, 100, 1, seed=1)
