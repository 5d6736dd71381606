"""The adapter: frozen weights beside it, merged as the formula says, switched off without a trace, and peft's files."""

import json

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel, Qwen2ForCausalLM

from grpo.errors import UserError
from grpo.model.lora import (
    WEIGHTS,
    LoraSettings,
    adapted_layers,
    adapter_parameters,
    adapter_size,
    add_adapter,
    check_targets,
    load_adapter,
    merged,
    merged_weights,
    save_adapter,
    switched_off,
    target_layers,
)

IDS = torch.arange(3, 43).view(2, 20)
SETTINGS = LoraSettings(4, 8.0)


def adapted(folder, *, dtype=torch.float32, of_adapter=torch.float32, settings=SETTINGS, seed=0, noise=0.3):
    """The model of a folder with an adapter that changes something."""
    model = Qwen2ForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    add_adapter(model, settings, base=str(folder), dtype=of_adapter, seed=seed)
    move(model, noise)
    return model


def move(model, noise, seed=5):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter_parameters(model).values():
            parameter.add_(noise * torch.randn(parameter.shape, generator=generator))


def without_one(model):
    """A model of the merged weights that has never had an adapter."""
    config = model.config
    plain = type(model)(config).to(next(model.parameters()).dtype).eval()
    plain.load_state_dict(dict(merged_weights(model)), strict=True)
    return plain


def test_a_new_adapter_changes_nothing_and_is_all_that_is_trained(tied_folder):
    plain = Qwen2ForCausalLM.from_pretrained(tied_folder, dtype=torch.float32).eval()
    model = adapted(tied_folder, noise=0.0)
    assert type(model) is Qwen2ForCausalLM and model.base_model is model.model
    assert torch.equal(model(IDS).logits, plain(IDS).logits)
    own = adapter_parameters(model)
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in own.values()}
    assert len(own) == 2 * 7 * 2 and len(adapted_layers(model)) == 7 * 2
    assert adapter_size(plain, SETTINGS) == sum(parameter.numel() for parameter in own.values())
    for name, parameter in own.items():
        assert (parameter == 0).all() == name.endswith("lora_B.weight")


def test_merged_is_the_sum_by_hand(tied_folder):
    model = adapted(tied_folder)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    layer = adapted_layers(model)["model.layers.1.mlp.up_proj"]
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    expected = layer.base_layer.weight.double() + 2.0 * torch.einsum("or,ri->oi", b.double(), a.double())  # 8 / 4
    torch.testing.assert_close(merged(layer).double(), expected, rtol=1e-6, atol=1e-6)
    assert (expected - layer.base_layer.weight).abs().mean() > 0.1
    plain = without_one(model)
    torch.testing.assert_close(plain(IDS).logits, model(IDS).logits, rtol=1e-4, atol=1e-4)
    assert list(plain.state_dict()) == [name for name, _ in merged_weights(model)]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_the_sum_is_made_in_float32_and_handed_over_in_the_precision_of_the_base(tied_folder):
    """A change below half of bfloat16's spacing beside a weight is lost once, at the end, and not in B A before it."""
    model = adapted(tied_folder, dtype=torch.bfloat16)
    for layer in adapted_layers(model).values():
        weight, found = layer.base_layer.weight, merged(layer)
        assert weight.dtype is found.dtype is torch.bfloat16
        assert layer.lora_A["default"].weight.dtype is torch.float32
        exact = weight.float() + 2.0 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        spacing = 2.0 ** (exact.abs().clamp(min=1e-30).log2().floor() - 7)
        assert ((found.float() - exact).abs() <= 0.501 * spacing).all()


def test_one_merged_matrix_is_there_at_a_time(tied_folder):
    model, seen = adapted(tied_folder), []
    own = {tensor.data_ptr() for tensor in model.state_dict().values()}
    for name, tensor in merged_weights(model):
        is_merged = tensor.data_ptr() not in own
        assert is_merged == (any(f".{part}_proj" in name for part in "qkvo") or ".mlp." in name) & name.endswith(
            "weight"
        )
        seen.append(tensor.data_ptr() if is_merged else None)
        del tensor
    pointers = [pointer for pointer in seen if pointer]
    assert len(set(pointers)) < len(pointers) / 2  # the memory of one is given to the next


def test_switched_off_it_is_the_base_to_the_last_bit_and_on_again_after_an_error(tied_folder):
    plain = Qwen2ForCausalLM.from_pretrained(tied_folder, dtype=torch.float32).eval()
    model = adapted(tied_folder)
    before = model(IDS).logits
    with pytest.raises(ZeroDivisionError), switched_off(model):
        assert torch.equal(model(IDS).logits, plain(IDS).logits)
        raise ZeroDivisionError
    assert torch.equal(model(IDS).logits, before) and not torch.equal(before, plain(IDS).logits)
    assert all(parameter.requires_grad for parameter in adapter_parameters(model).values())


