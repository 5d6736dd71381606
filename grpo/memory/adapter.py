"""A LoRA adapter's part of the memory: its numbers, and what it makes the forward pass keep.

K token positions, H hidden, I intermediate, Q and E numbers in the queries and in the keys of a token.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from grpo.memory.model_shape import Shape

LAYER = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The linear layers of a layer, as the models of KNOWN call them."""


@dataclass(frozen=True)
class Adapter:
    """An adapter of one rank beside the same linear layers of every layer."""

    rank: int
    weights: int = 4
    """Bytes of a number, and of its gradient."""
    targets: tuple[str, ...] = LAYER

    def parameters(self, shape: Shape) -> int:
        """rank * (in + out) for each matrix."""
        sizes = matrices(shape)
        return shape.layers * self.rank * sum(sum(sizes[target]) for target in self.targets)

    def has(self, *targets: str) -> bool:
        """Whether one of these has an adapter."""
        return bool(set(targets) & set(self.targets))

    @property
    def numbers(self) -> int:
        """Numbers that all A of a layer give for a token: B's inputs, which are kept."""
        return self.rank * len(self.targets)


def matrices(shape: Shape) -> dict[str, tuple[int, int]]:
    """(in, out) of the linear layers of a layer."""
    hidden, query, key, inner = shape.hidden, shape.query, shape.key, shape.intermediate
    both = (hidden, query), (hidden, key), (hidden, key), (query, hidden), (hidden, inner), (hidden, inner)
    return dict(zip(LAYER, (*both, (inner, hidden)), strict=True))


def known(targets: Iterable[str] | None) -> tuple[str, ...]:
    """Of --lora-targets, which may be ends of paths, the linear layers that are meant: in every layer, also where a
    path names one layer alone."""
    named = LAYER if targets is None else {target.rpartition(".")[2] for target in targets}
    return tuple(name for name in LAYER if name in named)
