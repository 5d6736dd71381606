"""An update's backward pass through the output head, a piece of the response tokens at a time.

Where a token's loss depends on no other token, its gradient is known as soon as its own logits are. So each piece goes
forward and back before the next one begins, and then the sum goes back through the layers, once. The head takes three
matrix products for that, where a chunk that is recomputed (logprobs.py) takes four, and its gradient is added to the
parameter's own, instead of to a sum that is kept to the end. The result is the same but for rounding.

N response tokens, H hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace

import torch
from torch import nn

from grpo.algorithm.objective import Measured, Objective, added
from grpo.model.learner import autocast
from grpo.model.logprobs import chunk_rows, response_states, scorer
from grpo.model.recompute import recomputing
from grpo.records import Batch


def backward_in_pieces(
    model: nn.Module,
    micro_batch: Batch,
    objective: Objective,
    temperature: float,
    *,
    train_entropy: bool,
    head_dtype: torch.dtype,
) -> Measured:
    """Adds the micro-batch's gradient to the parameters' own. Returns what was measured, without a graph."""
    tokens = chunk_rows(model)
    with autocast(micro_batch.inputs.device), recomputing(model):
        states = response_states(model, micro_batch.inputs, micro_batch.mask)
        score = scorer(model, temperature, train_entropy=train_entropy, head_dtype=head_dtype)
    measured, gradient = [], torch.empty_like(states)
    parts = zip(pieces(micro_batch, tokens), states.split(tokens), gradient.split(tokens), strict=True)
    for piece, of_piece, of_gradient in parts:
        leaf = of_piece.detach().requires_grad_()
        with autocast(leaf.device):
            logprobs, entropy = score(leaf, piece.targets[:, 0])
        found = objective(piece, logprobs[:, None], entropy[:, None])
        found.loss.backward()
        measured.append(replace(found, loss=found.loss.detach()))
        of_gradient.copy_(leaf.grad)
    states.backward(gradient)
    return added(measured)


def pieces(micro_batch: Batch, tokens: int) -> Iterator[Batch]:
    """The response tokens of a micro-batch, row after row, at most `tokens` at a time; each is a row of its own.

    Shapes: [B, T] -> [n, 1].
    """
    mask = micro_batch.mask
    row, _ = mask.nonzero(as_tuple=True)
    given = {field.name: getattr(micro_batch, field.name) for field in fields(micro_batch)}
    of_tokens = {name: value[mask][:, None] for name, value in given.items() if value is not None and value.ndim == 2}
    of_tokens |= {"lengths": torch.ones_like(row), "groups": micro_batch.groups[row]}
    cut = {name: value.split(tokens) for name, value in of_tokens.items()}
    for parts in zip(*cut.values(), strict=True):
        yield replace(micro_batch, **dict(zip(cut, parts, strict=True)))
