"""Ratio: the policy's probability over that of the policy that sampled. Pure functions, [B, T] -> [B, T].

B sequences, T token positions (already shifted). With one update a batch every ratio is 1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from grpo.algorithm.token_inputs import MAX_LOG_RATIO, response_mean
from grpo.shapes import same_shape

Ratio = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(log-probabilities, those of the policy that sampled, mask), all [B, T] -> ratio [B, T]."""


def token_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """exp(l - l_old) of each token: a difference of logarithms, not their quotient."""
    same_shape("[B, T]", logprobs=logprobs, old_logprobs=old_logprobs, mask=mask)
    return _exp(logprobs - old_logprobs)


def sequence_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """exp of the mean of (l - l_old) over the response, the same for all its tokens: GSPO (arXiv 2507.18071, eq. 7).

    >>> sequence_ratio(torch.tensor([[0.2, 0.4, 9.0]]), torch.zeros(1, 3), torch.tensor([[True, True, False]]))
    tensor([[1.3499, 1.3499, 1.3499]])
    """
    same_shape("[B, T]", logprobs=logprobs, old_logprobs=old_logprobs, mask=mask)
    return _exp(response_mean(logprobs - old_logprobs, mask)).expand_as(logprobs)


def product_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor) -> Tensor:
    """exp of the *sum* of (l - l_old) over the response: its probability over what it was, pi(o|q) / pi_old(o|q), as
    DeepSeek-R1 (arXiv 2501.12948) writes GRPO.

    It leaves any clip range after a few tokens: 200 tokens that each moved by 0.1% make 1.22. For short responses, and
    with `sequence_mean`, under which a response's tokens add up to one loss, as there.

    >>> product_ratio(torch.tensor([[0.2, 0.4, 9.0]]), torch.zeros(1, 3), torch.tensor([[True, True, False]]))
    tensor([[1.8221, 1.8221, 1.8221]])
    """
    same_shape("[B, T]", logprobs=logprobs, old_logprobs=old_logprobs, mask=mask)
    return _exp(((logprobs - old_logprobs) * mask).sum(dim=1, keepdim=True)).expand_as(logprobs)


def _exp(difference: Tensor) -> Tensor:
    return torch.exp(difference.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO))


RATIOS: dict[str, Ratio] = {"token": token_ratio, "sequence": sequence_ratio, "product": product_ratio}
"""What `--ratio` accepts."""
