"""The head's float32 logits over layers in bfloat16, on the CPU, whose autocast does what that of CUDA does."""

import pytest
import torch
from conftest import make_policy
from torch import nn

from grpo.model.head import HeadProduct, head_function, head_in, product
from grpo.model.logprobs import token_logprobs

IDS = torch.arange(3, 43)[None]


@pytest.fixture
def model(tied_folder):
    return make_policy(tied_folder).model


def autocast():
    return torch.autocast("cpu", torch.bfloat16)


def test_over_float32_layers_it_is_the_head_itself_to_the_last_bit(model):
    head = model.get_output_embeddings()
    hidden = model.base_model(input_ids=IDS).last_hidden_state
    assert torch.equal(head_function(head)(hidden), head(hidden))


def test_logits_are_float32_sums_of_bfloat16_numbers(model):
    head, bias = model.get_output_embeddings(), torch.linspace(-1, 1, 320)
    hidden = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0))
    exact = hidden.bfloat16().double() @ head.weight.bfloat16().double().T
    with autocast():
        assert head(hidden).dtype == torch.bfloat16  # what it would be
        found = head_function(head)(hidden)
        coarse = head_function(head, torch.bfloat16)(hidden)
        head.bias = nn.Parameter(bias)
        shifted = head_function(head)(hidden)
    assert found.dtype == coarse.dtype == torch.float32 and found.shape == (2, 5, 320)
    torch.testing.assert_close(found.double(), exact, rtol=1e-6, atol=1e-6)
    assert torch.equal(coarse, coarse.bfloat16().float()) and not torch.equal(found, found.bfloat16().float())
    torch.testing.assert_close(shifted, found + bias)


@pytest.mark.parametrize("weight_dtype", [torch.float32, torch.bfloat16])
def test_its_gradient_is_that_of_the_product_by_hand(weight_dtype):
    """d/dh = g W, d/dW = g^T h, of bfloat16 numbers, in the precision of what they belong to."""
    torch.manual_seed(0)
    hidden = torch.randn(7, 16, requires_grad=True)
    weight = torch.randn(11, 16, dtype=weight_dtype, requires_grad=True)
    grad = torch.randn(7, 11)
    HeadProduct.apply(hidden, weight, weight.detach().bfloat16(), torch.float32).backward(grad)
    assert hidden.grad.dtype == torch.float32 and weight.grad.dtype == weight_dtype
    g, w, h = (t.detach().bfloat16().double() for t in (grad, weight, hidden))
    torch.testing.assert_close(hidden.grad.double(), g @ w, rtol=1e-5, atol=1e-5)
    tolerance = 1e-5 if weight_dtype is torch.float32 else 2**-7
    torch.testing.assert_close(weight.grad.double(), g.T @ h, rtol=tolerance, atol=tolerance)


def test_a_frozen_head_gets_no_gradient_and_its_input_still_does():
    hidden, weight = torch.randn(3, 4, requires_grad=True), torch.randn(5, 4).bfloat16()
    HeadProduct.apply(hidden, weight, weight, torch.float32).sum().backward()
    assert weight.grad is None and hidden.grad.abs().sum() > 0


def test_a_product_of_bfloat16_numbers_is_exact_in_float32():
    one, two = torch.tensor([[1.0078125]]).bfloat16(), torch.tensor([[1.0078125]]).bfloat16()
    assert product(one, two, torch.float32).item() == 1.0078125**2
    assert product(one, two, torch.bfloat16).item() == 1.015625


def test_log_probabilities_take_it_and_a_bfloat16_head_is_off(model):
    inputs, targets, mask = IDS[:, :-1], IDS[:, 1:], torch.ones(1, 39, dtype=torch.bool)
    head = model.get_output_embeddings()
    with torch.no_grad(), autocast():
        found, _ = token_logprobs(model, inputs, targets, mask, 1.0)
        coarse, _ = token_logprobs(model, inputs, targets, mask, 1.0, head_dtype=torch.bfloat16)
        hidden = model.base_model(input_ids=inputs, use_cache=False).last_hidden_state
    exact = (hidden.bfloat16().double() @ head.weight.bfloat16().double().T).log_softmax(-1)
    exact = exact.gather(-1, targets[..., None]).squeeze(-1).float()
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-5)
    assert (coarse - exact).abs().max() > 1e-3


def test_chunks_under_autocast_give_the_gradient_of_the_whole(model, monkeypatch):
    inputs, targets, mask = IDS[:, :-1], IDS[:, 1:], torch.ones(1, 39, dtype=torch.bool)

    def gradients():
        model.zero_grad()
        with autocast():
            token_logprobs(model, inputs, targets, mask, 1.0)[0].sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    whole = gradients()
    monkeypatch.setattr("grpo.model.logprobs.MAX_CHUNK_ELEMENTS", 5 * 320)
    for one, two in zip(whole, gradients(), strict=True):
        torch.testing.assert_close(one, two, rtol=2e-2, atol=2e-2 * one.abs().max().item())


def test_the_models_own_forward_has_it_too_and_only_within(model):
    with torch.no_grad(), autocast():
        with head_in(model, torch.float32):
            assert model(IDS).logits.dtype == torch.float32
        assert model(IDS).logits.dtype == torch.bfloat16
        with pytest.raises(RuntimeError), head_in(model, torch.float32):
            raise RuntimeError
        assert model(IDS).logits.dtype == torch.bfloat16
