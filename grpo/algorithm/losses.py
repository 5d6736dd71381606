"""The policy-gradient loss of a token: ratio, surrogate, importance correction, KL and entropy, as a row says.

B sequences, T token positions (already shifted). Pure functions on tensors; aggregations.py turns tokens into a number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from grpo.algorithm.kl import KL_ESTIMATORS, MAX_LOG_RATIO, k3
from grpo.algorithm.table import Algorithm
from grpo.shapes import is_mask, same_shape

# Ratio: the policy's probability over that of the policy that sampled [B, T] ------------------------------------


def token_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """exp(l - l_old) of each token: a difference of logarithms, not their quotient."""
    same_shape("[B, T]", logprobs=logprobs, old_logprobs=old_logprobs, mask=mask)
    return torch.exp((logprobs - old_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO))


def sequence_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """exp of the mean of (l - l_old) over the response, the same for all its tokens: GSPO (arXiv 2507.18071, eq. 7).

    >>> sequence_ratio(torch.tensor([[0.2, 0.4, 9.0]]), torch.zeros(1, 3), torch.tensor([[True, True, False]]))
    tensor([[1.3499, 1.3499, 1.3499]])
    """
    same_shape("[B, T]", logprobs=logprobs, old_logprobs=old_logprobs, mask=mask)
    lengths = mask.sum(dim=1, keepdim=True).clamp(min=1)
    mean = ((logprobs - old_logprobs) * mask).sum(dim=1, keepdim=True) / lengths
    return torch.exp(mean.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)).expand_as(logprobs)


RATIOS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"token": token_ratio, "sequence": sequence_ratio}
"""What `--ratio` accepts."""

# Surrogate: what is minimised per token, and which tokens were clipped -------------------------------------------


@dataclass(frozen=True)
class Surrogate:
    """[B, T] each; the two masks are of tokens whose gradient was cut (or, for CISPO, limited) on that side."""

    loss: Tensor
    clip_low: Tensor
    clip_high: Tensor


def naive(logprobs: Tensor, ratio: Tensor, advantage: Tensor, row: Algorithm) -> Surrogate:
    """-A l: REINFORCE, right only for the policy that sampled (CS336 lecture 17, `naive`)."""
    return _unclipped(-advantage * logprobs)


def unclipped(logprobs: Tensor, ratio: Tensor, advantage: Tensor, row: Algorithm) -> Surrogate:
    """-ratio A (CS336 lecture 17, `unclipped`, with the ratio as exp of the difference)."""
    return _unclipped(-ratio * advantage)


def clipped(logprobs: Tensor, ratio: Tensor, advantage: Tensor, row: Algorithm) -> Surrogate:
    """-min(ratio A, clip(ratio, 1 - clip_low, 1 + clip_high) A): PPO (arXiv 1707.06347), GRPO (2402.03300, eq. 3)."""
    low, high = 1 - row.clip_low, 1 + row.clip_high
    return Surrogate(
        loss=-torch.minimum(ratio * advantage, ratio.clamp(low, high) * advantage),
        clip_low=(ratio < low) & (advantage < 0),
        clip_high=(ratio > high) & (advantage > 0),
    )


def cispo(logprobs: Tensor, ratio: Tensor, advantage: Tensor, row: Algorithm) -> Surrogate:
    """-sg(min(ratio, ratio_cap)) A l: no token loses its gradient (MiniMax-M1, arXiv 2506.13585, eq. 4)."""
    weight = ratio.detach().clamp(max=row.ratio_cap)
    above = ratio > row.ratio_cap
    return Surrogate(-weight * advantage * logprobs, torch.zeros_like(above), above)


def _unclipped(loss: Tensor) -> Surrogate:
    nothing = torch.zeros_like(loss, dtype=torch.bool)
    return Surrogate(loss, nothing, nothing)


SURROGATES: dict[str, Callable[[Tensor, Tensor, Tensor, Algorithm], Surrogate]] = {
    "naive": naive,
    "unclipped": unclipped,
    "clipped": clipped,
    "cispo": cispo,
}
"""What `--surrogate` accepts."""

# The whole -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TokenInputs:
    """What the loss of a token is made of; all [B, T]."""

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


@dataclass(frozen=True)
class TokenLoss:
    """A loss a token, [B, T], and what was measured on the way, all detached but the loss."""

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


def policy_token_loss(inputs: TokenInputs, row: Algorithm) -> TokenLoss:
    """The loss of every token, from the ingredients that a row of the table names.

    The importance weight corrects for a sampler whose log-probabilities are not exactly the trainer's ("truncated
    importance sampling"): detached, capped, and applied to the policy term but not to the KL.

    Raises: ValueError where the KL or the entropy has a weight, and what it is computed from is missing.
    """
    kl_coef = row.kl_coef if row.kl_in == "loss" else 0.0
    if kl_coef and inputs.ref_logprobs is None:
        raise ValueError("a KL term needs the reference's log-probabilities")
    if row.entropy_coef and inputs.entropy is None:
        raise ValueError("an entropy bonus needs the entropies")
    logprobs, old_logprobs, mask = inputs.logprobs, inputs.old_logprobs, inputs.mask
    ratio = RATIOS[row.ratio](logprobs, old_logprobs, mask)
    policy = SURROGATES[row.surrogate](logprobs, ratio, inputs.advantages, row)
    importance = importance_weight(inputs, row)
    loss = policy.loss * importance
    if kl_coef:
        token = token_ratio(logprobs, old_logprobs, mask)
        loss = loss + kl_coef * KL_ESTIMATORS[row.kl_estimator](logprobs, inputs.ref_logprobs, token)
    if row.entropy_coef:
        loss = loss - row.entropy_coef * inputs.entropy
    return TokenLoss(
        loss=loss,
        clip_low=policy.clip_low,
        clip_high=policy.clip_high,
        kl=None if inputs.ref_logprobs is None else k3(logprobs, inputs.ref_logprobs).detach(),
        importance=importance,
    )


def importance_weight(inputs: TokenInputs, row: Algorithm) -> Tensor:
    """[B, T]: min(exp(l_old - l_sampler), cap) where the row corrects for the sampler, else 1; detached."""
    if not row.importance_cap or inputs.sampler_logprobs is None:
        return torch.ones_like(inputs.logprobs)
    gap = (inputs.old_logprobs - inputs.sampler_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return torch.exp(gap).clamp(max=row.importance_cap).detach()
