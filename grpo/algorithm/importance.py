"""What is done about a sampler whose log-probabilities are not exactly the trainer's.

w = exp(l_old - l_sampler) of a token, the trainer's probability over the sampler's. The weight that comes out, [B, T]
and detached, multiplies the policy's term of a token's loss, before the aggregation, and not its KL; a token that is
masked keeps its place in the aggregation's denominator.

| name            | weight of a token                                                                        |
|-----------------|------------------------------------------------------------------------------------------|
| `truncate`      | min(w, high): truncated importance sampling                                              |
| `mask`          | w where low <= w <= high, else 0 (IcePop)                                                |
| `sequence_mask` | min(w, 2), or 0 for all tokens of a response unless low <= exp(mean log w) <= high       |
| `none`          | 1                                                                                        |

The geometric mean of a sequence does not depend on its length; the product, which TRL and verl call `sequence`, does,
and masks long responses first. Under a sequence ratio all tokens of a response have the same surrogate, so that token
weights act on it through their mean. B sequences, T token positions (already shifted).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from grpo.algorithm.choices import LIMITS, limits
from grpo.algorithm.row import Algorithm
from grpo.algorithm.token_inputs import MAX_LOG_RATIO, TokenInputs, response_mean

TOKEN_CAP = LIMITS["truncate"][1]
"""Of the token weights that a sequence mask keeps."""


@dataclass(frozen=True)
class Importance:
    """[B, T] each, detached."""

    weight: Tensor
    cut: Tensor
    """bool: tokens whose weight was truncated or masked."""


def importance_weight(inputs: TokenInputs, row: Algorithm) -> Importance:
    """The weight of each token, and which were cut; 1 where the row corrects nothing or nobody knows the sampler's."""
    low, high = limits(row)
    ones = torch.ones_like(inputs.logprobs)
    if row.importance == "none" or row.importance_cap == 0 or inputs.sampler_logprobs is None:
        return Importance(ones, torch.zeros_like(inputs.mask))
    gap = (inputs.old_logprobs - inputs.sampler_logprobs).detach().clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    weight = torch.exp(gap)
    if row.importance == "truncate":
        return Importance(weight.clamp(max=high), weight > high)
    if row.importance == "mask":
        cut = (weight < low) | (weight > high)
        return Importance(weight.masked_fill(cut, 0.0), cut)
    mean = torch.exp(response_mean(gap, inputs.mask))
    cut = ((mean < low) | (mean > high)).expand_as(weight)
    return Importance(weight.clamp(max=TOKEN_CAP).masked_fill(cut, 0.0), cut | (weight > TOKEN_CAP))
