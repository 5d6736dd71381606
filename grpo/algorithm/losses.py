"""The policy-gradient loss per token: ratio, surrogate, importance correction, KL and entropy.

B sequences, T token positions (already shifted). Pure functions on tensors; aggregations.py turns tokens into a number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from grpo.algorithm.kl import KL_ESTIMATORS, MAX_LOG_RATIO, k3

# Ratio: the policy's probability over that of the policy that sampled [B, T] ------------------------------------


def token_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """exp(l - l_old) of each token: a difference of logarithms, not their quotient."""
    return torch.exp((logprobs - old_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO))


def sequence_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """exp of the mean of (l - l_old) over the response, the same for all its tokens: GSPO (arXiv 2507.18071, eq. 7).

    >>> sequence_ratio(torch.tensor([[0.2, 0.4, 9.0]]), torch.zeros(1, 3), torch.tensor([[True, True, False]]))
    tensor([[1.3499, 1.3499, 1.3499]])
    """
    lengths = mask.sum(dim=1, keepdim=True).clamp(min=1)
    mean = ((logprobs - old_logprobs) * mask).sum(dim=1, keepdim=True) / lengths
    return torch.exp(mean.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)).expand_as(logprobs)


RATIOS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"token": token_ratio, "sequence": sequence_ratio}
"""What `--ratio` accepts."""

# Surrogate: what is minimised per token, and which tokens were clipped -------------------------------------------


@dataclass(frozen=True)
class Bounds:
    """Limits of the ratio."""

    low: float
    """The ratio is clipped below at 1 - low ..."""
    high: float
    """... and above at 1 + high."""
    cap: float | None = None
    """CISPO's limit: absolute, not relative to 1."""


@dataclass(frozen=True)
class Surrogate:
    """[B, T] each; the two masks are of tokens whose gradient was cut (or, for CISPO, limited) on that side."""

    loss: Tensor
    clip_low: Tensor
    clip_high: Tensor


def naive(logprobs: Tensor, ratio: Tensor, advantage: Tensor, bounds: Bounds) -> Surrogate:
    """-A l: REINFORCE, right only for the policy that sampled (CS336 lecture 17, `naive`)."""
    return _unclipped(-advantage * logprobs)


def unclipped(logprobs: Tensor, ratio: Tensor, advantage: Tensor, bounds: Bounds) -> Surrogate:
    """-ratio A (CS336 lecture 17, `unclipped`, with the ratio as exp of the difference)."""
    return _unclipped(-ratio * advantage)


def clipped(logprobs: Tensor, ratio: Tensor, advantage: Tensor, bounds: Bounds) -> Surrogate:
    """-min(ratio A, clip(ratio, 1 - low, 1 + high) A): PPO and GRPO (arXiv 1707.06347, eq. 7; 2402.03300, eq. 3)."""
    low, high = 1 - bounds.low, 1 + bounds.high
    return Surrogate(
        loss=-torch.minimum(ratio * advantage, ratio.clamp(low, high) * advantage),
        clip_low=(ratio < low) & (advantage < 0),
        clip_high=(ratio > high) & (advantage > 0),
    )


def cispo(logprobs: Tensor, ratio: Tensor, advantage: Tensor, bounds: Bounds) -> Surrogate:
    """-sg(min(ratio, cap)) A l: no token loses its gradient (MiniMax-M1, arXiv 2506.13585, eq. 4)."""
    weight = ratio.detach().clamp(max=bounds.cap)
    above = ratio > bounds.cap
    return Surrogate(-weight * advantage * logprobs, torch.zeros_like(above), above)


def _unclipped(loss: Tensor) -> Surrogate:
    nothing = torch.zeros_like(loss, dtype=torch.bool)
    return Surrogate(loss, nothing, nothing)


SURROGATES: dict[str, Callable[[Tensor, Tensor, Tensor, Bounds], Surrogate]] = {
    "naive": naive,
    "unclipped": unclipped,
    "clipped": clipped,
    "cispo": cispo,
}
"""What `--surrogate` accepts."""

# The whole -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TokenLoss:
    """A per-token loss [B, T] and what was measured on the way, all detached but the loss."""

    loss: Tensor
    """surrogate * importance + kl_coef * KL - entropy_coef * entropy."""
    clip_low: Tensor
    """bool: the ratio was cut from below."""
    clip_high: Tensor
    """bool: the ratio was cut from above."""
    kl: Tensor | None
    """k3 to the reference in all cases; None where there is no reference."""
    importance: Tensor
    """The truncated importance weight min(exp(l_old - l_sampler), cap), or 1."""


def policy_token_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    bounds: Bounds,
    *,
    ratio: str = "token",
    surrogate: str = "clipped",
    sampler_logprobs: Tensor | None = None,
    importance_cap: float | None = None,
    ref_logprobs: Tensor | None = None,
    kl_coef: float = 0.0,
    kl_estimator: str = "k3",
    entropy: Tensor | None = None,
    entropy_coef: float = 0.0,
) -> TokenLoss:
    """The loss of every token, from its ingredients by name.

    The importance weight corrects for a sampler whose log-probabilities are not exactly the trainer's ("truncated
    importance sampling"): detached, capped, and applied to the policy term but not to the KL.

    Shapes: log-probabilities, mask and entropy [B, T]; advantages [B]. `kl_coef` > 0 needs `ref_logprobs`.
    """
    if logprobs.ndim != 2 or advantages.shape != logprobs.shape[:1] or mask.shape != logprobs.shape:
        raise ValueError(f"want logprobs and mask [B, T], advantages [B]; got {logprobs.shape}, {advantages.shape}")
    if kl_coef and ref_logprobs is None:
        raise ValueError("a KL term needs the reference's log-probabilities")
    ratios = RATIOS[ratio](logprobs, old_logprobs, mask)
    policy = SURROGATES[surrogate](logprobs, ratios, advantages[:, None], bounds)
    importance = torch.ones_like(ratios)
    if importance_cap is not None and sampler_logprobs is not None:
        gap = (old_logprobs - sampler_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
        importance = torch.exp(gap).clamp(max=importance_cap).detach()
    loss = policy.loss * importance
    if kl_coef:
        token = token_ratio(logprobs, old_logprobs, mask)
        loss = loss + kl_coef * KL_ESTIMATORS[kl_estimator](logprobs, ref_logprobs, token)
    if entropy_coef:
        loss = loss - entropy_coef * entropy
    return TokenLoss(
        loss=loss,
        clip_low=policy.clip_low,
        clip_high=policy.clip_high,
        kl=None if ref_logprobs is None else k3(logprobs, ref_logprobs).detach(),
        importance=importance,
    )
