"""The output head, whose logits are float32, whatever the precision of the layers below it.

In bfloat16, logits between 16 and 32 are 0.125 apart, and log-probabilities of sampler and trainer drift by as much.
MiniMax-M1 (arXiv 2506.13585, section 3.2) and ScaleRL (arXiv 2510.13786) report that it matters for learning.

Where the layers compute in bfloat16, the head takes bfloat16 numbers as they do, and sums and returns float32. That is
what vLLM's head computes from the same weights (model_executor/layers/logits_processor.py), and an H100 or H200 does it
more than ten times faster than a product of float32 numbers.

N positions, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

HEAD_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""`--head-dtype` -> that of the logits, where the layers compute in bfloat16."""


def head_function(head: nn.Module, dtype: torch.dtype = torch.float32) -> Callable[[Tensor], Tensor]:
    """The head, a linear layer, as a function: [..., H] -> [..., V] float32.

    Made for one pass: what it needs of the weights is made once, and not for each chunk of positions.

    dtype: of the logits where the layers, or the autocast around this call, compute in bfloat16.
    """
    weight, bias = head.weight, head.bias
    device = weight.device.type
    arithmetic = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    narrow = weight.detach().to(arithmetic)  # the weight itself where the layers compute in its precision
    dtype = torch.float32 if arithmetic is torch.float32 else dtype

    def logits(hidden: Tensor) -> Tensor:
        with torch.autocast(device, enabled=False):
            found = HeadProduct.apply(hidden.flatten(0, -2), weight, narrow, dtype).unflatten(0, hidden.shape[:-1])
            return found if bias is None else found + bias.float()

    return logits


class HeadProduct(torch.autograd.Function):
    """[N, H], [V, H] -> [N, V] float32, from numbers in `narrow`'s precision.

    In float32 it is torch's linear layer to the last bit. But the weight's gradient is no view here: those of several
    chunks of positions are then added up in place, and of the largest tensor of a small model there is one less.
    """

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, narrow: Tensor, dtype: torch.dtype) -> Tensor:
        """narrow: the weight in the precision of the arithmetic; dtype: of the product before it is float32."""
        ctx.save_for_backward(hidden.to(narrow.dtype), narrow)
        ctx.dtypes = hidden.dtype, weight.dtype
        return product(hidden.to(narrow.dtype), narrow.t(), dtype).float()

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, narrow = ctx.saved_tensors
        of_hidden, of_weight = ctx.dtypes
        grad = grad.to(narrow.dtype)
        hidden_grad = product(grad, narrow, of_hidden) if ctx.needs_input_grad[0] else None
        weight_grad = product(grad.t(), hidden, of_weight) if ctx.needs_input_grad[1] else None
        return hidden_grad, weight_grad, None, None


def product(one: Tensor, two: Tensor, dtype: torch.dtype) -> Tensor:
    """[A, B] @ [B, C] -> [A, C] in `dtype`, summed in float32. Both are of the same precision."""
    if dtype == one.dtype:
        return one @ two
    if one.is_cuda:
        return torch.mm(one, two, out_dtype=dtype)
    return one.to(dtype) @ two.to(dtype)  # the same numbers: a product of two bfloat16 is exact in float32


@contextmanager
def head_in(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Within it the model's own forward pass has its head as above, as the generation of transformers needs."""
    head = model.get_output_embeddings()
    head.forward = head_function(head, dtype)
    try:
        yield
    finally:
        del head.forward  # the class has its own
