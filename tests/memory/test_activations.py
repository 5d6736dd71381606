"""What a forward pass keeps, by the formulas and as autograd keeps it on real classes of transformers."""

import pytest
from measured_bytes import kept
from real_shapes import CLASSES, PRECISIONS, small

from grpo.memory.activations import ends_bytes, kept_bytes
from grpo.memory.model_shape import shape_of
from grpo.memory.output_head import head_kept_bytes
from grpo.memory.widths import copy_bytes
from grpo.model.recompute import recompute_layers

TOKENS = 128


@pytest.mark.parametrize("recompute", [False, True], ids=["whole", "recomputed"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", CLASSES)
def test_what_is_kept_to_one_per_cent(monkeypatch, family, precision, recompute):
    for module in ("grpo.model.logprobs", "grpo.memory.output_head"):
        monkeypatch.setattr(f"{module}.MAX_CHUNK_ELEMENTS", 1000 * (TOKENS // 4))  # four chunks, as with a real batch
    config, model = small(family, precision)
    if recompute:
        recompute_layers(model)
    shape, widths = shape_of(config), PRECISIONS[precision]
    formula = kept_bytes(shape, widths, TOKENS, recompute=recompute) + ends_bytes(shape, widths, TOKENS)
    formula += head_kept_bytes(shape, widths, TOKENS)
    formula += 0 if recompute else copy_bytes(shape, widths, shape.layers)  # in the graph, until the backward pass
    assert kept(model, TOKENS, autocast=precision == "autocast") == pytest.approx(formula, rel=0.01)


def test_a_copy_too_few_would_be_noticed():
    """Under autocast each of the five projections that read a norm's output keeps its own copy of it. With one copy for
    each norm, as in float32, the sum would be too low by more than what the test above allows."""
    config, model = small()
    three_copies = config.num_hidden_layers * TOKENS * 3 * 2 * config.hidden_size
    assert three_copies > 0.01 * kept(model, TOKENS, autocast=True)
