"""Dynamic sampling on groups small enough to write out."""

import torch

from grpo.algorithm.dynamic_sampling import Scored, enough, select
from grpo.records import Group, Problem, Rewards


def batch(*totals, errors=0):
    """Groups named by their rewards."""
    total = torch.tensor(totals, dtype=torch.float32)
    groups = [Group(Problem(str(row), (), {}), ()) for row in totals]
    return Scored(groups, Rewards(total, {"a": total * 10}, {"a": errors}, {"a": 0}), total)


def names(scored):
    return [group.problem.prompt for group in scored.groups]


def test_a_full_batch_is_enough_and_left_alone():
    scored = batch([0, 1], [1, 0])
    assert enough([scored], 2)
    found = select([scored], 2)
    assert names(found) == names(scored) and torch.equal(found.total, scored.total)


def test_groups_of_equal_rewards_are_not_enough():
    assert not enough([batch([0, 1], [1, 1])], 2)
    assert enough([batch([0, 1], [1, 1]), batch([0, 0], [1, 0])], 2)


def test_uniform_groups_are_replaced_in_order_of_arrival_and_everything_moves_along():
    pool = [batch([1, 1], [1, 0], [0, 0], errors=1), batch([0, 0], [2, 0], [3, 0], errors=2)]
    assert enough(pool, 3)
    groups, rewards, total = found = select(pool, 3)
    assert names(found) == ["[1, 0]", "[2, 0]", "[3, 0]"] and len(groups) == 3
    assert total.tolist() == rewards.total.tolist() == [[1, 0], [2, 0], [3, 0]]
    assert rewards.by_verifier["a"].tolist() == [[10, 0], [20, 0], [30, 0]]
    assert rewards.errors == {"a": 3}


def test_only_as_many_as_fit():
    assert names(select([batch([0, 0], [1, 0]), batch([2, 0], [3, 0])], 2)) == ["[1, 0]", "[2, 0]"]


def test_where_there_are_too_few_uniform_groups_complete_the_batch():
    pool = [batch([0, 0], [5, 5], [6, 0]), batch([1, 1], [1, 1], [1, 1]), batch([1, 1], [1, 1], [4, 0])]
    assert not enough(pool, 3)
    assert names(select(pool, 3)) == ["[0, 0]", "[6, 0]", "[4, 0]"]
