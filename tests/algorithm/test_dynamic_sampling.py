"""Dynamic sampling on groups small enough to write out."""

import torch

from grpo.algorithm.dynamic_sampling import refill
from grpo.records import Group, Problem, Rewards


def batch(*totals, errors=0):
    """Groups named by their rewards."""
    total = torch.tensor(totals, dtype=torch.float32)
    groups = [Group(Problem(str(row), (), {}), ()) for row in totals]
    return groups, Rewards(total, {"a": total * 10}, {"a": errors}, {"a": 0}), total


def names(scored):
    return [group.problem.prompt for group in scored[0]]


def never(attempt):
    raise AssertionError("nothing is missing, and yet more was drawn")


def test_a_full_batch_is_left_alone():
    scored = batch([0, 1], [1, 0])
    found, drawn = refill(scored, never, 3)
    assert names(found) == names(scored) and drawn == 0 and torch.equal(found[2], scored[2])


def test_uniform_groups_are_replaced_in_order_of_arrival_and_everything_moves_along():
    more = {1: batch([0, 0], [2, 0], [3, 0], errors=2)}
    found, drawn = refill(batch([1, 1], [1, 0], [0, 0], errors=1), more.__getitem__, 3)
    groups, rewards, total = found
    assert names(found) == ["[1, 0]", "[2, 0]", "[3, 0]"] and drawn == 1
    assert total.tolist() == rewards.total.tolist() == [[1, 0], [2, 0], [3, 0]]
    assert rewards.by_verifier["a"].tolist() == [[10, 0], [20, 0], [30, 0]]
    assert rewards.errors == {"a": 3}
    assert len(groups) == 3


def test_only_as_many_as_fit():
    found, _ = refill(batch([0, 0], [1, 0]), {1: batch([2, 0], [3, 0])}.__getitem__, 3)
    assert names(found) == ["[1, 0]", "[2, 0]"]


def test_the_bound_holds_and_uniform_groups_complete_the_batch():
    attempts = []

    def hopeless(attempt):
        attempts.append(attempt)
        return batch([1, 1], [1, 1], [4, 0] if attempt == 2 else [1, 1])

    found, drawn = refill(batch([0, 0], [5, 5], [6, 0]), hopeless, 2)
    assert attempts == [1, 2] and drawn == 2
    assert names(found) == ["[0, 0]", "[6, 0]", "[4, 0]"]
