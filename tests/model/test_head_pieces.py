"""The head's backward pass in pieces: the gradient and the numbers of the plain one, with a matrix product less."""

import itertools
from dataclasses import replace

import pytest
import torch
from conftest import VOCABULARY, make_batch, make_model, make_policy
from updates import gradient, uneven_groups, whole_batch

from grpo.algorithm.choices import IMPORTANCE
from grpo.algorithm.objective import Objective
from grpo.algorithm.ratios import RATIOS
from grpo.algorithm.surrogates import SURROGATES
from grpo.algorithm.table import ALGORITHMS
from grpo.model import head, logprobs
from grpo.model.head_pieces import pieces

TOKENS = 7
"""Of a piece; responses of 1 to 12 tokens are cut anywhere."""
CELLS = list(itertools.product(RATIOS, SURROGATES, IMPORTANCE))


@pytest.fixture
def cut(monkeypatch):
    """Call it, and from there on logits are cut."""
    return lambda: monkeypatch.setattr(logprobs, "MAX_CHUNK_ELEMENTS", TOKENS * VOCABULARY)


def row_of(ratio, surrogate, importance, **cells):
    row = replace(ALGORITHMS["grpo"], ratio=ratio, surrogate=surrogate, importance=importance, entropy_coef=0.05)
    return replace(row, old_kl_coef=0.1, importance_cap=None, **cells)


def entropic_policy(folder):
    policy = make_policy(folder)
    policy.train_entropy = True
    return policy


def assert_same(one, other):
    for found, expected in zip(one[0], other[0], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6 * max(1.0, expected.abs().max().item()))
    for name, expected in other[1].items():
        assert one[1][name] == pytest.approx(expected, rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("ratio,surrogate,importance", CELLS)
def test_gradient_and_metrics_of_any_row_are_those_of_the_plain_pass(tied_folder, cut, ratio, surrogate, importance):
    """Also of rows whose loss cannot be cut: their logits are recomputed instead."""
    policy = entropic_policy(tied_folder)
    row = row_of(ratio, surrogate, importance)
    batch = whole_batch(policy, uneven_groups(), row)
    plain = gradient(policy, batch, row)
    cut()
    assert_same(gradient(policy, batch, row), plain)


def test_a_head_of_its_own_gets_its_gradient_too(tmp_path, cut):
    policy, row = make_policy(make_model(tmp_path, tied=False)), ALGORITHMS["grpo"]
    batch = whole_batch(policy, uneven_groups(), row)
    plain = gradient(policy, batch, row)
    cut()
    assert_same(gradient(policy, batch, row), plain)


@pytest.mark.parametrize("ratio,surrogate,importance", CELLS)
def test_what_is_said_to_be_of_tokens_is(ratio, surrogate, importance):
    """A loss is a sum over tokens, each on its own, exactly where the objective says so."""
    mask = torch.tensor([[False, True, True, True], [True, True, False, False]])
    generator = torch.Generator().manual_seed(0)
    logprobs, old, ref, sampler, weights = (0.6 * torch.randn(2, 4, generator=generator) - 1 for _ in range(5))
    batch = make_batch(
        mask, old_logprobs=old, ref_logprobs=ref, sampler_logprobs=sampler,
        advantages=torch.tensor([[0.7], [-0.9]]) * mask, token_weights=weights.abs() * mask,
    )  # fmt: skip
    objective = Objective(row_of(ratio, surrogate, importance, importance_low=0.7))
    whole = objective(batch, logprobs, -logprobs).loss
    numbers = logprobs[mask][:, None]
    alone = sum(
        objective(piece, number[None], -number[None]).loss
        for piece, number in zip(pieces(batch, 1), numbers, strict=True)
    )
    same = abs(whole - alone).item() < 1e-6
    assert same if objective.of_tokens else (not same or surrogate == "naive")


def test_a_users_own_term_gets_whole_responses():
    assert Objective(ALGORITHMS["grpo"]).of_tokens
    assert not Objective(ALGORITHMS["grpo"], loss_term=lambda logprobs, batch: logprobs).of_tokens


def test_the_head_makes_three_products_instead_of_four(tied_folder, cut, monkeypatch):
    policy, row = make_policy(tied_folder), ALGORITHMS["grpo"]
    batch = whole_batch(policy, uneven_groups(), row)
    count = -(-int(batch.mask.sum()) // TOKENS)
    cut()
    made, product = [], head.product
    monkeypatch.setattr(head, "product", lambda *given: made.append(given) or product(*given))
    gradient(policy, batch, row)
    assert len(made) == 3 * count
    made.clear()
    gradient(policy, batch, replace(row, ratio="sequence"))
    assert len(made) == 4 * count


def test_pieces_hold_every_response_token_once_and_in_order(tied_folder):
    policy = make_policy(tied_folder)
    batch = whole_batch(policy, uneven_groups(), ALGORITHMS["grpo"])
    found = list(pieces(batch, TOKENS))
    assert [len(piece) for piece in found[:-1]] == [TOKENS] * (len(found) - 1) and 0 < len(found[-1]) <= TOKENS
    for name in ("targets", "advantages", "token_weights", "old_logprobs", "ref_logprobs", "sampler_logprobs"):
        assert torch.equal(torch.cat([getattr(piece, name)[:, 0] for piece in found]), getattr(batch, name)[batch.mask])
    rows = torch.arange(len(batch))[:, None].expand_as(batch.mask)[batch.mask]
    assert torch.equal(torch.cat([piece.groups for piece in found]), batch.groups[rows])
