"""The largest moment of a forward and backward pass, by the formulas and as torch's allocator has seen it on a CPU."""

import pytest
import torch
from measured_bytes import forward, peak, product_of_cuda
from real_shapes import PRECISIONS, qwen_config, small
from transformers import AutoModelForSequenceClassification

from grpo.memory.model_shape import critic_shape, shape_of
from grpo.memory.moments import critic_moment, logprobs_moment, update_moment
from grpo.memory.widths import Widths
from grpo.model.recompute import recompute_layers, recomputing
from grpo.model.scalar_model import token_values

TOKENS = 512
GIB = 2**30


@pytest.fixture(autouse=True)
def as_on_cuda(monkeypatch):
    monkeypatch.setattr("grpo.model.head.product", product_of_cuda)


@pytest.mark.parametrize("recompute", [False, True], ids=["whole", "recomputed"])
@pytest.mark.parametrize("precision", ["float32", "autocast"])
def test_the_peak_of_an_update_to_five_per_cent(precision, recompute):
    config, model = small(num_hidden_layers=3, intermediate_size=2048)
    if recompute:
        recompute_layers(model)
    for parameter in model.parameters():  # of an earlier micro-batch
        parameter.grad = torch.zeros_like(parameter)
    measured = peak(lambda: forward(model, TOKENS, autocast=precision == "autocast").sum().backward())
    moment = update_moment(shape_of(config), PRECISIONS[precision], TOKENS, recompute=recompute)
    assert measured == pytest.approx(moment.total, rel=0.05)


@pytest.mark.parametrize("precision", ["float32", "autocast"])
def test_the_peak_of_log_probabilities_to_five_per_cent(precision):
    config, model = small(num_hidden_layers=3, intermediate_size=2048)
    with torch.no_grad():
        measured = peak(lambda: forward(model, TOKENS, autocast=precision == "autocast"))
    moment = logprobs_moment(shape_of(config), PRECISIONS[precision], TOKENS)
    assert measured == pytest.approx(moment.total, rel=0.05)


@pytest.mark.parametrize("recompute", [False, True], ids=["whole", "recomputed"])
@pytest.mark.parametrize("precision", ["float32", "autocast"])
def test_the_peak_of_a_critics_update_to_five_per_cent(precision, recompute):
    config, _ = small(num_hidden_layers=3, intermediate_size=2048)
    config.num_labels, config.pad_token_id = 1, 0
    model = AutoModelForSequenceClassification.from_config(config).eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == critic_shape(shape_of(config)).parameters
    if recompute:
        recompute_layers(model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    ids = torch.randint(0, 1000, (2, TOKENS // 2))

    def passes():
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False, enabled=precision == "autocast"):
            with recomputing(model):
                values = token_values(model, ids, torch.ones_like(ids, dtype=torch.bool))
        values.sum().backward()

    moment = critic_moment(critic_shape(shape_of(config)), PRECISIONS[precision], TOKENS, recompute=recompute)
    assert peak(passes) == pytest.approx(moment.total, rel=0.05)


def test_recomputed_layers_of_a_real_model():
    shape = shape_of(qwen_config("Qwen2.5-1.5B"))
    whole, recomputed = (update_moment(shape, Widths(), 16384, recompute=recompute) for recompute in (False, True))
    assert whole.activations / GIB == pytest.approx(50.9, abs=0.5)
    assert recomputed.activations / GIB < 7
