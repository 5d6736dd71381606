"""The head's memory, by the formulas and as torch's allocator has given it out on a CPU."""

from dataclasses import replace

import pytest
import torch
from conftest import make_batch
from measured_bytes import peak, product_of_cuda
from real_shapes import PRECISIONS, small_config
from torch import nn

from grpo.algorithm.objective import Objective
from grpo.algorithm.table import ALGORITHMS
from grpo.memory.model_shape import shape_of
from grpo.memory.output_head import chunk_rows, head_backward_bytes, head_forward_bytes, head_kept_bytes
from grpo.memory.widths import Widths
from grpo.model.head_pieces import backward_in_pieces
from grpo.model.logprobs import chunk_elements, token_logprobs

VOCABULARY = 151_936  # of Qwen2.5
DTYPES = {4: torch.float32, 2: torch.bfloat16}


class OnlyHead(nn.Module):
    """A causal language model whose layers are one table of hidden states."""

    def __init__(self, tokens, hidden, dtype):
        super().__init__()
        self.config = None  # no soft cap
        self.states = torch.randn(1, tokens, hidden, dtype=dtype, requires_grad=True)
        self.head = nn.Linear(hidden, VOCABULARY, bias=False, dtype=dtype)
        self.head.weight.grad = torch.zeros_like(self.head.weight)  # there is one from an earlier micro-batch

    def base_model(self, input_ids, use_cache):
        return type("Output", (), {"last_hidden_state": self.states})

    def get_output_embeddings(self):
        return self.head


@pytest.mark.parametrize("precision", ["float32", "autocast", "bfloat16"])
@pytest.mark.parametrize("chunks,pieces", [(1, False), (3, False), (3, True)])
@pytest.mark.parametrize("hidden", [16, 256], ids=["tables decide", "the head's gradient decides"])
def test_the_peak_of_the_backward_pass(monkeypatch, hidden, chunks, pieces, precision):
    rows = 12
    monkeypatch.setattr("grpo.model.head.product", product_of_cuda)
    for module in ("grpo.model.logprobs", "grpo.memory.output_head"):
        monkeypatch.setattr(f"{module}.MAX_CHUNK_ELEMENTS", rows * VOCABULARY)
    shape = shape_of(small_config(vocab_size=VOCABULARY, hidden_size=hidden, intermediate_size=16))
    tokens, widths = chunks * rows, replace(PRECISIONS[precision], pieces=pieces)
    assert chunk_rows(shape, widths, tokens) == rows
    model, ids = OnlyHead(tokens, hidden, DTYPES[widths.weights]), torch.zeros(1, tokens, dtype=torch.int64)
    mask = torch.ones(1, tokens, dtype=torch.bool)
    batch = make_batch(mask, advantages=mask.float(), token_weights=mask.float())

    def forward_and_backward():
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
            if pieces:
                settings = {"train_entropy": False, "head_dtype": torch.float32}
                backward_in_pieces(model, batch, Objective(ALGORITHMS["dr_grpo"]), 0.8, **settings)
                return
            logprobs, _ = token_logprobs(model, ids, ids, mask, 0.8)
        logprobs.sum().backward()

    formula = head_kept_bytes(shape, widths, tokens) + head_backward_bytes(shape, widths, tokens)
    assert peak(forward_and_backward) == pytest.approx(formula, rel=0.05)


@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("precision", ["float32", "autocast", "bfloat16"])
def test_the_peak_of_a_chunk_without_a_gradient(monkeypatch, precision, entropy):
    monkeypatch.setattr("grpo.model.head.product", product_of_cuda)
    shape, widths = (
        shape_of(small_config(vocab_size=VOCABULARY, hidden_size=64, intermediate_size=16)),
        PRECISIONS[precision],
    )
    model, ids = OnlyHead(24, 64, DTYPES[widths.weights]), torch.zeros(1, 24, dtype=torch.int64)

    def forward():
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
            token_logprobs(model, ids, ids, ids == 0, 0.8, with_entropy=entropy)

    assert peak(forward) == pytest.approx(head_forward_bytes(shape, widths, 24, entropy=entropy), rel=0.05)


def test_a_chunk_of_the_real_vocabulary_is_128_mib():
    shape = shape_of(small_config(vocab_size=VOCABULARY))
    widths = Widths()
    assert chunk_rows(shape, widths, 16384) == 220
    assert 4 * chunk_rows(shape, widths, 16384) * VOCABULARY == pytest.approx(128 * 2**20, rel=0.01)
    assert chunk_rows(shape, widths, 100) == 100
    assert chunk_rows(shape, Widths(chunk=chunk_elements(79 * 2**30)), 16384) == 883
