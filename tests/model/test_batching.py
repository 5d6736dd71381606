"""Collation, shift, optimizer batches and micro-batches, on batches small enough to write out."""

import math
from dataclasses import replace

import pytest
import torch
from conftest import make_batch, make_policy
from hypothesis import given
from hypothesis import strategies as st
from updates import uneven_groups, whole_batch

from grpo.algorithm.ingredients import load_aggregation
from grpo.algorithm.objective import Objective
from grpo.algorithm.table import ALGORITHMS
from grpo.model.batching import collate, dealt, micro_batches, nothing, optimizer_batches
from grpo.records import Batch, Group, Problem, Rollout

PAD = 0


whole_mean = load_aggregation("token_mean", 1.0)


def rollout(*tokens, truncated=False):
    return Rollout(tokens, tuple(-0.1 * token for token in tokens), "", truncated)


GROUPS = [
    Group(Problem("", (11, 12), {}), (rollout(3, 1), rollout(4, 5, 6, truncated=True))),
    Group(Problem("", (13,), {}), (rollout(1), rollout(7, 8, 1))),
]
ADVANTAGES = torch.tensor([[0.5, -0.5], [1.0, -1.0]])


def compared():
    """The batch with its advantages, as it is cut up."""
    return replace(collate(GROUPS, PAD), advantages=ADVANTAGES.flatten())


def test_collate_written_out():
    batch = collate(GROUPS, PAD)
    assert batch.inputs.tolist() == [[11, 12, 3, 1], [11, 12, 4, 5], [13, 1, 0, 0], [13, 7, 8, 1]]
    assert batch.targets.tolist() == [[12, 3, 1, 0], [12, 4, 5, 6], [1, 0, 0, 0], [7, 8, 1, 0]]
    # The end-of-sequence token 1 is trained on, wherever it ends a response.
    assert batch.mask.int().tolist() == [[0, 1, 1, 0], [0, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 0]]
    assert batch.lengths.tolist() == [3, 4, 1, 3]
    expected = torch.tensor([[0, -0.3, -0.1, 0], [0, -0.4, -0.5, -0.6], [-0.1, 0, 0, 0], [-0.7, -0.8, -0.1, 0]])
    torch.testing.assert_close(batch.sampler_logprobs, expected)
    assert batch.advantages is None and batch.token_weights is None


def test_the_end_of_sequence_is_trained_on_even_where_it_is_the_pad_token():
    batch = collate(GROUPS, pad_id=1)
    assert batch.mask.int().tolist() == [[0, 1, 1, 0], [0, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 0]]


def test_mask_truncated_empties_the_row_and_keeps_it():
    batch = collate(GROUPS, PAD, mask_truncated=True)
    assert batch.mask.sum(1).tolist() == [2, 0, 1, 3]
    assert len(batch) == 4


def test_take_cuts_to_the_longest_row():
    part = compared().take(torch.tensor([2, 0]))
    assert part.inputs.tolist() == [[13, 1, 0], [11, 12, 3]]
    assert part.advantages.tolist() == [1.0, 0.5]


@pytest.mark.parametrize("updates,epochs", [(1, 1), (2, 1), (4, 3), (1, 2)])
def test_every_epoch_visits_every_sequence_once(updates, epochs):
    batch = compared()
    parts = list(optimizer_batches(batch, updates, epochs, whole_mean, seed=3))
    assert len(parts) == updates * epochs
    for epoch in range(epochs):
        seen = torch.cat([part.advantages for part in parts[epoch * updates : (epoch + 1) * updates]])
        assert sorted(seen.tolist()) == [-1.0, -0.5, 0.5, 1.0]


def test_weights_are_those_of_the_optimizer_batch_not_of_the_rollout_batch():
    batch = compared()
    for part in optimizer_batches(batch, 2, 1, load_aggregation("sequence_mean", 1.0), seed=0):
        # Two sequences a part: each weighs one half, shared by its tokens.
        torch.testing.assert_close(part.token_weights.sum(1), torch.tensor([0.5, 0.5]))
    for part in optimizer_batches(batch, 2, 1, load_aggregation("constant", 8.0), seed=0):
        torch.testing.assert_close(part.token_weights, part.mask.float() / 16)


