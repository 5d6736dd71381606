"""The output head: logits in float32, a chunk of positions at a time (model/logprobs.py). Bytes.

N response positions, H hidden, V vocabulary, R positions in a chunk, s the width of the weights, c that of the
arithmetic. A *table* is a chunk's logits, 4 R V: at most 128 MiB, or a share of the card, however large the vocabulary
is.
"""

from __future__ import annotations

from grpo.memory.model_shape import Shape
from grpo.memory.widths import Widths
from grpo.model.logprobs import MAX_CHUNK_ELEMENTS

FORWARD_TABLES = 2
"""Logits, and one on the way to their logarithm; the entropy makes another. Measured by torch's profiler, with what its
operators take inside."""
BACKWARD_TABLES = 5
"""The logits, and four on the way to their gradient. Measured likewise."""


def chunk_rows(shape: Shape, widths: Widths, response_tokens: int) -> int:
    """R."""
    return min(response_tokens, max(1, (widths.chunk or MAX_CHUNK_ELEMENTS) // shape.vocabulary))


def head_kept_bytes(shape: Shape, widths: Widths, response_tokens: int) -> float:
    """Kept for the backward pass: the head's inputs, s H each, and 16 a position for its choice.

    The logits of several chunks are recomputed. Those of a single chunk are not: they are in the sums below, and of the
    inputs there is what the product takes. Chunks that go in pieces have a copy of the batch besides, 60 a position.
    """
    several = _several(shape, widths, response_tokens)
    copy = 60 if several and widths.pieces else 0
    return response_tokens * ((widths.weights if several else widths.compute) * shape.hidden + 16 + copy)


def head_forward_bytes(shape: Shape, widths: Widths, response_tokens: int, *, entropy: bool) -> float:
    """The most that a chunk's forward pass holds at once; entropy: whether it is wanted, as in an update."""
    return (FORWARD_TABLES + entropy) * _table(shape, widths, response_tokens) + _narrow_weights(shape, widths)


def head_backward_bytes(shape: Shape, widths: Widths, response_tokens: int) -> float:
    """The most that a chunk's backward pass holds at once, its own forward pass included.

    A chunk gives a gradient of the whole head, s V H, beside the table of its logits' gradient and, where the
    arithmetic is not float32, a copy of this in c. From the second chunk on there is the sum of those before, too; only
    at the end it goes to the parameter's own gradient. Or all tables are there at once, and the sum. And the inputs'
    gradient, s H a position. In pieces there is no such sum: each is added to the parameter's own.
    """
    table, one = _table(shape, widths, response_tokens), _gradient(shape, widths)
    several = _several(shape, widths, response_tokens) and not widths.pieces
    copy = widths.compute / 4 if widths.compute != 4 else 0
    most = (one if several else 0.0) + max(BACKWARD_TABLES * table, one + (1 + copy) * table)
    return most + _narrow_weights(shape, widths) + widths.weights * shape.hidden * response_tokens


def head_gradient_bytes(shape: Shape, widths: Widths, response_tokens: int) -> float:
    """The sum over the chunks. A tied head keeps it until the embedding's own gradient is there, at the very end; in
    pieces it is a part of the parameter's own from the beginning."""
    in_pieces = widths.pieces and _several(shape, widths, response_tokens)
    return 0.0 if in_pieces else _gradient(shape, widths)


def _gradient(shape: Shape, widths: Widths) -> float:
    return 0.0 if widths.adapter is not None else widths.weights * shape.head


def _several(shape: Shape, widths: Widths, response_tokens: int) -> bool:
    return chunk_rows(shape, widths, response_tokens) < response_tokens


def _table(shape: Shape, widths: Widths, response_tokens: int) -> int:
    return 4 * chunk_rows(shape, widths, response_tokens) * shape.vocabulary


def _narrow_weights(shape: Shape, widths: Widths) -> int:
    """The head in the width of the arithmetic, where it has another itself: made once for a pass."""
    return widths.compute * shape.head if widths.casts else 0
