"""Longest first: the order is that of the lengths that were seen, and is nothing where nobody waits."""

import heapq

from grpo.problems.lengths import EarlierLengths
from grpo.records import Group, Problem, Rollout

PROBLEMS = [Problem(str(i), (i,), {}) for i in range(5)]


def group(problem, *lengths):
    return Group(problem, tuple(Rollout((1,) * n, (0.0,) * n, "", truncated=False) for n in lengths))


def seen(waiting=True):
    lengths = EarlierLengths(PROBLEMS, waiting=waiting)
    lengths.note([group(PROBLEMS[0], 2, 4), group(PROBLEMS[1], 10, 20), group(PROBLEMS[3], 6, 6)])  # 3, 15, 6: mean 8
    return lengths


def test_problems_come_in_falling_order_of_their_mean_and_unknown_ones_as_of_average_length():
    assert [p.prompt for p in seen().longest_first(PROBLEMS)] == ["1", "2", "4", "3", "0"]
    assert [p.prompt for p in seen().longest_first(PROBLEMS[::-1])] == ["1", "4", "2", "3", "0"]


def test_the_last_time_counts():
    lengths = seen()
    lengths.note([group(PROBLEMS[0], 90)])
    assert lengths.longest_first(PROBLEMS)[0] is PROBLEMS[0] and lengths.mean == {0: 90, 1: 15, 3: 6}


def test_nothing_is_sorted_before_a_length_is_known_or_where_nobody_waits():
    assert EarlierLengths(PROBLEMS, waiting=True).longest_first(PROBLEMS) == PROBLEMS
    resumed = seen(waiting=False)
    resumed.mean = seen().mean
    assert resumed.longest_first(PROBLEMS) == PROBLEMS


def rounds(lengths, slots):
    """Rounds of decoding until all have ended, `slots` at a time."""
    busy = [0] * slots
    for length in lengths:
        heapq.heappush(busy, heapq.heappop(busy) + length)
    return max(busy)


def test_it_shortens_the_wait_for_the_last_one():
    """Two at a time: 3, 3, 6, 6, 20 end after 29 rounds; 20 beside the others after 20."""
    groups = [group(p, n) for p, n in zip(PROBLEMS, (3, 3, 6, 6, 20), strict=True)]
    lengths = EarlierLengths(PROBLEMS, waiting=True)
    lengths.note(groups)
    known = {id(g.problem): len(g.rollouts[0].tokens) for g in groups}
    order = [known[id(problem)] for problem in lengths.longest_first(PROBLEMS)]
    assert rounds([3, 3, 6, 6, 20], 2) == 29 and rounds(order, 2) == 20