def test_shuffles_depend_on_the_seed_alone():
    batch = compared()

    def orders(seed):
        return [part.advantages.tolist() for part in optimizer_batches(batch, 2, 4, whole_mean, seed)]

    torch.manual_seed(0)
    first = orders(5)
    torch.manual_seed(99)
    assert orders(5) == first
    assert orders(6) != first


def test_updates_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="4 sequences do not divide into 3"):
        list(optimizer_batches(compared(), 3, 1, whole_mean, seed=0))


def test_micro_batches_written_out():
    batch = batch_of_lengths([2, 9, 3])
    assert [rows.tolist() for rows in micro_batches(batch, 8)] == [[0, 2], [1]]
    assert [rows.tolist() for rows in micro_batches(batch, 27)] == [[0, 2, 1]]
    assert [rows.tolist() for rows in micro_batches(batch, 1)] == [[0], [2], [1]]


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=40), budget=st.integers(1, 200))
def test_micro_batches_partition_and_keep_the_budget(lengths, budget):
    parts = [rows.tolist() for rows in micro_batches(batch_of_lengths(lengths), budget)]
    assert sorted(row for rows in parts for row in rows) == list(range(len(lengths)))
    for rows in parts:
        assert len(rows) == 1 or len(rows) * max(lengths[row] for row in rows) <= budget


def batch_of_lengths(lengths):
    shape = (len(lengths), max(lengths))
    empty = torch.zeros(shape)
    groups = torch.arange(len(lengths))
    return Batch(empty.long(), empty.long(), torch.tensor(lengths), empty.bool(), groups, empty)


def test_a_dropped_group_leaves_the_loss_and_stays_in_b():
    dropped = torch.tensor([True, *[False] * (len(GROUPS) - 1)])
    batch, kept = collate(GROUPS, PAD, dropped=dropped), collate(GROUPS, PAD)
    size = len(GROUPS[0].rollouts)
    assert not batch.mask[:size].any() and torch.equal(batch.mask[size:], kept.mask[size:])
    assert batch.groups.tolist() == [p for p, group in enumerate(GROUPS) for _ in group.rollouts]
    assert torch.equal(batch.sampler_logprobs, kept.sampler_logprobs) and len(batch) == len(kept)


def test_every_rank_has_as_many_micro_batches_and_all_rows_are_dealt_once():
    mask = torch.zeros(5, 8, dtype=torch.bool)
    for row, length in enumerate((8, 2, 5, 1, 3)):
        mask[row, :length] = True
    batch = make_batch(mask)
    parts = [dealt(batch, 8, rank, 3) for rank in range(3)]
    assert [[None if rows is None else rows.tolist() for rows in part] for part in parts] == [
        [[3], [2]],  # lengths 1 and 5: two rows of 5 would be 10 positions
        [[1], [0]],
        [[4], None],
    ]
    assert [rows.tolist() for rows in dealt(batch, 8, 0, 1)] == [rows.tolist() for rows in micro_batches(batch, 8)]
    assert list(micro_batches(batch, 8, rank=5, ranks=6)) == []


@pytest.mark.parametrize("name", ALGORITHMS)
def test_nothing_has_a_loss_and_a_gradient_of_0_and_counts_as_no_token(tied_folder, name):
    policy = make_policy(tied_folder)
    whole = whole_batch(policy, uneven_groups(), ALGORITHMS[name])
    whole.sampler_logprobs[0] = math.nan  # of a row that it could have been made from
    measured = policy.backward(nothing(whole), Objective(ALGORITHMS[name]))
    assert measured["loss"] == measured["surrogate"] == 0 and measured["entropy"] is None
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in policy.model.parameters())
