"""The loss of a token: surrogate, importance weight, KL terms and entropy, as a row says.

B sequences, T token positions (already shifted). Pure functions on tensors; aggregations.py turns tokens into a number.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from grpo.algorithm.importance import importance_weight
from grpo.algorithm.kl import KL_ESTIMATORS, k3, old_kl
from grpo.algorithm.ratios import RATIOS, token_ratio
from grpo.algorithm.row import Algorithm
from grpo.algorithm.surrogates import SURROGATES
from grpo.algorithm.token_inputs import TokenInputs


@dataclass(frozen=True)
class TokenLoss:
    """A loss a token, [B, T], and what was measured on the way, all detached but the loss."""

    loss: Tensor
    """surrogate * importance + kl_coef * KL + old_kl_coef * old KL - entropy_coef * entropy."""
    clip_low: Tensor
    """bool: the ratio was cut from below."""
    clip_high: Tensor
    """bool: the ratio was cut from above."""
    clip_dual: Tensor
    """bool: a negative advantage met a ratio above the dual clip."""
    importance: Tensor
    """The weight for the gap between sampler and trainer, or 1."""
    importance_cut: Tensor
    """bool: that weight was truncated or masked."""
    kl: Tensor | None
    """k3 to the reference in all cases; None where there is no reference."""
    old_kl: Tensor
    """An estimate of KL(policy that sampled || policy); 0 where the ratio is 1."""


def policy_token_loss(inputs: TokenInputs, row: Algorithm) -> TokenLoss:
    """The loss of every token, from the ingredients that a row of the table names.

    Raises: ValueError where the KL or the entropy has a weight, and what it is computed from is missing.
    """
    kl_coef = row.kl_coef if row.kl_in == "loss" else 0.0
    if kl_coef and inputs.ref_logprobs is None:
        raise ValueError("a KL term needs the reference's log-probabilities")
    if row.entropy_coef and inputs.entropy is None:
        raise ValueError("an entropy bonus needs the entropies")
    logprobs, old_logprobs, mask = inputs.logprobs, inputs.old_logprobs, inputs.mask
    ratio = RATIOS[row.ratio](logprobs, old_logprobs, mask)
    policy = SURROGATES[row.surrogate](inputs, ratio, row)
    importance = importance_weight(inputs, row)
    loss = policy.loss * importance.weight
    if kl_coef:
        token = token_ratio(logprobs, old_logprobs, mask)
        loss = loss + kl_coef * KL_ESTIMATORS[row.kl_estimator](logprobs, inputs.ref_logprobs, token)
    from_old = old_kl(logprobs if row.old_kl_coef else logprobs.detach(), old_logprobs)
    if row.old_kl_coef:
        loss = loss + row.old_kl_coef * from_old
    if row.entropy_coef:
        loss = loss - row.entropy_coef * inputs.entropy
    return TokenLoss(
        loss=loss,
        clip_low=policy.clip_low,
        clip_high=policy.clip_high,
        clip_dual=policy.clip_dual,
        importance=importance.weight,
        importance_cut=importance.cut,
        kl=None if inputs.ref_logprobs is None else k3(logprobs, inputs.ref_logprobs).detach(),
        old_kl=from_old.detach(),
    )
