"""The output head in float32, whatever the precision of the layers below it.

In bfloat16, logits between 16 and 32 are 0.125 apart, and log-probabilities of sampler and trainer drift by as much.
MiniMax-M1 (arXiv 2506.13585, section 3.2) and ScaleRL (arXiv 2510.13786) report that it matters for learning.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional


def float32_logits(head: nn.Module, hidden: Tensor) -> Tensor:
    """[..., H] -> [..., V] float32, outside of any autocast. The head is a linear layer, whose weights are float32."""
    with torch.autocast(hidden.device.type, enabled=False):
        bias = None if head.bias is None else head.bias.float()
        return functional.linear(hidden.float(), head.weight.float(), bias)


@contextmanager
def float32_head(model: nn.Module) -> Iterator[None]:
    """Within it the model's own forward pass has its head in float32 too, as the generation of transformers needs."""
    head = model.get_output_embeddings()
    head.forward = lambda hidden: float32_logits(head, hidden)
    try:
        yield
    finally:
        del head.forward  # the class has its own
