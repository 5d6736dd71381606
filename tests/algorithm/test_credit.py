"""From rewards [P, G] to advantages [B, T], on numbers written out."""

import math
from dataclasses import replace

import pytest
import torch
from conftest import make_batch

from grpo.algorithm.advantages import ADVANTAGES, AdvantageInputs
from grpo.algorithm.credit import credit, creditable, spread
from grpo.algorithm.ingredients import load_advantage
from grpo.algorithm.table import ALGORITHMS
from grpo.records import Group, Problem, Rollout

ROW = ALGORITHMS["dr_grpo"]
MASK = torch.tensor([[0, 1, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
TOTAL = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
LENGTHS = torch.tensor([[2.0, 1.0], [2.0, 1.0]])
GROUPS = [
    Group(Problem("", (), {}), tuple(Rollout((5,) * int(n), (0.0,) * int(n), "", False) for n in row))
    for row in LENGTHS
]
CENTERED = load_advantage("centered")


def test_every_token_carries_the_advantage_of_its_response():
    found = credit(make_batch(MASK), GROUPS, TOTAL, CENTERED, ROW)
    assert found.of_responses.tolist() == [[0.5, -0.5], [0.0, 0.0]]
    assert found.of_tokens.tolist() == [[0, 0.5, 0.5], [0, -0.5, 0], [0, 0, 0], [0, 0, 0]]
    assert found.rewards is TOTAL


@pytest.mark.parametrize("name", ADVANTAGES)
def test_tokens_outside_the_mask_get_nothing_whatever_the_advantage(name):
    same = torch.zeros(MASK.shape)
    batch = make_batch(MASK, old_logprobs=same, ref_logprobs=same)
    found = credit(batch, GROUPS, TOTAL, load_advantage(name), ROW)
    assert not found.of_tokens[~MASK].any()
    ratio = torch.zeros_like(TOTAL)
    inputs = AdvantageInputs(TOTAL, LENGTHS, MASK.view(2, 2, 3), LENGTHS > 5, log_ratio=ratio)
    expected = load_advantage(name)(inputs).flatten()[:, None].expand_as(MASK)
    assert torch.equal(found.of_tokens[MASK], expected[MASK].float())


def test_the_kl_in_the_reward_is_taken_off_before_the_comparison():
    """Weight 0.1; the first response's two tokens are 1 and 2 nats likelier than under the reference: 0.3 off."""
    old = torch.tensor([[9.0, -1.0, -1.0], [9.0, -1.0, 9.0], [-1.0, -1.0, 9.0], [9.0, 9.0, -1.0]])
    ref = old - torch.tensor([[5.0, 1.0, 2.0], [5.0, 0.0, 5.0], [0.0, -1.0, 5.0], [5.0, 5.0, 0.0]])
    batch = make_batch(MASK, old_logprobs=old, ref_logprobs=ref)
    found = credit(batch, GROUPS, TOTAL, CENTERED, replace(ROW, kl_in="reward", kl_coef=0.1))
    torch.testing.assert_close(found.rewards, torch.tensor([[0.7, 0.0], [1.1, 1.0]]))
    torch.testing.assert_close(found.of_responses, torch.tensor([[0.35, -0.35], [0.05, -0.05]]))


def test_pairs_are_credited_by_how_far_the_policy_is_from_the_reference():
    """The best is 2 nats likelier than under the reference, the worst 2 less: h = 4, beta 1/2; the other is a tie."""
    old = torch.tensor([[9.0, -1.0, -1.0], [9.0, -1.0, 9.0], [-1.0, -1.0, 9.0], [9.0, 9.0, -1.0]])
    ref = old - torch.tensor([[5.0, 0.5, 1.5], [5.0, -2.0, 5.0], [0.0, 9.0, 5.0], [5.0, 5.0, 0.0]])
    batch = make_batch(MASK, old_logprobs=old, ref_logprobs=ref)
    found = credit(batch, GROUPS, TOTAL, load_advantage("best_worst"), replace(ROW, dpo_beta=0.5))
    pull = 0.5 / (1 + math.exp(2.0))
    torch.testing.assert_close(found.of_responses, torch.tensor([[pull, -pull], [0.0, 0.0]]))


def test_truncated_responses():
    cut = torch.tensor([[True, False], [False, True]])
    assert creditable(TOTAL, cut, ROW).tolist() == [[0, 0], [1, 0]]
    # A negative score stays: being cut off never beats it.
    assert creditable(torch.tensor([[-1.0, 1.0], [2.0, -0.5]]), cut, ROW).tolist() == [[-1, 1], [2, -0.5]]
    assert creditable(TOTAL, cut, replace(ROW, truncated="keep")) is TOTAL
    with pytest.raises(ValueError, match=r"truncated must be \[P, G\] = \[2, 2\]"):
        creditable(TOTAL, cut[:1], ROW)


def test_a_batch_of_other_rows_is_refused():
    with pytest.raises(ValueError, match=r"mask must be \[P \* G, T\] = \[4, 3\]"):
        credit(make_batch(MASK[:3]), GROUPS, TOTAL, CENTERED, ROW)


def test_spread():
    assert spread(torch.tensor([[2.0], [3.0]]), MASK[:2]).tolist() == [[0, 2, 2], [0, 3, 0]]


def test_an_advantage_function_sees_lengths_mask_and_verifiers():
    seen = []

    def look(inputs):
        seen.append(inputs)
        return inputs.rewards

    by_verifier = {"a": TOTAL}
    credit(make_batch(MASK), GROUPS, TOTAL, look, ROW, by_verifier)
    (inputs,) = seen
    assert torch.equal(inputs.lengths, LENGTHS) and torch.equal(inputs.mask, MASK.view(2, 2, 3))
    assert inputs.by_verifier is by_verifier and not inputs.truncated.any()
