"""Surrogate: what is minimised per token, and which tokens were clipped. Pure functions on [B, T] tensors.

B sequences, T token positions (already shifted). A is the advantage, l the log-probability, sg() holds fixed. At a
ratio of 1 every one of them has the gradient of -A l (of a response's sum with the ratio `product`); they differ from
the second update on a batch on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from grpo.algorithm.row import Algorithm
from grpo.algorithm.token_inputs import MAX_LOG_RATIO, TokenInputs, response_mean


@dataclass(frozen=True)
class Surrogate:
    """[B, T] each; the masks are of tokens whose gradient was cut (or, for CISPO, limited) for that reason."""

    loss: Tensor
    clip_low: Tensor
    """bool: the ratio is below the range, and the advantage negative."""
    clip_high: Tensor
    """bool: the ratio is above the range, and the advantage positive (CISPO: of either sign)."""
    clip_dual: Tensor
    """bool: the ratio is above the dual clip, and the advantage negative."""


SurrogateFunction = Callable[[TokenInputs, Tensor, Algorithm], Surrogate]
"""(what a token's loss is made of, the row's ratio [B, T], the row with its limits) -> Surrogate."""


def naive(inputs: TokenInputs, ratio: Tensor, row: Algorithm) -> Surrogate:
    """-A l: REINFORCE, right only for the policy that sampled (CS336 lecture 17, `naive`)."""
    return _nothing_clipped(-inputs.advantages * inputs.logprobs)


def unclipped(inputs: TokenInputs, ratio: Tensor, row: Algorithm) -> Surrogate:
    """-ratio A (CS336 lecture 17, `unclipped`, with the ratio as exp of the difference)."""
    return _nothing_clipped(-ratio * inputs.advantages)


def clipped(inputs: TokenInputs, ratio: Tensor, row: Algorithm) -> Surrogate:
    """-min(ratio A, clip(ratio, 1 - clip_low, 1 + clip_high) A): PPO (arXiv 1707.06347), GRPO (2402.03300, eq. 3).

    With a dual clip c, -max(that minimum, c A) where A is negative: without it one token of a wrong answer that has
    become ten times as likely has ten times the loss and the gradient (arXiv 1912.09729; verl `clip_ratio_c`, TRL
    `delta`).
    """
    advantage, low, high = inputs.advantages, 1 - row.clip_low, 1 + row.clip_high
    loss = -torch.minimum(ratio * advantage, ratio.clamp(low, high) * advantage)
    clip_dual = torch.zeros_like(inputs.mask)
    if row.dual_clip:
        clip_dual = (ratio > row.dual_clip) & (advantage < 0)
        loss = torch.where(clip_dual, -row.dual_clip * advantage, loss)
    return Surrogate(loss, (ratio < low) & (advantage < 0), (ratio > high) & (advantage > 0), clip_dual)


def cispo(inputs: TokenInputs, ratio: Tensor, row: Algorithm) -> Surrogate:
    """-sg(min(ratio, ratio_cap)) A l: no token loses its gradient (MiniMax-M1, arXiv 2506.13585, eq. 4)."""
    weight, above = ratio.detach().clamp(max=row.ratio_cap), ratio > row.ratio_cap
    nothing = torch.zeros_like(above)
    return Surrogate(-weight * inputs.advantages * inputs.logprobs, nothing, above, nothing)


def geometric(inputs: TokenInputs, ratio: Tensor, row: Algorithm) -> Surrogate:
    """-A exp(mean over the response of clipped l - l_old): GMPO (arXiv 2507.20673).

    Each token's logarithm is clipped before the mean, above at clip_high where A is positive, below at -clip_low where
    it is negative: one token gone astray cannot move the response's ratio far. The row's ratio is not read.
    """
    advantage = inputs.advantages
    difference = (inputs.logprobs - inputs.old_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    kept = torch.where(advantage > 0, difference.clamp(max=row.clip_high), difference.clamp(min=-row.clip_low))
    loss = -advantage * torch.exp(response_mean(kept, inputs.mask))
    clip_low = (difference < -row.clip_low) & (advantage < 0)
    clip_high = (difference > row.clip_high) & (advantage > 0)
    return Surrogate(loss, clip_low, clip_high, torch.zeros_like(clip_low))


def soft_gate(inputs: TokenInputs, ratio: Tensor, row: Algorithm) -> Surrogate:
    """-A (4 / tau) sigmoid(tau (ratio - 1)): SAPO (arXiv 2511.20347), a gate that closes softly on both sides.

    tau is gate_positive where A is positive, else gate_negative. At a ratio of 1 the gradient is that of -A l for any
    tau; the value, -2 A / tau, means nothing by itself.
    """
    advantage = inputs.advantages
    temperature = torch.where(advantage > 0, row.gate_positive, row.gate_negative)
    return _nothing_clipped(-advantage * torch.sigmoid(temperature * (ratio - 1)) * 4 / temperature)


def _nothing_clipped(loss: Tensor) -> Surrogate:
    nothing = torch.zeros_like(loss, dtype=torch.bool)
    return Surrogate(loss, nothing, nothing, nothing)


SURROGATES: dict[str, SurrogateFunction] = {
    "naive": naive,
    "unclipped": unclipped,
    "clipped": clipped,
    "cispo": cispo,
    "geometric": geometric,
    "soft_gate": soft_gate,
}
"""What `--surrogate` accepts."""
