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

from grpo.memory.adapter import Adapter
from grpo.memory.model_shape import Shape
from grpo.memory.widths import Widths


def layer_bytes(shape: Shape, widths: Widths, tokens: int) -> float:
    """A layer that is not recomputed, all of whose weights are trained; adapted_layer_bytes where there is an adapter.

    - two norms: their input in float32, 4H, and its normalized value, s H, for the gain's gradient; the root, 4;
    - inputs of the query, key, value, gate and up projections: under autocast each of the five makes its own copy of
      c H, because only weights are cached; else one for each norm;
    - attention: queries and output c Q each, keys and values c E each, and 4 for each head (flash's log-sum-exp);
    - norms of queries and keys, where there are some: as above, but what they take has the width of the arithmetic;
    - the MLP: gate, silu(gate), up and their product, c I each.
    """
    if widths.adapter is not None:
        return adapted_layer_bytes(shape, widths, widths.adapter, tokens)
    s, c, hidden = widths.weights, widths.compute, shape.hidden
    norms = 2 * ((4 + s) * hidden + 4)
    inputs = (5 if widths.casts else 2) * c * hidden
    attention = 2 * c * (shape.query + shape.key) + 4 * shape.heads
    if shape.normed_heads:
        attention += (4 + c if c != 4 else 8) * (shape.query + shape.key) + 4 * (shape.heads + shape.kv_heads)
    return tokens * (norms + inputs + attention + 4 * c * shape.intermediate)


def adapted_layer_bytes(shape: Shape, widths: Widths, adapter: Adapter, tokens: int) -> float:
    """The same with frozen weights, whose gradients ask for nothing, and an adapter, whose A asks for its input.

    - two norms: their input in float32, 4H, and the root, 4; the frozen gain needs no normalized value;
    - inputs of A: c H for the query, key and value projections together, c H for gate and up together, c I for the
      down projection, where one of these has an adapter; that of the output projection is kept by the attention anyway;
    - inputs of B: c for each number that A gives;
    - attention and MLP as above, but for the product in the MLP, which is only kept as an input.
    """
    c, hidden, inner = widths.compute, shape.hidden, shape.intermediate
    norms = 2 * (4 * hidden + 4)
    inputs = c * hidden * (adapter.has("q_proj", "k_proj", "v_proj") + adapter.has("gate_proj", "up_proj"))
    attention = 2 * c * (shape.query + shape.key) + 4 * shape.heads
    if shape.normed_heads:
        attention += 4 * (shape.query + shape.key) + 4 * (shape.heads + shape.kv_heads)
    mlp = c * inner * (3 + adapter.has("down_proj"))
    return tokens * (norms + inputs + attention + mlp + c * adapter.numbers)


def kept_bytes(shape: Shape, widths: Widths, tokens: int, *, recompute: bool) -> float:
    """All layers. One that is recomputed keeps its input alone, s H a token. With a frozen embedding the first layer's
    norm has no gradient to pass on, and keeps nothing."""
    if recompute:
        return shape.layers * widths.weights * shape.hidden * tokens
    first = 0 if widths.adapter is None else tokens * (4 * shape.hidden + 4)
    return shape.layers * layer_bytes(shape, widths, tokens) - first


def ends_bytes(shape: Shape, widths: Widths, tokens: int) -> float:
    """What is kept around the layers: the final norm, (4 + s) H + 4 a token, and ids and mask, 9 bytes a token. A
    frozen gain needs no s H, and a frozen embedding no ids."""
    if widths.adapter is not None:
        return tokens * (4 * shape.hidden + 4 + 1)
    return tokens * ((4 + widths.weights) * shape.hidden + 4 + 9)


def forward_bytes(shape: Shape, widths: Widths, tokens: int) -> float:
    """The most that a layer holds at once beside its input, where nothing is kept: in the MLP, the residual stream and
    the norm's output, s H each, and silu(gate), up and their product, c I each. An adapter of the up projection has two
    more while up is made, its own result and that result weighted, of which one is in the product's place."""
    wide = 3 + (widths.adapter is not None and widths.adapter.has("up_proj"))
    return tokens * (2 * widths.weights * shape.hidden + wide * widths.compute * shape.intermediate)


def backward_bytes(shape: Shape, widths: Widths, tokens: int) -> float:
    """The most that the backward pass of a layer holds beside what was kept: in the MLP, the gradients of its output,
    s H, and of the product, c I. After it either the gradient of the matrix, I H in the width of the arithmetic and in
    its own, or those of the product's factors, in whose kept value's place one of them comes, and of the norm. With
    frozen weights there is no gradient of the matrix, and the product's comes in two parts, W's and A's."""
    s, c, hidden, inner = widths.weights, widths.compute, shape.hidden, shape.intermediate
    if widths.adapter is not None:
        return tokens * (s * hidden + 2 * c * inner)
    one = tokens * (s * hidden + c * inner)
    # Under autocast the gradient is first in c, and then in s, where the copy of the weight and what it was multiplied
    # with are gone: both are counted elsewhere.
    matrix = max(c * hidden * inner, s * hidden * inner - c * inner * tokens) if widths.casts else s * hidden * inner
    return one + max(one, matrix)
