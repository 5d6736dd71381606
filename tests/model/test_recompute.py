"""Recomputed layers keep far fewer bytes, and change neither the gradient nor what is generated."""

import copy

import pytest
import torch
from conftest import END, OTHER_END, make_batch, make_policy
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM, Qwen2Config, Qwen2ForCausalLM

from grpo.algorithm.objective import Objective
from grpo.algorithm.table import ALGORITHMS
from grpo.engines.hf_engine import HFEngine
from grpo.errors import UserError
from grpo.model.logprobs import token_logprobs
from grpo.model.recompute import recompute_layers, recomputing

LAYERS, B, T, H = 4, 3, 64, 32


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=50, hidden_size=H, intermediate_size=4 * H, num_hidden_layers=LAYERS, num_attention_heads=2,
        num_key_value_heads=1, attention_dropout=0.5, initializer_range=0.2,
    )  # fmt: skip
    return Qwen2ForCausalLM(config).eval()


def gradient(model):
    """Gradients of a pass over fixed ids, and the bytes that it keeps for the backward pass, parameters left out."""
    ids = torch.arange(B * (T + 1)).view(B, T + 1) % 50
    mask = torch.ones(B, T, dtype=torch.bool)
    own, kept = {parameter.data_ptr() for parameter in model.parameters()}, {}

    def note(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    model.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), recomputing(model):
        logprobs, _ = token_logprobs(model, ids[:, :-1], ids[:, 1:], mask, 1.0)
    logprobs.square().sum().backward()
    return [parameter.grad.clone() for parameter in model.parameters()], sum(kept.values())


def test_the_gradient_is_the_same_and_a_layer_keeps_its_input_alone(model):
    plain, all_bytes = gradient(model)
    recompute_layers(model)
    recomputed, bytes_kept = gradient(model)
    assert all(torch.equal(one, two) for one, two in zip(plain, recomputed, strict=True))
    inputs = LAYERS * B * T * H * 4  # the only thing that grows with the layers
    assert inputs < bytes_kept < inputs + 0.35 * (all_bytes - inputs) and bytes_kept < all_bytes / 2.5


def test_nothing_is_recomputed_unless_asked(model):
    _, before = gradient(model)
    assert gradient(model)[1] == before


def test_the_dropout_within_a_layer_stays_off(model):
    """The model above has attention dropout of 0.5: two passes would differ."""
    recompute_layers(model)
    one, two = gradient(model)[0], gradient(model)[0]
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not any(module.training for module in model.modules())


def test_an_error_leaves_the_model_in_eval_mode(model):
    recompute_layers(model)
    with pytest.raises(ZeroDivisionError), recomputing(model):
        raise ZeroDivisionError
    assert not any(module.training for module in model.modules())


def test_generation_is_untouched(tied_folder, tokenizer, problems):
    """A layer that is recomputed drops the cache of keys and values, without which generation goes wrong or slow."""
    policy = make_policy(tied_folder)
    engine = HFEngine(policy, tokenizer, end_ids=[END, OTHER_END])
    settings = dict(temperature=1.0, max_tokens=12, seed=3)
    before = engine.generate(problems, 2, **settings)
    recompute_layers(policy.model)
    assert engine.generate(problems, 2, **settings) == before


@pytest.mark.parametrize("asked", [True, False])
def test_an_update_recomputes_and_log_probabilities_do_not(tied_folder, asked):
    policy, calls = make_policy(tied_folder), []
    policy.model.model.layers[0].register_forward_pre_hook(lambda *_: calls.append(1))
    if asked:
        recompute_layers(policy.model)
    mask = torch.ones(2, 5, dtype=torch.bool)
    weights = {name: torch.ones(2, 5) for name in ("token_weights", "advantages")}
    batch = make_batch(mask, **weights)
    policy.logprobs(batch)
    assert len(calls) == 1
    policy.backward(batch, Objective(ALGORITHMS["dr_grpo"]))
    assert len(calls) == 2 + asked


def test_gpt2_too():
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=H, n_layer=LAYERS, n_head=2, n_positions=T)).eval()
    other = copy.deepcopy(model)
    recompute_layers(other)
    (plain, all_bytes), (recomputed, kept) = gradient(model), gradient(other)
    assert kept < all_bytes / 2 and all(torch.equal(a, b) for a, b in zip(plain, recomputed, strict=True))


def test_what_cannot_be_recomputed_is_refused():
    with pytest.raises(UserError, match="Linear has no layers that can be recomputed"):
        recompute_layers(nn.Linear(1, 1))
    config = OPTConfig(
        vocab_size=50, hidden_size=H, num_hidden_layers=1, ffn_dim=H, num_attention_heads=2, word_embed_proj_dim=H
    )
    with pytest.raises(UserError, match=r"OPTForCausalLM have dropout of their own \(dropout\)"):
        recompute_layers(OPTForCausalLM(config).eval())
