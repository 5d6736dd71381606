"""Dynamic sampling on groups small enough to write out."""

from dataclasses import replace

import torch

from grpo.algorithm.dynamic_sampling import dropped, enough, join, score, select
from grpo.algorithm.table import ALGORITHMS
from grpo.records import Group, Problem, Rewards, Rollout

ROW = ALGORITHMS["dapo"]
CUT, WHOLE = Rollout((1,), (0.0,), "", truncated=True), Rollout((1,), (0.0,), "", truncated=False)


def batch(*totals, errors=0, penalties=None, rollout=WHOLE, row=ROW):
    """Groups named by their rewards; the verifier `a` says what is correct, the total has the penalties as well."""
    correct = torch.tensor(totals, dtype=torch.float32)
    total = correct + torch.tensor(penalties or torch.zeros_like(correct).tolist())
    groups = [Group(Problem(str(list(each)), (), {}), (rollout,) * len(each)) for each in totals]
    return score(
        groups, Rewards(total, {"a": correct, "b": total - correct}, {"a": errors, "b": 0}, {"a": 0, "b": 0}), row
    )


def names(scored):
    return [group.problem.prompt for group in scored.groups]


def test_informative_is_neither_all_correct_nor_all_wrong_whatever_the_penalties():
    found = batch([0, 0], [1, 1], [1, 0], [0, 0.5], penalties=[[0, -0.5], [0, -0.1], [0, 0], [0, 0]])
    assert found.informative.tolist() == [False, False, True, True]
    assert found.total[0].tolist() == [0.0, -0.5]


def test_a_cut_response_is_not_correct_where_the_row_credits_it_so():
    zero = replace(ROW, truncated="zero")
    assert batch([1, 1], [1, 0], rollout=CUT, row=zero).informative.tolist() == [False, False]
    assert batch([1, 1], [1, 0], rollout=CUT).informative.tolist() == [False, True]  # dapo keeps its reward


def test_a_verifier_that_does_not_apply_says_nothing():
    nan = float("nan")
    assert batch([nan, nan], [nan, 1]).informative.tolist() == [False, True]


def test_a_full_batch_is_enough_and_left_alone():
    scored = batch([0, 1], [1, 0])
    assert enough([scored], 2)
    found = select([scored], 2)
    assert names(found) == names(scored) and torch.equal(found.total, scored.total)


def test_uniform_groups_are_replaced_in_order_of_arrival_and_everything_moves_along():
    pool = [batch([1, 1], [1, 0], [0, 0], errors=1), batch([0, 0], [2, 0], [3, 0], errors=2)]
    assert not enough(pool[:1], 3) and enough(pool, 3)
    found = select(pool, 3)
    assert names(found) == ["[1, 0]", "[2, 0]", "[3, 0]"] and found.informative.all()
    assert found.total.tolist() == found.rewards.total.tolist() == [[1, 0], [2, 0], [3, 0]]
    assert found.rewards.by_verifier["a"].tolist() == [[1, 0], [2, 0], [3, 0]] and found.rewards.errors == {
        "a": 3,
        "b": 0,
    }


def test_only_as_many_as_fit():
    assert names(select([batch([0, 0], [1, 0]), batch([2, 0], [3, 0])], 2)) == ["[1, 0]", "[2, 0]"]


def test_where_there_are_too_few_others_complete_the_batch_and_are_dropped():
    pool = [batch([0, 0], [5, 5], [6, 0]), batch([1, 1], [1, 1], [1, 1]), batch([1, 1], [1, 1], [4, 0])]
    assert not enough(pool, 3)
    found = select(pool, 3)
    assert names(found) == ["[0, 0]", "[6, 0]", "[4, 0]"]
    assert dropped(found.informative, ROW).tolist() == [True, False, False]


def test_what_is_dropped_is_the_rows_to_say():
    informative = torch.tensor([True, False])
    rows = {"grpo": [False, False], "dapo": [False, True], "scale_rl": [False, True]}
    assert {name: dropped(informative, ALGORITHMS[name]).tolist() for name in rows} == rows
    drawing = replace(ALGORITHMS["grpo"], dynamic_sampling=2)  # what it could not replace
    assert dropped(informative, drawing).tolist() == [False, True]


def test_joined_rewards_keep_what_is_correct():
    part = Rewards(torch.zeros(1, 2), {"a": torch.zeros(1, 2)}, {"a": 1}, {"a": 0}, correct_at=0.5)
    joined = join([part, part])
    assert joined.correct_at == 0.5 and joined.errors == {"a": 2} and joined.total.shape == (2, 2)
