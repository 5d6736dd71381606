"""What a LoRA adapter has and keeps, by the formulas and as peft and autograd have it on real classes."""

import pytest
import torch
from measured_bytes import forward, kept, peak
from real_shapes import CLASSES, QWEN, load_of, qwen_config, small

from grpo.memory.activations import adapted_layer_bytes, ends_bytes, kept_bytes
from grpo.memory.adapter import LAYER, Adapter, known
from grpo.memory.fit import fits, left
from grpo.memory.model_shape import shape_of
from grpo.memory.moments import logprobs_moment, update_moment
from grpo.memory.output_head import head_kept_bytes
from grpo.memory.stages import GIB
from grpo.memory.widths import Widths, copy_bytes, gradient_bytes, weight_bytes
from grpo.model.lora import LoraSettings, adapter_parameters, add_adapter
from grpo.model.recompute import recompute_layers

TOKENS, RANK = 128, 8
WIDTHS = {  # as on a CPU, as on a card, as on a card with --precision bfloat16
    "float32": Widths(compute=4, adapter=Adapter(RANK)),
    "autocast": Widths(weights=2, adapter=Adapter(RANK)),
    "bfloat16": Widths(weights=2, gradient=2, adapter=Adapter(RANK, weights=2)),
}
SIZES = dict(hidden_size=128, intermediate_size=640, num_attention_heads=4, num_key_value_heads=2, head_dim=32)


def adapted(family="qwen2", precision="float32", targets=None, **changes):
    """(config, random model with an adapter)"""
    config, model = small(family, "float32" if precision == "float32" else "bfloat16", **SIZES | changes)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    add_adapter(model, LoraSettings(RANK, 16.0, targets), base="some/model", dtype=dtype, seed=0)
    return config, model


@pytest.fixture
def four_chunks(monkeypatch):
    """Of logits, as with a real batch."""
    for module in ("grpo.model.logprobs", "grpo.memory.output_head"):
        monkeypatch.setattr(f"{module}.MAX_CHUNK_ELEMENTS", 1000 * (TOKENS // 4))


@pytest.mark.parametrize("targets", [None, ("q_proj", "down_proj"), ("self_attn.v_proj",)])
@pytest.mark.parametrize("family", CLASSES)
def test_the_numbers_are_those_of_peft(family, targets):
    config, model = adapted(family, targets=targets)
    adapter = Adapter(RANK, targets=known(targets))
    own = sum(parameter.numel() for parameter in adapter_parameters(model).values())
    assert adapter.parameters(shape_of(config)) == own
    widths = Widths(compute=4, adapter=adapter)
    assert weight_bytes(shape_of(config), widths) == 4 * sum(parameter.numel() for parameter in model.parameters())
    assert gradient_bytes(shape_of(config), widths) == 4 * own


@pytest.mark.parametrize("recompute", [False, True], ids=["whole", "recomputed"])
@pytest.mark.parametrize("precision", WIDTHS)
@pytest.mark.parametrize("family", CLASSES)
def test_what_a_forward_pass_keeps_to_one_per_cent(four_chunks, family, precision, recompute):
    config, model = adapted(family, precision)
    if recompute:
        recompute_layers(model)
    shape, widths = shape_of(config), WIDTHS[precision]
    formula = kept_bytes(shape, widths, TOKENS, recompute=recompute) + ends_bytes(shape, widths, TOKENS)
    formula += head_kept_bytes(shape, widths, TOKENS)
    formula += 0 if recompute else copy_bytes(shape, widths, shape.layers)
    assert kept(model, TOKENS, autocast=precision == "autocast") == pytest.approx(formula, rel=0.01)


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("q_proj", "gate_proj"), ("v_proj", "o_proj", "down_proj")])
def test_what_is_kept_for_some_layers_alone(four_chunks, targets):
    config, model = adapted(targets=targets)
    shape, widths = shape_of(config), Widths(compute=4, adapter=Adapter(RANK, targets=targets))
    formula = kept_bytes(shape, widths, TOKENS, recompute=False) + ends_bytes(shape, widths, TOKENS)
    formula += head_kept_bytes(shape, widths, TOKENS)
    assert kept(model, TOKENS, autocast=False) == pytest.approx(formula, rel=0.01)
    all_layers = adapted_layer_bytes(shape, widths, Adapter(RANK), TOKENS)
    assert adapted_layer_bytes(shape, widths, widths.adapter, TOKENS) < all_layers


@pytest.mark.parametrize("recompute", [False, True], ids=["whole", "recomputed"])
@pytest.mark.parametrize("precision", ["float32", "autocast"])
def test_the_peak_of_an_update_to_five_per_cent(precision, recompute):
    config, model = adapted(precision=precision, num_hidden_layers=3, vocab_size=150)
    if recompute:
        recompute_layers(model)
    for parameter in adapter_parameters(model).values():  # of an earlier micro-batch
        parameter.grad = torch.zeros_like(parameter)
    measured = peak(lambda: forward(model, 512, autocast=precision == "autocast").sum().backward())
    moment = update_moment(shape_of(config), WIDTHS[precision], 512, recompute=recompute)
    assert measured == pytest.approx(moment.total, rel=0.05)


@pytest.mark.parametrize("precision", ["float32", "autocast"])
def test_the_peak_of_log_probabilities_to_five_per_cent(precision):
    config, model = adapted(precision=precision, num_hidden_layers=3, vocab_size=150)
    with torch.no_grad():
        measured = peak(lambda: forward(model, 512, autocast=precision == "autocast"))
    moment = logprobs_moment(shape_of(config), WIDTHS[precision], 512)
    assert measured == pytest.approx(moment.total, rel=0.05)


def test_ends_of_paths_and_names_are_the_same_layers():
    assert known(None) == LAYER
    assert known(("mlp.down_proj", "q_proj", "layers.3.self_attn.q_proj")) == ("q_proj", "down_proj")


@pytest.mark.parametrize("rank", [16, 64])
@pytest.mark.parametrize(
    "model,card", [("Qwen2.5-0.5B", 15.5), ("Qwen2.5-1.5B", 15.5), ("Qwen2.5-3B", 23.5), ("Qwen2.5-7B", 44.5)]
)
def test_lora_fits_where_all_weights_do_not(model, card, rank):
    """Cards that are sold as ones of 16, 24 and 48 GB."""
    assert fits(load_of(model, card, Widths(weights=2, adapter=Adapter(rank))))
    assert model == "Qwen2.5-0.5B" or not fits(load_of(model, card))


def test_seven_billion_parameters_take_24_gib_in_the_update():
    load = load_of("Qwen2.5-7B", 44.5, Widths(weights=2, adapter=Adapter(16)))
    assert 44.5 - left(load)["update"] / GIB == pytest.approx(24.7, abs=0.3)
    assert not fits(load_of("Qwen2.5-7B", 23.5, Widths(weights=2, adapter=Adapter(16))))  # both copies, 14 GiB each
    assert QWEN["Qwen2.5-7B"][-1] * 2 / GIB > 14 and shape_of(qwen_config("Qwen2.5-7B")).layers == 28
