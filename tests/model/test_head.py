"""The head in float32 over layers in bfloat16, on the CPU, whose autocast does what that of CUDA does."""

import pytest
import torch
from conftest import make_policy

from grpo.model.head import head_in, head_logits
from grpo.model.logprobs import token_logprobs

IDS = torch.arange(3, 43)[None]


@pytest.fixture
def model(tied_folder):
    return make_policy(tied_folder).model


def test_logits_are_float32_within_autocast_and_the_same_without(model):
    head = model.get_output_embeddings()
    hidden = model.base_model(input_ids=IDS).last_hidden_state
    plain = head(hidden)
    with torch.autocast("cpu", torch.bfloat16):
        assert head(hidden).dtype == torch.bfloat16  # what it would be
        found = head_logits(head, hidden)
    assert found.dtype == torch.float32 and torch.equal(found, plain)


def test_log_probabilities_take_the_heads_products_in_float32(model):
    """Of layers in bfloat16, they are those of a float32 head on the very hidden states; a bfloat16 head is off."""
    inputs, targets, mask = IDS[:, :-1], IDS[:, 1:], torch.ones(1, 39, dtype=torch.bool)
    head = model.get_output_embeddings()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found, _ = token_logprobs(model, inputs, targets, mask, 1.0)
        hidden = model.base_model(input_ids=inputs, use_cache=False).last_hidden_state
        coarse = head(hidden).float().log_softmax(-1).gather(-1, targets[..., None]).squeeze(-1)
    exact = torch.nn.functional.linear(hidden.float(), head.weight).log_softmax(-1)
    exact = exact.gather(-1, targets[..., None]).squeeze(-1)
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-5)
    assert (coarse - exact).abs().max() > 1e-2


def test_the_models_own_forward_has_it_too_and_only_within(model):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        with head_in(model, torch.float32):
            assert model(IDS).logits.dtype == torch.float32
        assert model(IDS).logits.dtype == torch.bfloat16
        with pytest.raises(RuntimeError), head_in(model, torch.float32):
            raise RuntimeError
        assert model(IDS).logits.dtype == torch.bfloat16
