"""The output head: logits in float32, a chunk of positions at a time (model/logprobs.py). Bytes.

N response positions, H hidden, V vocabulary, R positions in a chunk, s the width of the weights. A *table* is a chunk's
logits, 4 R V: at most 128 MiB, however large the vocabulary is.
"""

from __future__ import annotations

from grpo.memory.model_shape import Shape
from grpo.memory.widths import Widths
from grpo.model.logprobs import MAX_CHUNK_ELEMENTS

FORWARD_TABLES = 3
"""Logits, and two that the entropy makes of them. Measured by torch's profiler, with what its operators take inside."""
BACKWARD_TABLES = 5
"""The logits, and four on the way to their gradient. Measured likewise."""


def chunk_rows(shape: Shape, response_tokens: int) -> int:
    """R."""
    return min(response_tokens, max(1, MAX_CHUNK_ELEMENTS // shape.vocabulary))


def head_kept_bytes(shape: Shape, widths: Widths, response_tokens: int) -> float:
    """Kept for the backward pass: the head's inputs, s H each, and 16 a position for its choice.

    The logits of several chunks are recomputed. Those of a single chunk are not: they are in the sums below.
    """
    several = chunk_rows(shape, response_tokens) < response_tokens
    return response_tokens * ((widths.weights if several else 4) * shape.hidden + 16)


def head_forward_bytes(shape: Shape, widths: Widths, response_tokens: int) -> float:
    """The most that a chunk's forward pass holds at once."""
    return FORWARD_TABLES * _table(shape, response_tokens) + _float32_weights(shape, widths)


def head_backward_bytes(shape: Shape, widths: Widths, response_tokens: int) -> float:
    """The most that a chunk's backward pass holds at once, its own forward pass included.

    A chunk gives a gradient of the whole head, 4 V H. The second one is added to the first in a new tensor, because a
    view cannot be added to in place, and those after it to that sum. Only then the sum goes to the parameter's own
    gradient. So beside that there are up to three; or one, and all tables. And the inputs' gradient, s H a position.
    """
    s, table = widths.weights, _table(shape, response_tokens)
    one = head_gradient_bytes(shape, widths)
    new = (4 + (s if s != 4 else 0)) * shape.head if one else 0.0
    several = chunk_rows(shape, response_tokens) < response_tokens
    most = max(one + BACKWARD_TABLES * table, one + new + one) if several else max(BACKWARD_TABLES * table, new + table)
    return most + _float32_weights(shape, widths) + s * shape.hidden * response_tokens


def head_gradient_bytes(shape: Shape, widths: Widths) -> float:
    """The sum over the chunks. A tied head keeps it until the embedding's own gradient is there, at the very end."""
    return 0.0 if widths.adapter is not None else widths.weights * shape.head


def _table(shape: Shape, response_tokens: int) -> int:
    return 4 * chunk_rows(shape, response_tokens) * shape.vocabulary


def _float32_weights(shape: Shape, widths: Widths) -> int:
    return 0 if widths.weights == 4 else 4 * shape.head
