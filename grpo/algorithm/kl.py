"""KL to the frozen reference: estimators per token, KL in the reward, and a weight that seeks a target.

B sequences, T token positions. With d = l - l_ref, on-policy (tokens drawn from the policy itself), exact expectations:

| as a loss term        | its expected gradient is that of   |
|-----------------------|------------------------------------|
| k1 = d                | nothing: it is zero                |
| k2 = d^2 / 2          | the reverse KL(policy || ref)      |
| k3 = exp(-d) - 1 + d  | the forward KL(ref || policy)      |
| k3 times the ratio    | the reverse KL                     |
| k1 in the reward      | the reverse KL                     |
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from grpo.shapes import same_shape

MAX_LOG_RATIO = 20.0
"""Differences of log-probabilities are clamped here before exp: e^20 is far outside any clip range, yet finite, so
that one token gone astray cannot turn a step into inf or NaN."""

KLEstimator = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(log-probabilities, the reference's, ratio to the sampling policy), all [B, T] -> [B, T]."""


def k1(logprobs: Tensor, ref_logprobs: Tensor, ratio: Tensor) -> Tensor:
    """d: unbiased as a value, but as a loss term its expected gradient is zero."""
    return logprobs - ref_logprobs


def k2(logprobs: Tensor, ref_logprobs: Tensor, ratio: Tensor) -> Tensor:
    """d^2 / 2 (Schulman, "Approximating KL divergence")."""
    return (logprobs - ref_logprobs).square() / 2


def k3(logprobs: Tensor, ref_logprobs: Tensor, ratio: Tensor | None = None) -> Tensor:
    """exp(-d) - 1 + d, never negative (arXiv 2402.03300, eq. 4).

    >>> k3(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.0]))
    tensor([0.0000, 0.3679])
    """
    difference = (logprobs - ref_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    # expm1 keeps the digits that exp(-d) - 1 cancels where policy and reference nearly agree.
    return torch.expm1(-difference) + difference


def k3_ratio(logprobs: Tensor, ref_logprobs: Tensor, ratio: Tensor) -> Tensor:
    """k3 times the ratio, both differentiated: right as a value off-policy too, and of the reverse KL's gradient."""
    return ratio * k3(logprobs, ref_logprobs)


KL_ESTIMATORS: dict[str, KLEstimator] = {"k1": k1, "k2": k2, "k3": k3, "k3_ratio": k3_ratio}
"""What `--kl-estimator` accepts."""

KL_PLACES = ("loss", "reward")
"""What `--kl-in` accepts."""


def response_kl(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor) -> Tensor:
    """[B]: k1 summed over a response, which an algorithm with KL in the reward subtracts from it."""
    same_shape("[B, T]", logprobs=logprobs, ref_logprobs=ref_logprobs, mask=mask)
    return ((logprobs - ref_logprobs) * mask).sum(dim=1)


class KLCoefficient:
    """The weight of the KL: constant, or adapted to a target as in PPO (arXiv 1707.06347, section 4).

    Above 1.5 times the target the weight doubles, below the target over 1.5 it halves.
    """

    def __init__(self, value: float, target: float | None = None) -> None:
        self.value = value
        self.target = target

    def update(self, measured: float) -> None:
        """Adapt to the KL of the step, nats a token."""
        if self.target is None:
            return
        if measured > 1.5 * self.target:
            self.value *= 2
        elif measured < self.target / 1.5:
            self.value /= 2
