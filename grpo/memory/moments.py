"""What passes through memory in a forward and backward pass: the moments at which it is most. Bytes.

Weights, gradients, optimizer and reference stay the whole time, and are in widths.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from grpo.memory.activations import backward_bytes, ends_bytes, forward_bytes, kept_bytes, layer_bytes
from grpo.memory.model_shape import Shape
from grpo.memory.output_head import head_backward_bytes, head_forward_bytes, head_gradient_bytes, head_kept_bytes
from grpo.memory.widths import Widths, copy_bytes, largest_copy_bytes


@dataclass(frozen=True)
class Moment:
    """What is held at once."""

    activations: float
    head: float
    copies: float
    """Of weights, in the width of the arithmetic."""

    @property
    def total(self) -> float:
        return self.activations + self.head + self.copies


def update_moment(shape: Shape, widths: Widths, tokens: int, *, recompute: bool) -> Moment:
    """The largest moment of an update's forward and backward pass over so many token positions, all in responses.

    A copy that autocast makes of a weight lives as long as its product; where layers are not recomputed, the graph
    keeps all of them for the backward pass.
    """
    stream = widths.weights * shape.hidden * tokens  # what passes from layer to layer
    kept = kept_bytes(shape, widths, tokens, recompute=recompute)
    ends, kept_head = ends_bytes(shape, widths, tokens), head_kept_bytes(shape, widths, tokens)
    of_layer, matrix = copy_bytes(shape, widths, 1), largest_copy_bytes(shape, widths)
    graph = 0.0 if recompute else copy_bytes(shape, widths, shape.layers)
    moments = [
        # The forward pass is in the last layer, and then in the head, where the last norm's output is still there.
        Moment(kept + forward_bytes(shape, widths, tokens), 0.0, matrix) if recompute else Moment(kept, 0.0, graph),
        Moment(kept + ends + stream, kept_head + head_forward_bytes(shape, widths, tokens, entropy=True), graph),
        # The backward pass is in the head, and then in the last layer.
        Moment(kept + ends, kept_head + head_backward_bytes(shape, widths, tokens), graph),
        Moment(
            kept + backward_bytes(shape, widths, tokens) + (layer_bytes(shape, widths, tokens) if recompute else 0.0),
            head_gradient_bytes(shape, widths, tokens) if shape.tied else 0.0,
            of_layer if recompute else graph,
        ),
    ]
    return max(moments, key=lambda moment: moment.total)


def critic_moment(shape: Shape, widths: Widths, tokens: int, *, recompute: bool) -> Moment:
    """The same of a critic's update: all of its weights are trained, and its head has one number.

    The head takes the response positions' hidden states in float32, and hands as many numbers back.
    """
    kept = kept_bytes(shape, widths, tokens, recompute=recompute)
    states = 4 * shape.hidden * tokens
    of_layer, matrix = copy_bytes(shape, widths, 1), largest_copy_bytes(shape, widths)
    graph = 0.0 if recompute else copy_bytes(shape, widths, shape.layers)
    inner = layer_bytes(shape, widths, tokens) if recompute else 0.0
    moments = [
        Moment(kept + forward_bytes(shape, widths, tokens), 0.0, matrix) if recompute else Moment(kept, 0.0, graph),
        # The last norm's output, and its gradient; the states that the head takes, and theirs.
        Moment(kept + ends_bytes(shape, widths, tokens) + 2 * states, 2 * states, graph),
        Moment(kept + backward_bytes(shape, widths, tokens) + inner, 0.0, of_layer if recompute else graph),
    ]
    return max(moments, key=lambda moment: moment.total)


def logprobs_moment(shape: Shape, widths: Widths, tokens: int) -> Moment:
    """The largest moment of a forward pass that keeps nothing, as for old and reference log-probabilities."""
    stream = widths.weights * shape.hidden * tokens
    moments = [
        # The embedding, and the layer's input; then the output, and what the head takes.
        Moment(2 * stream + forward_bytes(shape, widths, tokens), 0.0, largest_copy_bytes(shape, widths)),
        Moment(2 * stream, head_forward_bytes(shape, widths, tokens, entropy=False), 0.0),
    ]
    return max(moments, key=lambda moment: moment.total)