def test_as_peft_itself_computes_and_merges(tied_folder, tmp_path):
    model = adapted(tied_folder)
    save_adapter(model, tmp_path)
    plain = Qwen2ForCausalLM.from_pretrained(tied_folder, dtype=torch.float32).eval()
    peft_model = PeftModel.from_pretrained(plain, str(tmp_path)).eval()
    assert torch.equal(peft_model(IDS).logits, model(IDS).logits)
    of_peft = dict(peft_model.merge_and_unload().state_dict())
    ours = dict(merged_weights(model))
    assert ours.keys() == of_peft.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, of_peft[name], rtol=1e-5, atol=1e-6)


def test_the_file_names_its_base_and_has_the_adapter_alone(tied_folder, tmp_path):
    model = adapted(tied_folder)
    save_adapter(model, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tied_folder.resolve()) and config["inference_mode"]
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (4, 8.0, 0.0)
    assert load_file(tmp_path / WEIGHTS).keys() == adapter_parameters(model).keys()
    found = AutoPeftModelForCausalLM.from_pretrained(str(tmp_path), dtype=torch.float32).eval()
    assert torch.equal(found(IDS).logits, model(IDS).logits)
    assert not model.peft_config["default"].inference_mode  # the model goes on training


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_saved_is_loaded_bit_for_bit(tied_folder, tmp_path, dtype):
    one, two = (adapted(tied_folder, dtype=dtype, of_adapter=dtype, seed=seed, noise=seed) for seed in (1, 0))
    save_adapter(one, tmp_path)
    load_adapter(two, tmp_path)
    assert all(torch.equal(one.state_dict()[name], tensor) for name, tensor in two.state_dict().items())
    other = adapted(tied_folder, settings=LoraSettings(3, 8.0))
    with pytest.raises(UserError, match="other layers, or another rank"):
        load_adapter(other, tmp_path)


def test_the_first_numbers_are_the_seeds(tied_folder):
    state = torch.random.get_rng_state()
    one, two, three = (adapted(tied_folder, seed=seed, noise=0.0) for seed in (1, 1, 2))
    assert torch.equal(state, torch.random.get_rng_state())
    same = [torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True)]
    other = [torch.equal(a, b) for a, b in zip(one.parameters(), three.parameters(), strict=True)]
    assert all(same) and other.count(False) == 14  # every A


def test_targets_are_names_or_ends_of_paths(tied_folder):
    model = Qwen2ForCausalLM.from_pretrained(tied_folder)
    layers = [f"model.layers.{i}.self_attn.{name}" for i in (0, 1) for name in ("q_proj", "v_proj")]
    assert target_layers(model, ("v_proj", "q_proj")) == layers
    assert target_layers(model, ("layers.1.self_attn.q_proj",)) == layers[2:3]
    assert len(target_layers(model, None)) == 14 and "lm_head" not in target_layers(model, None)


@pytest.mark.parametrize("wrong", ["lm_head", "embed_tokens", "self_attn", "input_layernorm", "proj", "query"])
def test_a_target_that_is_no_linear_layer_is_refused_with_those_that_are(tied_folder, wrong):
    model = Qwen2ForCausalLM.from_pretrained(tied_folder)
    with pytest.raises(UserError, match=f"--lora-targets {wrong}: .*has these: q_proj, k_proj, v_proj, o_proj, gate"):
        check_targets(model.config, LoraSettings(4, 8.0, ("q_proj", wrong)), trust_remote_code=False)
    check_targets(model.config, LoraSettings(4, 8.0, ("q_proj",)), trust_remote_code=False)
    with pytest.raises(UserError, match="names no layer"):
        target_layers(model, ())


def test_gpt2_whose_matrices_lie_the_other_way_round():
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=2, n_positions=64)).eval()
    add_adapter(model, SETTINGS, base="gpt2", dtype=torch.float32, seed=0)
    move(model, 0.3)
    plain = without_one(model)
    torch.testing.assert_close(plain(IDS).logits, model(IDS).logits, rtol=1e-4, atol=1e-4)
    with switched_off(model):
        assert (model(IDS).logits - plain(IDS).logits).abs().max() > 0.01


def test_under_autocast_the_layers_of_a_norm_share_one_input(tied_folder):
    """As on a card: bfloat16 weights, float32 adapter. peft's cast to float32 would have autocast copy each input."""
    model, seen = adapted(tied_folder, dtype=torch.bfloat16), []
    layers = [adapted_layers(model)[f"model.layers.0.self_attn.{name}_proj"] for name in "qkv"]
    for layer in layers:
        layer.lora_A["default"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.autocast("cpu", torch.bfloat16):
        model(IDS)
    assert [tensor.dtype for tensor in seen] == [torch.bfloat16] * 3
    assert len({tensor.data_ptr() for tensor in seen}) == 1
