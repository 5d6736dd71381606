"""Shapes, checked once where a tensor enters a function, so that a slip is an error and not a broadcast."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def same_shape(dimensions: str, **tensors: Tensor) -> None:
    """All tensors have the rank of `dimensions`, such as "[B, T]" ("[...]": any), and the shape of the first of them.

    Raises: ValueError naming the argument that is wrong.

    >>> same_shape("[B, T]", logprobs=torch.zeros(2, 3), mask=torch.zeros(2, 1))
    Traceback (most recent call last):
    ValueError: mask must be [B, T] = [2, 3], as logprobs is, but its shape is [2, 1]
    """
    (first_name, first), *others = tensors.items()
    rank = dimensions.count(",") + 1
    if dimensions != "[...]" and first.ndim != rank:
        raise ValueError(f"{first_name} must be {dimensions}, but its shape is {list(first.shape)}")
    for name, tensor in others:
        if tensor.shape != first.shape:
            raise ValueError(
                f"{name} must be {dimensions} = {list(first.shape)}, as {first_name} is, but its shape is "
                f"{list(tensor.shape)}"
            )


def of_shape(name: str, tensor: Tensor, dimensions: str, shape: Sequence[int]) -> Tensor:
    """The tensor, where it has exactly this shape. Raises: ValueError naming it otherwise."""
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{name} must be a tensor {dimensions} = {list(shape)}, not a {type(tensor).__name__}")
    if list(tensor.shape) != list(shape):
        raise ValueError(f"{name} must be {dimensions} = {list(shape)}, but its shape is {list(tensor.shape)}")
    return tensor


def is_mask(name: str, mask: Tensor) -> None:
    """A mask is bool [B, T]: sums over numbers would pass for counts. Raises: ValueError naming it otherwise."""
    if mask.ndim != 2 or mask.dtype is not torch.bool:
        raise ValueError(f"{name} must be a bool tensor [B, T], not {mask.dtype} of shape {list(mask.shape)}")
