"""Bytes of weights, gradients and optimizer state, by the formulas and as torch holds them."""

import pytest
import torch
from real_shapes import PRECISIONS, QWEN, qwen_config, small

from grpo.memory.adapter import Adapter
from grpo.memory.model_shape import shape_of
from grpo.memory.widths import STATE, Widths, copy_bytes, gradient_bytes, optimizer_bytes, reference_bytes, weight_bytes
from grpo.model.learner import Learner
from grpo.model.settings import OPTIMIZERS, OptimizerSettings

GIB = 2**30


def bytes_of(tensors):
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


def test_weights_gradients_and_adamw_are_what_torch_holds():
    config, model = small(intermediate_size=128)
    shape, widths = shape_of(config), Widths()
    learner = Learner(model, OptimizerSettings(), 16)
    model(torch.ones(1, 2, dtype=torch.int64)).logits.sum().backward()
    learner.optimizer.step()
    state = [value for values in learner.optimizer.state.values() for value in values.values()]
    assert bytes_of(model.parameters()) == weight_bytes(shape, widths)
    assert bytes_of(parameter.grad for parameter in model.parameters()) == gradient_bytes(shape, widths)
    assert bytes_of(state) == pytest.approx(optimizer_bytes(shape, widths), rel=1e-4)


def test_autocast_copies_the_layers_and_neither_embedding_nor_head():
    config, model = small(tie_word_embeddings=False)
    shape = shape_of(config)
    linear = [m for m in model.model.layers.modules() if isinstance(m, torch.nn.Linear)]
    numbers = sum(parameter.numel() for module in linear for parameter in module.parameters())
    assert copy_bytes(shape, Widths(), shape.layers) == pytest.approx(2 * numbers, rel=1e-3)
    assert copy_bytes(shape, PRECISIONS["float32"], 2) == copy_bytes(shape, PRECISIONS["bfloat16"], 2) == 0


def test_every_optimizer_has_a_width():
    assert tuple(STATE) == OPTIMIZERS


@pytest.mark.parametrize("name", QWEN)
def test_sixteen_bytes_a_parameter(name):
    shape, widths = shape_of(qwen_config(name)), Widths(reference=4)
    state = weight_bytes(shape, widths) + gradient_bytes(shape, widths) + optimizer_bytes(shape, widths)
    assert state == 16 * QWEN[name][-1] and reference_bytes(shape, widths) == 4 * QWEN[name][-1]


def test_an_adapter_is_all_that_has_a_gradient_and_a_state():
    """peft's own count for Qwen2.5-7B at rank 16: 40,370,176."""
    shape, widths = shape_of(qwen_config("Qwen2.5-7B")), Widths(weights=2, adapter=Adapter(16))
    assert gradient_bytes(shape, widths) + optimizer_bytes(shape, widths) == 12 * 40_370_176
    assert weight_bytes(shape, widths) == 2 * shape.parameters + 4 * 40_370_176
    assert copy_bytes(shape, widths, shape.layers) == 2 * 40_370_176  # the base is what the arithmetic takes already
