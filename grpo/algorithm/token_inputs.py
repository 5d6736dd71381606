"""What the loss of a token is made of, checked once.

B sequences, T token positions (already shifted).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from grpo.shapes import is_mask, same_shape

MAX_LOG_RATIO = 20.0
"""Differences of log-probabilities are clamped here before exp: e^20 is far outside any clip range, yet finite, so
that one token gone astray cannot turn a step into inf or NaN."""


@dataclass(frozen=True)
class TokenInputs:
    """All [B, T]."""

    logprobs: Tensor
    """The policy's, differentiable."""
    old_logprobs: Tensor
    """Those of the policy that sampled."""
    advantages: Tensor
    mask: Tensor
    """bool: response tokens that are trained on."""
    sampler_logprobs: Tensor | None = None
    """The engine's own; None: no importance correction."""
    ref_logprobs: Tensor | None = None
    """Those of the frozen reference; needed where the KL has a weight."""
    entropy: Tensor | None = None
    """Of the policy's distribution at each position; needed where the entropy has a weight."""

    def __post_init__(self) -> None:
        """Raises: ValueError naming the argument of another shape, or a mask that is not bool."""
        is_mask("mask", self.mask)
        given = {name: value for name, value in vars(self).items() if value is not None}
        same_shape("[B, T]", **given)


def response_mean(values: Tensor, mask: Tensor) -> Tensor:
    """[B, T] -> [B, 1]: the mean over each response's tokens; 0 where it has none.

    >>> import torch
    >>> response_mean(torch.tensor([[1.0, 2.0, 9.0]]), torch.tensor([[True, True, False]]))
    tensor([[1.5000]])
    """
    same_shape("[B, T]", values=values, mask=mask)
    return (values * mask).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True).clamp(min=1)
