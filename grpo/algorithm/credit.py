"""Which token earned the reward: rewards [P, G] -> advantages [B, T].

A response is compared with its group, and every token of it carries the response's advantage. P problems a step,
G responses a problem, B = P * G sequences, T token positions (already shifted).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from grpo.algorithm.advantages import Advantage
from grpo.algorithm.kl import response_kl
from grpo.algorithm.table import Algorithm
from grpo.records import Batch
from grpo.shapes import of_shape, same_shape


@dataclass(frozen=True)
class Credit:
    """How much better each response, and each of its tokens, was than what it is compared with."""

    rewards: Tensor
    """[P, G]: what was compared: the total, less the KL of the response where the row puts it there."""
    of_responses: Tensor
    """[P, G]: the advantage of each response."""
    of_tokens: Tensor
    """[B, T]: the advantage of each token, 0 outside the mask."""


def credit(batch: Batch, total: Tensor, advantage: Advantage, row: Algorithm) -> Credit:
    """Compare the responses of each group.

        total     [[1, 0], [1, 1]]                          P = 2 problems, G = 2 responses
        advantage centered                                  [[0.5, -0.5], [0, 0]]
        mask      [[. x x], [. x .], [x x .], [. . x]]      B = 4
        of_tokens [[0 .5 .5], [0 -.5 0], [0 0 0], [0 0 0]]

    Args: total [P, G]; the batch's rows are its responses in order. With the KL in the reward the batch must hold old
    and reference log-probabilities. Raises: ValueError where shapes do not agree.
    """
    of_shape("mask", batch.mask, "[P * G, T]", (total.numel(), batch.mask.shape[1]))
    if row.kl_in == "reward":
        kl = response_kl(batch.old_logprobs, batch.ref_logprobs, batch.mask)
        total = total - row.kl_coef * kl.reshape(total.shape)
    of_responses = advantage(total).float()
    return Credit(total, of_responses, spread(of_responses, batch.mask))


def creditable(total: Tensor, truncated: Tensor, row: Algorithm) -> Tensor:
    """[P, G]: the verifiers' total, with 0 for truncated responses where the row's `truncated` is `zero`."""
    same_shape("[P, G]", total=total, truncated=truncated)
    return total.masked_fill(truncated, 0.0) if row.truncated == "zero" else total


def spread(advantages: Tensor, mask: Tensor) -> Tensor:
    """Advantages of responses [P, G] over their tokens: [B, T], 0 outside the mask [B, T]."""
    return advantages.flatten()[:, None] * mask
