"""Bytes as torch counts them on a CPU: what autograd keeps, and the most that its allocator has given out at once."""

import sys
from contextlib import ExitStack

import torch
from conftest import ROOT

from grpo.model.logprobs import token_logprobs
from grpo.model.recompute import recomputing

sys.path.append(str(ROOT / "scripts"))
from peak_memory import peak_on_cpu as peak  # noqa: F401  (what the tests of this folder measure with)


def forward(model, tokens, *, autocast, rows=2):
    """The log-probabilities of `tokens` random positions, all in responses, as Learner.backward has them computed."""
    ids = torch.randint(0, model.config.vocab_size, (rows, tokens // rows + 1))
    mask = torch.ones(rows, tokens // rows, dtype=torch.bool)
    with ExitStack() as stack:
        if autocast:
            stack.enter_context(torch.autocast("cpu", torch.bfloat16, cache_enabled=False))
        stack.enter_context(recomputing(model))
        return token_logprobs(model, ids[:, :-1], ids[:, 1:], mask, 0.8)[0]


def kept(model, tokens, *, autocast):
    """Bytes that a forward pass keeps for the backward pass, each storage once, parameters left out."""
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    found = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            found[storage._cdata] = storage  # held, so that its place is not given to another
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = forward(model, tokens, autocast=autocast)
    assert result.requires_grad
    return sum(storage.nbytes() for storage in found.values())


def product_of_cuda(one, two, dtype):
    """In the place of model/head.py's product: one that allocates its result and nothing else, as that of CUDA. On a
    CPU, bfloat16 numbers would be copied to float32 first. Nothing here asks for the numbers."""
    return torch.zeros(one.shape[0], two.shape[1], dtype=dtype)
