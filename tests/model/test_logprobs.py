"""Token log-probabilities against the plain formula on a real model."""

import pytest
import torch

from grpo.model import logprobs
from grpo.model.logprobs import token_logprobs


@pytest.fixture
def batch():
    torch.manual_seed(1)
    inputs, targets = torch.randint(3, 200, (3, 9)), torch.randint(3, 200, (3, 9))
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 0, 0], [0, 1, 1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 1, 1]]).bool()
    return inputs, targets, mask


def plain(model, inputs, targets, mask, temperature):
    """The definition, with the whole [B, T, V] in memory."""
    table = (model(inputs).logits.float() / temperature).log_softmax(-1)
    entropy = -(table.exp() * table).sum(-1)
    return table.gather(-1, targets[..., None]).squeeze(-1) * mask, entropy * mask


@pytest.mark.parametrize("temperature", [1.0, 0.7, 1.6])
def test_equals_the_definition(tied_policy, batch, temperature):
    with torch.no_grad():
        found = token_logprobs(tied_policy.model, *batch, temperature)
        expected = plain(tied_policy.model, *batch, temperature)
    torch.testing.assert_close(found[0], expected[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[1], expected[1], atol=1e-5, rtol=1e-5)
    assert not found[0][~batch[2]].any()


def test_without_its_entropy_it_is_the_same_to_the_last_bit(tied_policy, batch):
    with torch.no_grad():
        value, none = token_logprobs(tied_policy.model, *batch, 0.7, with_entropy=False)
        assert none is None and torch.equal(value, token_logprobs(tied_policy.model, *batch, 0.7)[0])


@pytest.mark.parametrize("train_entropy", [False, True])
def test_the_backward_pass_recomputes_the_entropy_only_where_it_is_trained(
    tied_policy, batch, monkeypatch, train_entropy
):
    """Three chunks of two to four of the 9 positions: exp is taken once for each in the forward pass."""
    monkeypatch.setattr(logprobs, "MAX_CHUNK_ELEMENTS", 320 * 4)
    taken, exp = [], torch.exp
    monkeypatch.setattr(logprobs.torch, "exp", lambda logits: taken.append(len(logits)) or exp(logits))
    value, entropy = token_logprobs(tied_policy.model, *batch, 0.8, train_entropy=train_entropy)
    assert taken == [4, 4, 1] and entropy.requires_grad == train_entropy
    (value.sum() + entropy.sum()).backward()
    assert sorted(taken) == ([1, 1, 4, 4, 4, 4] if train_entropy else [1, 4, 4])


def test_chunks_change_neither_value_nor_gradient(tied_policy, batch, monkeypatch):
    model, results = tied_policy.model, []
    for elements in (2**25, 320 * 2):  # one chunk; two rows a chunk
        monkeypatch.setattr(logprobs, "MAX_CHUNK_ELEMENTS", elements)
        model.zero_grad()
        value, _ = token_logprobs(model, *batch, 0.8)
        value.square().sum().backward()
        results.append((value.detach(), [p.grad.clone() for p in model.parameters()]))
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-5, rtol=1e-5)
    for one, two in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)


def test_right_padding_cannot_be_seen(tied_policy, batch):
    inputs, targets, mask = batch
    cut = [tensor[1:2, :3] for tensor in batch]
    with torch.no_grad():
        whole, _ = token_logprobs(tied_policy.model, inputs, targets, mask, 1.0)
        alone, _ = token_logprobs(tied_policy.model, *cut, 1.0)
    torch.testing.assert_close(whole[1:2, :3], alone, atol=1e-5, rtol=1e-5)


def test_an_empty_mask_gives_zeros_and_a_zero_gradient(tied_policy, batch):
    inputs, targets, mask = batch
    tied_policy.model.zero_grad()
    value, entropy = token_logprobs(tied_policy.model, inputs, targets, torch.zeros_like(mask), 1.0)
    value.sum().backward()
    assert not value.any() and not entropy.any()
    assert all(p.grad is None or not p.grad.any() for p in tied_policy.model.parameters())


def test_temperature_zero_is_refused(tied_policy, batch):
    with pytest.raises(ValueError, match="temperature"):
        token_logprobs(tied_policy.model, *batch, 0.0)
