"""From rewards [P, G] to advantages [B, T], on numbers written out."""

from dataclasses import replace

import pytest
import torch
from conftest import make_batch

from grpo.algorithm.advantages import ADVANTAGES, centered
from grpo.algorithm.credit import credit, creditable, spread
from grpo.algorithm.table import ALGORITHMS

ROW = ALGORITHMS["dr_grpo"]
MASK = torch.tensor([[0, 1, 1], [0, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
TOTAL = torch.tensor([[1.0, 0.0], [1.0, 1.0]])


def test_every_token_carries_the_advantage_of_its_response():
    found = credit(make_batch(MASK), TOTAL, centered, ROW)
    assert found.of_responses.tolist() == [[0.5, -0.5], [0.0, 0.0]]
    assert found.of_tokens.tolist() == [[0, 0.5, 0.5], [0, -0.5, 0], [0, 0, 0], [0, 0, 0]]
    assert found.rewards is TOTAL


@pytest.mark.parametrize("name", ADVANTAGES)
def test_tokens_outside_the_mask_get_nothing_whatever_the_advantage(name):
    found = credit(make_batch(MASK), TOTAL, ADVANTAGES[name], ROW)
    assert not found.of_tokens[~MASK].any()
    expected = ADVANTAGES[name](TOTAL).flatten()[:, None].expand_as(MASK)
    assert torch.equal(found.of_tokens[MASK], expected[MASK].float())


def test_the_kl_in_the_reward_is_taken_off_before_the_comparison():
    """Weight 0.1; the first response's two tokens are 1 and 2 nats likelier than under the reference: 0.3 off."""
    old = torch.tensor([[9.0, -1.0, -1.0], [9.0, -1.0, 9.0], [-1.0, -1.0, 9.0], [9.0, 9.0, -1.0]])
    ref = old - torch.tensor([[5.0, 1.0, 2.0], [5.0, 0.0, 5.0], [0.0, -1.0, 5.0], [5.0, 5.0, 0.0]])
    batch = make_batch(MASK, old_logprobs=old, ref_logprobs=ref)
    found = credit(batch, TOTAL, centered, replace(ROW, kl_in="reward", kl_coef=0.1))
    torch.testing.assert_close(found.rewards, torch.tensor([[0.7, 0.0], [1.1, 1.0]]))
    torch.testing.assert_close(found.of_responses, torch.tensor([[0.35, -0.35], [0.05, -0.05]]))


def test_truncated_responses():
    cut = torch.tensor([[True, False], [False, True]])
    assert creditable(TOTAL, cut, ROW).tolist() == [[0, 0], [1, 0]]
    assert creditable(TOTAL, cut, replace(ROW, truncated="keep")) is TOTAL
    with pytest.raises(ValueError, match=r"truncated must be \[P, G\] = \[2, 2\]"):
        creditable(TOTAL, cut[:1], ROW)


def test_a_batch_of_other_rows_is_refused():
    with pytest.raises(ValueError, match=r"mask must be \[P \* G, T\] = \[4, 3\]"):
        credit(make_batch(MASK[:3]), TOTAL, centered, ROW)


def test_spread():
    assert spread(torch.tensor([[2.0], [3.0]]), MASK[:2]).tolist() == [[0, 2, 2], [0, 3, 0]]
