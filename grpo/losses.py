"""The clipped policy-gradient loss, in parts: aggregation weights, ratio and clip, KL estimators.

B sequences, T token positions (already shifted), m the response mask, |o| a response's tokens. Pure functions. The
loss is always `(weights * token_loss).sum()`: the weights are computed once for a whole optimizer batch, before it is
cut into micro-batches, so that micro-batch losses simply add and the gradient cannot depend on the cut.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_LOG_RATIO = 20.0
"""Differences of log-probabilities are clamped here before exp: e^20 is far outside any clip range, yet finite, so
that one token gone astray cannot turn a step into inf or NaN."""

# Aggregation: mask [B, T] -> weights [B, T] ----------------------------------------------------------------------


def sequence_mean(mask: Tensor, constant: float) -> Tensor:
    """1 / (B |o|): GRPO (arXiv 2402.03300, eq. 3). Each response weighs the same, so a token of a long one weighs
    less: long wrong answers are punished less per token, the length bias that Dr. GRPO removes. `constant` is unused.

    A sequence with an empty mask stays in B and has weight 0.

    >>> sequence_mean(torch.tensor([[True, True], [True, False]]), 0)
    tensor([[0.2500, 0.2500],
            [0.5000, 0.0000]])
    """
    lengths = mask.sum(dim=1, keepdim=True).clamp(min=1)
    return mask.float() / (mask.shape[0] * lengths)


def constant_length(mask: Tensor, constant: float) -> Tensor:
    """1 / (B C): Dr. GRPO (arXiv 2503.20783, section 3.2). C is a constant, by default the generation budget, never
    the batch's longest response and never the padded width.

    >>> constant_length(torch.tensor([[True, True], [True, False]]), 4)
    tensor([[0.1250, 0.1250],
            [0.1250, 0.0000]])
    """
    return mask.float() / (mask.shape[0] * constant)


def token_mean(mask: Tensor, constant: float) -> Tensor:
    """1 / (response tokens of the optimizer batch): each token weighs the same (DAPO, arXiv 2503.14476, eq. 8).
    `constant` is unused.

    >>> token_mean(torch.tensor([[True, True], [True, False]]), 0)
    tensor([[0.3333, 0.3333],
            [0.3333, 0.0000]])
    """
    return mask.float() / mask.sum().clamp(min=1)


AGGREGATIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "sequence_mean": sequence_mean,
    "constant": constant_length,
    "token_mean": token_mean,
}
"""What `--aggregation` accepts."""

# KL estimators: log-probabilities [B, T] -> [B, T] ---------------------------------------------------------------


def k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """d = l - l_ref: unbiased as a value, but as a loss term its expected gradient is zero."""
    return logprobs - ref_logprobs


def k2(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """d^2 / 2: as a loss term on-policy, its expected gradient is that of KL(policy || reference)."""
    return (logprobs - ref_logprobs).square() / 2


def k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """exp(-d) - 1 + d, never negative (arXiv 2402.03300, eq. 4; Schulman, "Approximating KL divergence").

    As a loss term on-policy, its expected gradient is that of the forward KL(reference || policy).

    >>> k3(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.0]))
    tensor([0.0000, 0.3679])
    """
    difference = (logprobs - ref_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    # expm1 keeps the digits that exp(-d) - 1 cancels where policy and reference nearly agree.
    return torch.expm1(-difference) + difference


KL_ESTIMATORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"k1": k1, "k2": k2, "k3": k3}
"""What `--kl-estimator` accepts."""

# The loss --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TokenLoss:
    """A per-token loss [B, T] and what was measured on the way, all detached but the loss."""

    loss: Tensor
    """-min(ratio * A, clip(ratio) * A) * importance + kl_coef * KL."""
    clip_low: Tensor
    """bool: the ratio fell below 1 - clip_low where A < 0, so that the token has no gradient."""
    clip_high: Tensor
    """bool: the ratio rose above 1 + clip_high where A > 0, so that the token has no gradient."""
    kl: Tensor | None
    """k3 to the reference in all cases; None where there is no reference."""
    importance: Tensor
    """The truncated importance weight min(exp(l_old - l_sampler), cap), or 1."""


def clipped_token_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    sampler_logprobs: Tensor | None = None,
    importance_cap: float | None = None,
    ref_logprobs: Tensor | None = None,
    kl_coef: float = 0.0,
    kl_estimator: str = "k3",
) -> TokenLoss:
    """The clipped surrogate of PPO and GRPO per token (arXiv 2402.03300, eq. 3), with KL in the loss.

    ratio = exp(l - l_old), a difference of logarithms and not their ratio. The importance weight corrects for a
    sampler whose log-probabilities are not exactly the trainer's ("truncated importance sampling"): detached, capped,
    and applied to the policy term but not to the KL.

    Shapes: log-probabilities [B, T]; advantages [B]. `kl_coef` > 0 needs `ref_logprobs`.
    """
    if logprobs.ndim != 2 or advantages.shape != logprobs.shape[:1]:
        raise ValueError(f"want logprobs [B, T], advantages [B]; got {logprobs.shape} and {advantages.shape}")
    if kl_coef and ref_logprobs is None:
        raise ValueError("a KL term needs the reference's log-probabilities")
    advantage = advantages[:, None]
    ratio = torch.exp((logprobs - old_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO))
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(1 - clip_low, 1 + clip_high) * advantage)

    importance = torch.ones_like(ratio)
    if importance_cap is not None and sampler_logprobs is not None:
        importance = torch.exp(old_logprobs - sampler_logprobs).clamp(max=importance_cap).detach()
    loss = -surrogate * importance
    kl = None
    if ref_logprobs is not None:
        kl = k3(logprobs, ref_logprobs).detach()
        if kl_coef:
            loss = loss + kl_coef * KL_ESTIMATORS[kl_estimator](logprobs, ref_logprobs)
    ratio = ratio.detach()
    return TokenLoss(
        loss=loss,
        clip_low=(ratio < 1 - clip_low) & (advantage < 0),
        clip_high=(ratio > 1 + clip_high) & (advantage > 0),
        kl=kl,
        importance=importance,
    )
