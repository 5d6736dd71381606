"""A LoRA policy and real vLLM: the merged weights arrive, and a sync that forgets or mistakes the adapter is caught."""

import pytest
import torch
from test_sync import SMALLEST, TEMPERATURE, Tampered, caught, left_out, make_probe
from transformers import Qwen2ForCausalLM

from grpo.engines.sync import SyncError
from grpo.model.lora import LoraSettings, adapted_layers, adapter_parameters, add_adapter, switched_off
from grpo.model.lora_policy import LoraPolicy

PLACES = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
PLACES += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]


@pytest.fixture
def policy(tied_folder):
    model = Qwen2ForCausalLM.from_pretrained(tied_folder, dtype=torch.float32)
    add_adapter(model, LoraSettings(8, 16.0), base=str(tied_folder), dtype=torch.float32, seed=0)
    return LoraPolicy(model, temperature=TEMPERATURE, micro_batch_tokens=4096)


@pytest.fixture
def probe():
    return make_probe()


@pytest.fixture
def engine(vllm_engine, policy, probe):
    """In sync with a new adapter, which changes nothing."""
    vllm_engine.sync(policy)
    probe.check(vllm_engine, policy, step=0)
    return vllm_engine


def move(policy, seed=0, scale=0.02):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter_parameters(policy.model).values():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


def test_clean_syncs_pass_and_the_base_stays_as_it_is(engine, policy, probe):
    base = {name: t.clone() for name, t in policy.model.state_dict().items() if ".lora_" not in name}
    for step in range(1, 6):
        move(policy, seed=step)
        engine.sync(policy)
        assert probe.check(engine, policy, step) < 1e-5
    with switched_off(policy.model):
        assert probe.gap(engine, policy) > 100 * probe.tolerance  # it is the adapter that has arrived
    assert all(torch.equal(tensor, policy.model.state_dict()[name]) for name, tensor in base.items())


def test_a_sync_that_forgets_the_adapter_is_caught(engine, policy, probe):
    def base_alone(weights):
        layers = adapted_layers(policy.model)
        return weights | {f"{path}.weight": layer.get_base_layer().weight for path, layer in layers.items()}

    move(policy)
    engine.sync(Tampered(policy, base_alone))
    caught(engine, policy, probe)
    engine.sync(policy)
    assert probe.check(engine, policy, 8) < 1e-5


@pytest.mark.parametrize("place", PLACES)
def test_one_layer_whose_adapter_is_forgotten_is_caught(engine, policy, probe, place):
    path = f"model.layers.1.{place}"
    base = adapted_layers(policy.model)[path].get_base_layer().weight
    move(policy)
    engine.sync(Tampered(policy, lambda weights: weights | {f"{path}.weight": base}))
    caught(engine, policy, probe)
    engine.sync(Tampered(policy, left_out(f"{path}.weight")))  # and one that keeps what the last sync has brought
    caught(engine, policy, probe)


def test_a_wrong_scale_is_caught(engine, policy, probe):
    move(policy)
    for layer in adapted_layers(policy.model).values():
        layer.scaling["default"] = 1.0
    weights = {name: tensor.clone() for name, tensor in policy.weights()}
    for layer in adapted_layers(policy.model).values():
        layer.scaling["default"] = 2.0
    engine.sync(Tampered(policy, lambda _: weights))
    caught(engine, policy, probe)


def test_the_smallest_updates_arrive_and_a_lost_one_is_caught(engine, policy, probe):
    move(policy)
    engine.sync(policy)
    probe.check(engine, policy, 1)
    for step in range(2, 6):
        move(policy, seed=step, scale=10 * SMALLEST)
        engine.sync(policy)
        assert probe.check(engine, policy, step) < 1e-5
    move(policy, seed=9, scale=10 * SMALLEST)
    assert probe.gap(engine, policy) < probe.tolerance / 2
    with pytest.raises(SyncError, match=r"step 6: .* not one bit of the engine's has changed"):
        probe.check(engine, policy, 6)


def test_a_bfloat16_base_with_a_float32_adapter_is_near_what_the_engine_computes(engine, policy, probe, tied_folder):
    """As on a card, but for the engine, which is float32 here: it gets the sums rounded to bfloat16."""
    model = Qwen2ForCausalLM.from_pretrained(tied_folder, dtype=torch.bfloat16)
    add_adapter(model, LoraSettings(8, 16.0), base=str(tied_folder), dtype=torch.float32, seed=0)
    mixed = LoraPolicy(model, temperature=TEMPERATURE, micro_batch_tokens=4096)
    move(mixed)
    assert {tensor.dtype for _, tensor in mixed.weights()} == {torch.bfloat16}
    engine.sync(mixed)
    with torch.autocast("cpu", torch.bfloat16):
        arrived = probe.scores(engine, mixed).gap
        with switched_off(mixed.model):
            forgotten = probe.scores(engine, mixed).gap
    assert arrived < 0.1 and forgotten > 3 * arrived
