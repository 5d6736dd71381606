"""Tensors that rest in the host's memory, and come to the card for as long as they are used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def host_copy(tensor: Tensor, *, pinned: bool) -> Tensor:
    """A copy in the host's memory; pinned: where a card can read and write it without waiting."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned).copy_(tensor)


def rest_on_host(module: nn.Module) -> None:
    """Move a module's parameters and buffers to the host's memory, pinned where they came from a card."""
    for tensor in tensors(module):
        tensor.data = host_copy(tensor.data, pinned=tensor.is_cuda)


@contextmanager
def visiting(module: nn.Module, move: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within it a module's parameters and buffers are where `move` takes them; what is done to them there is lost."""
    at_rest = [(tensor, tensor.data) for tensor in tensors(module)]
    try:
        for tensor, data in at_rest:
            tensor.data = move(data)
        yield
    finally:
        for tensor, data in at_rest:
            tensor.data = data


def tensors(module: nn.Module) -> list[Tensor]:
    """Its parameters and buffers, each once, also where two modules share it."""
    return [*module.parameters(), *module.buffers()]
