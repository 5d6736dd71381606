"""Bytes a parameter: what weights, gradient, optimizer state and reference take."""

from __future__ import annotations

from dataclasses import dataclass

from grpo.memory.adapter import Adapter
from grpo.memory.model_shape import Shape

STATE = {"adamw": 8, "adamw_8bit": 2, "adamw_offload": 0}
"""`--optimizer` -> AdamW's two moments on the card: float32, 8 bits, or on the host. From there a tensor's state visits
the card while the tensor is updated, which takes less than a pass does."""


@dataclass(frozen=True)
class Widths:
    """Bytes a parameter, on the card. The defaults are AdamW in float32 with a forward pass in bfloat16.

    weights 4 + gradient 4 + AdamW's two moments 8 = 16; the forward pass makes a bfloat16 copy of 2 of every weight
    that a matrix product uses.
    """

    weights: float = 4
    gradient: float = 4
    optimizer: float = STATE["adamw"]
    compute: int = 2
    """Of a number in the arithmetic of the layers: 2 is bfloat16."""
    reference: float = 0
    """0 without a reference, or with one on the host."""
    adapter: Adapter | None = None
    """All that has a gradient and a state, beside frozen weights; None: all weights are trained."""
    pieces: bool = False
    """Whether the head's backward pass goes in pieces (model/head_pieces.py), as it does for losses of tokens."""
    chunk: int | None = None
    """Logits that the head holds at once; None: MAX_CHUNK_ELEMENTS (model/logprobs.py)."""

    @property
    def casts(self) -> bool:
        """Whether the forward pass makes copies of the weights (autocast)."""
        return self.weights != self.compute


def weight_bytes(shape: Shape, widths: Widths) -> float:
    own = 0 if widths.adapter is None else widths.adapter.weights * widths.adapter.parameters(shape)
    return widths.weights * shape.parameters + own


def gradient_bytes(shape: Shape, widths: Widths) -> float:
    return widths.gradient * _trained(shape, widths)


def optimizer_bytes(shape: Shape, widths: Widths) -> float:
    """AdamW's two moments are tensors like the weights; its step counts, 4 bytes a tensor, are left out."""
    return widths.optimizer * _trained(shape, widths)


def reference_bytes(shape: Shape, widths: Widths) -> float:
    return widths.reference * shape.parameters


def copy_bytes(shape: Shape, widths: Widths, layers: int) -> float:
    """Copies of so many layers' weights in the width of the arithmetic; none where the weights have it themselves.

    The embedding is looked up and not multiplied; the head's copy is in output_head.py.
    """
    if widths.adapter is not None:
        cast = widths.adapter.weights != widths.compute
        return widths.compute * widths.adapter.parameters(shape) / shape.layers * layers if cast else 0.0
    return widths.compute * shape.layer * layers if widths.casts else 0.0


def largest_copy_bytes(shape: Shape, widths: Widths) -> float:
    """Of one matrix: what there is at a time where no graph keeps them."""
    if widths.adapter is not None:
        cast = widths.adapter.weights != widths.compute
        return widths.compute * widths.adapter.rank * shape.intermediate if cast else 0.0
    return widths.compute * shape.hidden * shape.intermediate if widths.casts else 0.0


def _trained(shape: Shape, widths: Widths) -> int:
    return shape.parameters if widths.adapter is None else widths.adapter.parameters(shape)
