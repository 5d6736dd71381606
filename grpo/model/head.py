"""The output head in a precision of its own, whatever that of the layers below it.

In bfloat16, logits between 16 and 32 are 0.125 apart, and log-probabilities of sampler and trainer drift by as much.
MiniMax-M1 (arXiv 2506.13585, section 3.2) and ScaleRL (arXiv 2510.13786) report that it matters for learning.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

HEAD_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""`--head-dtype` -> that of the head's matrix product."""


def head_logits(head: nn.Module, hidden: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """[..., H] -> [..., V] float32: the product in `dtype`, outside of any autocast. The head is a linear layer."""
    with torch.autocast(hidden.device.type, enabled=False):
        bias = None if head.bias is None else head.bias.to(dtype)
        return functional.linear(hidden.to(dtype), head.weight.to(dtype), bias).float()


@contextmanager
def head_in(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Within it the model's own forward pass has its head as above, as the generation of transformers needs."""
    head = model.get_output_embeddings()
    head.forward = lambda hidden: head_logits(head, hidden, dtype)
    try:
        yield
    finally:
        del head.forward  # the class has its own
