"""A LoRA policy keeps the contract of the policy: its gradient is the formula's, whatever else is in the batch."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch
from conftest import END, OTHER_END, make_policy
from test_recompute import gradient as gradient_and_bytes
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm
from updates import ADVANTAGES, PAD, gradient, uneven_groups, whole_batch

from grpo.algorithm.objective import Objective
from grpo.algorithm.table import ALGORITHMS
from grpo.engines.hf_engine import HFEngine
from grpo.model.batching import collate
from grpo.model.lora import LoraSettings, adapted_layers, adapter_parameters, add_adapter, load_adapter
from grpo.model.lora_policy import LoraPolicy, WithoutAdapter
from grpo.model.optimizers import OptimizerSettings, state_bytes
from grpo.model.recompute import recompute_layers

SCALE = 2.0
ADAPTER = LoraSettings(rank=4, alpha=4 * SCALE)
NOISE = 0.1


@pytest.fixture
def groups():
    return uneven_groups()


def lora_policy(folder, *, noise=NOISE, dtype=torch.float32, kind=LoraPolicy, settings=ADAPTER, **optimizer):
    """A policy whose adapter is no longer at its beginning."""
    model = Qwen2ForCausalLM.from_pretrained(folder, dtype=dtype)
    add_adapter(model, settings, base=str(folder), dtype=dtype, seed=0)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in adapter_parameters(model).values():
            parameter.add_(noise * torch.randn(parameter.shape, generator=generator))
    return kind(model, temperature=1.0, micro_batch_tokens=4096, optimizer=OptimizerSettings(**optimizer))


def merged_policy(folder, policy):
    """A policy of all weights that computes the same."""
    full = make_policy(folder)
    full.model.load_state_dict(dict(policy.weights()))
    return full


def close(one, two):
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6 * max(1.0, two.abs().max().item()))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_gradient_is_the_chain_rule_of_that_of_the_merged_weights(tied_folder, groups, name):
    """W = W0 + s B A, so dB = s dW A^T and dA = s B^T dW, where dW is what test_policy.py proves for each row."""
    policy, row = lora_policy(tied_folder), ALGORITHMS[name]
    batch = whole_batch(policy, groups, row)
    found, metrics = gradient(policy, batch, row)
    names = [name for name, p in policy.model.named_parameters() if p.requires_grad]
    of_adapter = dict(zip(names, found, strict=True))

    full = merged_policy(tied_folder, policy)
    of_weights, full_metrics = gradient(full, batch, row)
    of_weights = dict(zip((name for name, _ in full.model.named_parameters()), of_weights, strict=True))
    for path, layer in adapted_layers(policy.model).items():
        a, b, dw = layer.lora_A["default"].weight, layer.lora_B["default"].weight, of_weights[f"{path}.weight"]
        close(of_adapter[f"{path}.lora_B.default.weight"], SCALE * dw @ a.T)
        close(of_adapter[f"{path}.lora_A.default.weight"], SCALE * b.T @ dw)
    assert metrics["loss"] == pytest.approx(full_metrics["loss"], rel=1e-4, abs=1e-6)
    norm = sum(grad.square().sum().item() for grad in found) ** 0.5
    assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-4)


class InFloat64(LoraPolicy):
    """Its log-probabilities and entropies without chunks, and without the float32 of the head."""

    def outputs(self, micro_batch):
        tables = self.model(micro_batch.inputs).logits.log_softmax(-1)
        entropy = -(tables.exp() * tables).sum(-1)
        logprobs = tables.gather(-1, micro_batch.targets[..., None]).squeeze(-1)
        return logprobs * micro_batch.mask, entropy * micro_batch.mask


def float64_norm(norm, hidden):
    """As Qwen2RMSNorm, which goes by way of float32."""
    return norm.weight * hidden * torch.rsqrt(hidden.square().mean(-1, keepdim=True) + norm.variance_epsilon)


# The surrogate of CISPO is no function whose derivative is its gradient: its ratio is a constant by definition.
@pytest.mark.parametrize("name", [name for name, row in ALGORITHMS.items() if row.surrogate != "cispo"])
def test_finite_differences_in_float64(tied_folder, groups, monkeypatch, name):
    """The derivative of the real objective along a random direction of the adapter, and along single numbers of it."""
    monkeypatch.setattr(Qwen2RMSNorm, "forward", float64_norm)
    row = replace(ALGORITHMS[name], entropy_coef=0.01)
    policy = lora_policy(tied_folder, dtype=torch.float64, kind=InFloat64)
    batch = whole_batch(lora_policy(tied_folder), groups, row)
    batch = replace(batch, **{n: t.double() for n, t in batch._tensors().items() if t.is_floating_point()})

    def loss():
        return Objective(row)(batch, *policy.outputs(batch)).loss

    parameters = list(adapter_parameters(policy.model).values())
    grads = torch.autograd.grad(loss(), parameters)
    generator = torch.Generator().manual_seed(1)
    directions = [[torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]]
    for of_a_or_b in (0, 1):
        directions.append([torch.zeros_like(p) for p in parameters])
        directions[-1][of_a_or_b].view(-1)[5] = 1.0
    for direction in directions:
        values = []
        for step in (1e-6, -2e-6, 1e-6):
            with torch.no_grad():
                for parameter, way in zip(parameters, direction, strict=True):
                    parameter.add_(way, alpha=step)
                values.append(loss().item())
        expected = sum((grad * way).sum().item() for grad, way in zip(grads, direction, strict=True))
        assert (values[0] - values[1]) / 2e-6 == pytest.approx(expected, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_gradient_does_not_depend_on_micro_batches_order_or_padding(tied_folder, groups, name):
    policy, row = lora_policy(tied_folder), ALGORITHMS[name]
    batch = whole_batch(policy, groups, row)
    whole, _ = gradient(policy, batch, row)
    cut, _ = gradient(policy, batch, row, micro_batch_tokens=20)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    shuffled, _ = gradient(policy, whole_batch(policy, groups, row, order=order), row, 40)
    padded, _ = gradient(policy, whole_batch(policy, groups, row, extra_padding=9), row)
    for one, *others in zip(whole, cut, shuffled, padded, strict=True):
        for other in others:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6 * max(1.0, one.abs().max().item()))


def test_an_update_moves_the_adapter_alone_and_clips_its_gradient(tied_folder, groups):
    policy, row = lora_policy(tied_folder, learning_rate=1e-2, max_grad_norm=1e-3), ALGORITHMS["dr_grpo"]
    before = copy.deepcopy(policy.model.state_dict())
    clipped = []
    policy.optimizer.register_step_pre_hook(
        lambda *_: clipped.append(torch.nn.utils.get_total_norm([p.grad for p in adapter.values()]).item())
    )
    adapter = adapter_parameters(policy.model)
    metrics = policy.update(whole_batch(policy, groups, row), Objective(row))
    assert clipped[0] == pytest.approx(1e-3, rel=1e-3) and metrics["grad_norm"] > 1e-3
    moved = {name for name, tensor in policy.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {name for name, p in policy.model.named_parameters() if p.requires_grad}
    held = [p for group in policy.optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in adapter.values()}
    assert state_bytes(policy.optimizer) == sum(8 * p.numel() + 4 for p in adapter.values())


def test_an_update_with_nan_in_it_is_skipped(tied_folder, groups):
    policy, row = lora_policy(tied_folder), ALGORITHMS["dr_grpo"]
    before = copy.deepcopy(policy.model.state_dict())
    batch = whole_batch(policy, groups, row, advantages=torch.full_like(ADVANTAGES, float("nan")))
    assert policy.update(batch, Objective(row))["skipped_in_a_row"] == 1
    assert all(torch.equal(before[name], tensor) for name, tensor in policy.model.state_dict().items())


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit"])
def test_an_adapter_in_bfloat16_is_updated_by_chance(tied_folder, groups, optimizer):
    if optimizer == "adamw_8bit":
        pytest.importorskip("torchao", reason="torchao is not installed: python -m pip install torchao==0.18.0")
    policy = lora_policy(tied_folder, dtype=torch.bfloat16, name=optimizer, learning_rate=1e-4)
    before, row = policy.kept(), ALGORITHMS["dr_grpo"]
    before = {name: tensor.clone() for name, tensor in before.items()}
    policy.update(whole_batch(policy, groups, row), Objective(row))
    after = policy.kept()
    moved = [(after[name] != before[name]).float().mean().item() for name in before]
    assert 0.01 < sum(moved) / len(moved) < 0.9
    assert all(tensor.dtype is torch.bfloat16 for _, tensor in policy.weights())


def test_the_reference_is_the_model_that_the_policy_began_with(tied_folder, groups):
    policy, row, batch = lora_policy(tied_folder, learning_rate=1e-2), ALGORITHMS["grpo"], collate(groups, PAD)
    reference, expected = WithoutAdapter(policy), make_policy(tied_folder).logprobs(batch)
    for _ in range(2):
        assert torch.equal(reference.logprobs(batch), expected)
        assert (policy.logprobs(batch) - expected).abs().max() > 0.01
        metrics = policy.update(whole_batch(policy, groups, row), Objective(row))  # the adapter is on again, and learns
        assert metrics["grad_norm"] > 0
    frozen = policy.frozen_copy()
    assert torch.equal(frozen.logprobs(batch), policy.logprobs(batch))


def test_what_an_engine_gets_has_the_names_of_a_model_without_an_adapter(tied_folder):
    policy, plain = lora_policy(tied_folder), make_policy(tied_folder)
    ours, theirs = dict(policy.weights()), dict(plain.weights())
    assert list(ours) == list(theirs) and "lm_head.weight" in ours
    assert all(ours[name].shape == tensor.shape and ours[name].dtype is tensor.dtype for name, tensor in theirs.items())
    changed = {name for name, tensor in theirs.items() if not torch.equal(tensor, ours[name])}
    assert changed == {f"{path}.weight" for path in adapted_layers(policy.model)}


def test_the_model_is_saved_merged_and_a_checkpoint_has_the_adapter(tied_folder, groups, tmp_path):
    policy, batch = lora_policy(tied_folder), collate(groups, PAD)
    for folder in ("whole", "kept"):
        (tmp_path / folder).mkdir()
    policy.save(tmp_path / "whole")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "whole", dtype=torch.float32)
    for name, tensor in policy.weights():
        assert torch.equal(loaded.state_dict()[name], tensor)
    policy.save_kept(tmp_path / "kept")
    assert {path.name for path in (tmp_path / "kept").iterdir()} >= {"adapter_model.safetensors", "adapter_config.json"}
    assert not list((tmp_path / "kept").glob("model*"))
    again = lora_policy(tied_folder, noise=0.0)
    load_adapter(again.model, tmp_path / "kept")
    assert torch.equal(again.logprobs(batch), policy.logprobs(batch))
    assert sum(tensor.nbytes for tensor in policy.kept().values()) < 0.2 * sum(t.nbytes for _, t in policy.weights())


@pytest.mark.parametrize("targets", [None, ("v_proj",)])
def test_recomputed_layers_give_the_same_gradient_to_the_last_bit_and_keep_their_inputs_alone(targets):
    torch.manual_seed(0)
    layers, hidden, positions = 4, 32, 3 * 64
    config = Qwen2Config(
        vocab_size=50, hidden_size=hidden, intermediate_size=4 * hidden, num_hidden_layers=layers,
        num_attention_heads=2, num_key_value_heads=1, attention_dropout=0.5, initializer_range=0.2,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).eval()
    add_adapter(model, replace(ADAPTER, targets=targets), base="some/model", dtype=torch.float32, seed=0)
    with torch.no_grad():
        for parameter in adapter_parameters(model).values():
            parameter.add_(0.1 * torch.randn_like(parameter))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.parameters = lambda recurse=True: iter(trained)  # what the other test's function looks at
    plain, all_bytes = gradient_and_bytes(model)
    recompute_layers(model)
    recomputed, kept = gradient_and_bytes(model)
    assert all(torch.equal(one, two) and one.any() for one, two in zip(plain, recomputed, strict=True))
    frozen = sum(parameter.nbytes for parameter in torch.nn.Module.parameters(model)) - sum(p.nbytes for p in trained)
    inputs = layers * positions * hidden * 4
    assert inputs < kept < inputs + frozen + 0.35 * all_bytes and kept < all_bytes / 2


def test_transformers_generates_with_the_adapter(tied_folder, tokenizer, problems):
    policy = lora_policy(tied_folder)
    full, plain = merged_policy(tied_folder, policy), make_policy(tied_folder)
    settings = dict(temperature=0.0, max_tokens=12, seed=3)

    def tokens(one):
        groups = HFEngine(one, tokenizer, end_ids=[END, OTHER_END]).generate(problems, 1, **settings)
        return list(itertools.chain(*(rollout.tokens for group in groups for rollout in group.rollouts)))

    assert tokens(policy) == tokens(full) != tokens(plain)


def test_on_a_card_the_base_in_bfloat16_and_a_float32_adapter_are_near_the_float32_gradient(tied_folder, groups):
    """Under bfloat16 autocast, here of the CPU: the gradients of the adapter are float32, and point the same way."""
    row = ALGORITHMS["dr_grpo"]
    exact_policy = lora_policy(tied_folder)
    batch = whole_batch(exact_policy, groups, row)
    exact, _ = gradient(exact_policy, batch, row)
    model = Qwen2ForCausalLM.from_pretrained(tied_folder, dtype=torch.bfloat16)
    add_adapter(model, ADAPTER, base="some/model", dtype=torch.float32, seed=0)
    for name, parameter in adapter_parameters(model).items():
        parameter.data = exact_policy.kept()[name].detach().clone()
    policy = LoraPolicy(model, temperature=1.0, micro_batch_tokens=4096)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = gradient(policy, batch, row)
    assert all(grad.dtype is torch.float32 for grad in found)
    one, two = (torch.cat([grad.flatten() for grad in grads]) for grads in (exact, found))
    assert torch.nn.functional.cosine_similarity(one, two, dim=0) > 0.99
