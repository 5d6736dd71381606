"""KL to the frozen reference: estimators per token, and the KL in the reward; and PPO's KL to the policy that sampled.

B sequences, T token positions. d = l - l_ref, D the sum of d over a response, |o| its tokens, N those of the optimizer
batch, C the constant. On-policy (one update on responses drawn from the policy itself) the expected gradient is exactly
that of the following, which tests/algorithm/test_kl_of_sequences.py enumerates.

| term                  | `constant`                     | `sequence_mean`; `token_mean`               |
|-----------------------|--------------------------------|---------------------------------------------|
| k1 = d                | nothing: it is zero            | E[1/|o|]; E[1/N]: no KL, longer responses   |
| k2 = d^2 / 2          | next-token reverse KL / C      | next-token reverse KL, weighted             |
| k3 = exp(-d) - 1 + d  | next-token forward KL / C      | next-token forward KL, weighted             |
| k3 times the ratio    | that of k2, token by token     | that of k2, token by token                  |
| k1 in the reward      | the sequence's reverse KL / C  | a price: D/|o|; B D/N                       |

- Next-token KL: of policy(.|s) and ref(.|s), added up over the prefixes s that the policy visits, with the visits held
  fixed. Of the gradient of the sequence's reverse KL that is a part; the rest, that a token decides which prefixes
  follow, is missing (arXiv 2506.09477). The sequence's forward KL would go by the reference's visits.
- Weighted: the share of token v in it (for k2: p log(p/q) - p + q, p the policy's and q the reference's probability)
  weighs E[1/|o|] or E[B/N] once v is taken, held fixed. A token that stops weighs more than one that goes on: no
  longer the KL, though still nothing where policy and reference agree. At large B `token_mean` comes to what `constant`
  is with C = E|o|, and k1's pull to longer responses falls as 1/B.
- Price: the policy gradient of D/|o| with D held fixed, less a baseline over the same |o|; a long response pays less.
- In the reward, advantages raw and leave_one_out give what the table says, centered (G - 1)/G of it. Over the group's
  standard deviation it is no KL: only its size beside the spread of the other rewards counts.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from grpo.algorithm.token_inputs import MAX_LOG_RATIO
from grpo.shapes import same_shape

KLEstimator = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(log-probabilities, the reference's, ratio to the sampling policy), all [B, T] -> [B, T]."""


def k1(logprobs: Tensor, ref_logprobs: Tensor, ratio: Tensor) -> Tensor:
    """d: unbiased as a value, but no penalty as a loss term. Its gradient is that of log-likelihood, so that the
    reference drops out: zero in expectation, or a pull to longer responses where the weights depend on the length."""
    same_shape("[...]", logprobs=logprobs, ref_logprobs=ref_logprobs)
    return logprobs - ref_logprobs


def k2(logprobs: Tensor, ref_logprobs: Tensor, ratio: Tensor) -> Tensor:
    """d^2 / 2 (Schulman, "Approximating KL divergence"): on-policy, the next token's reverse KL by its gradient."""
    same_shape("[...]", logprobs=logprobs, ref_logprobs=ref_logprobs)
    return (logprobs - ref_logprobs).square() / 2


def k3(logprobs: Tensor, ref_logprobs: Tensor, ratio: Tensor | None = None) -> Tensor:
    """exp(-d) - 1 + d, never negative (arXiv 2402.03300, eq. 4): unbiased for the reverse KL as a value, yet on-policy
    the next token's forward KL by its gradient.

    >>> k3(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 0.0]]))
    tensor([[0.0000, 0.3679]])
    """
    same_shape("[...]", logprobs=logprobs, ref_logprobs=ref_logprobs)
    difference = (logprobs - ref_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    # expm1 keeps the digits that exp(-d) - 1 cancels where policy and reference nearly agree.
    return torch.expm1(-difference) + difference


def k3_ratio(logprobs: Tensor, ref_logprobs: Tensor, ratio: Tensor) -> Tensor:
    """k3 times the ratio, both differentiated: the next token's reverse KL by value and by gradient, off-policy too
    (there at the prefixes that the sampling policy visits)."""
    return ratio * k3(logprobs, ref_logprobs)


KL_ESTIMATORS: dict[str, KLEstimator] = {"k1": k1, "k2": k2, "k3": k3, "k3_ratio": k3_ratio}
"""What `--kl-estimator` accepts."""


def response_kl(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor) -> Tensor:
    """[B]: D, k1 summed over a response, which an algorithm with KL in the reward subtracts from it."""
    same_shape("[B, T]", logprobs=logprobs, ref_logprobs=ref_logprobs, mask=mask)
    return ((logprobs - ref_logprobs) * mask).sum(dim=1)


def old_kl(logprobs: Tensor, old_logprobs: Tensor) -> Tensor:
    """ratio - 1 - log ratio, [B, T]: of KL(policy that sampled || policy) unbiased by value and by gradient, since the
    tokens are drawn from the first of the two (PPO's penalty, arXiv 1707.06347, section 4).

    Zero, and without a gradient, while the policy is the one that sampled: at the first update of a batch.

    >>> old_kl(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 0.0]]))
    tensor([[0.0000, 0.7183]])
    """
    same_shape("[...]", logprobs=logprobs, old_logprobs=old_logprobs)
    difference = (logprobs - old_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return torch.expm1(difference) - difference
