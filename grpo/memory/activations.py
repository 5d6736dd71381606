"""Activations: what a forward pass keeps for the backward pass. Bytes.

K token positions of a micro-batch, N of them in responses, H hidden, I intermediate, V vocabulary, L layers,
Q and E numbers in the queries and in the keys of a token, A attention heads.

c is the width of the arithmetic (2 in bfloat16), s that of the residual stream, which is that of the weights: under
autocast an embedding of float32 gives float32, and float32 plus bfloat16 is float32. tests/memory measures the sums on
Qwen2, Qwen3 and Llama, in float32, under autocast and with bfloat16 weights, to 1%.

What stays an assumption of CUDA: that attention runs in a fused kernel (flash), which keeps queries, keys, values,
output and one number a head and position. That is so for bfloat16 without a mask, and head sizes up to 256. In float32
torch takes a kernel of the same memory. The plain formula ("math"), which a mask of padding would bring about, would
keep [A, T, T] more.
"""

from __future__ import annotations

from grpo.memory.model_shape import Shape
from grpo.memory.widths import Widths


def layer_bytes(shape: Shape, widths: Widths, tokens: int) -> float:
    """A layer that is not recomputed.

    - two norms: their input in float32, 4H, and its normalized value, s H, for the gain's gradient; the root, 4;
    - inputs of the query, key, value, gate and up projections: under autocast each of the five makes its own copy of
      c H, because only weights are cached; else one for each norm;
    - attention: queries and output c Q each, keys and values c E each, and 4 for each head (flash's log-sum-exp);
    - norms of queries and keys, where there are some: as above, but what they take has the width of the arithmetic;
    - the MLP: gate, silu(gate), up and their product, c I each.
    """
    s, c, hidden = widths.weights, widths.compute, shape.hidden
    norms = 2 * ((4 + s) * hidden + 4)
    inputs = (5 if widths.casts else 2) * c * hidden
    attention = 2 * c * (shape.query + shape.key) + 4 * shape.heads
    if shape.normed_heads:
        attention += (4 + c if c != 4 else 8) * (shape.query + shape.key) + 4 * (shape.heads + shape.kv_heads)
    return tokens * (norms + inputs + attention + 4 * c * shape.intermediate)


def kept_bytes(shape: Shape, widths: Widths, tokens: int, *, recompute: bool) -> float:
    """All layers. One that is recomputed keeps its input alone, s H a token."""
    one = widths.weights * shape.hidden * tokens if recompute else layer_bytes(shape, widths, tokens)
    return shape.layers * one


def ends_bytes(shape: Shape, widths: Widths, tokens: int) -> float:
    """What is kept around the layers: the final norm, (4 + s) H + 4 a token, and ids and mask, 9 bytes a token."""
    return tokens * ((4 + widths.weights) * shape.hidden + 4 + 9)


def forward_bytes(shape: Shape, widths: Widths, tokens: int) -> float:
    """The most that a layer holds at once beside its input, where nothing is kept: in the MLP, the residual stream and
    the norm's output, s H each, and silu(gate), up and their product, c I each."""
    return tokens * (2 * widths.weights * shape.hidden + 3 * widths.compute * shape.intermediate)


def backward_bytes(shape: Shape, widths: Widths, tokens: int) -> float:
    """The most that the backward pass of a layer holds beside what was kept: in the MLP, the gradients of its output,
    s H, and of the product, c I. After it either the gradient of the matrix, I H in the width of the arithmetic and in
    its own, or those of the product's factors, in whose kept value's place one of them comes, and of the norm."""
    s, c, hidden, inner = widths.weights, widths.compute, shape.hidden, shape.intermediate
    matrix = 0.0 if widths.trained is not None else (c + (s if widths.casts else 0)) * hidden * inner
    one = tokens * (s * hidden + c * inner)
    return one + max(one, matrix)
