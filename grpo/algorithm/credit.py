"""Which token earned the reward: rewards [P, G] -> advantages [B, T].

A response is compared with its group, and every token of it carries the response's advantage. P problems a step,
G responses a problem, B = P * G sequences, T token positions (already shifted).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from grpo.algorithm.advantages import AdvantageInputs
from grpo.algorithm.choices import WITH_CRITIC
from grpo.algorithm.gae import gae, token_rewards, whiten
from grpo.algorithm.ingredients import Advantage
from grpo.algorithm.kl import response_kl
from grpo.algorithm.row import Algorithm
from grpo.outcomes import lengths, truncated
from grpo.records import Batch, Group
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
    returns: Tensor | None = None
    """[B, T]: what a critic is to foretell; None where there is none."""

    def on(self, batch: Batch) -> Batch:
        """The batch with its advantages, and what a critic learns from."""
        return replace(batch, advantages=self.of_tokens, returns=self.returns)


def credit(
    batch: Batch,
    groups: list[Group],
    total: Tensor,
    advantage: Advantage,
    row: Algorithm,
    by_verifier: dict[str, Tensor] | None = None,
) -> Credit:
    """Compare the responses of each group.

        total     [[1, 0], [1, 1]]                          P = 2 problems, G = 2 responses
        advantage centered                                  [[0.5, -0.5], [0, 0]]
        mask      [[. x x], [. x .], [x x .], [. . x]]      B = 4
        of_tokens [[0 .5 .5], [0 -.5 0], [0 0 0], [0 0 0]]

    Args:
        batch: its rows are the groups' responses in order; with the KL in the reward it must hold old and reference
            log-probabilities.
        total: [P, G], as `creditable` has it.
        by_verifier: verifier -> [P, G], for advantage functions that ask for it.

    Raises: ValueError where shapes do not agree.
    """
    of_shape("mask", batch.mask, "[P * G, T]", (total.numel(), batch.mask.shape[1]))
    if row.kl_in == "reward" and row.advantage not in WITH_CRITIC:
        kl = response_kl(batch.old_logprobs, batch.ref_logprobs, batch.mask)
        total = total - row.kl_coef * kl.reshape(total.shape)
    if row.advantage in WITH_CRITIC:
        return credit_by_critic(batch, total, row)
    mask = batch.mask.view(*total.shape, -1)
    ratio = None
    if batch.old_logprobs is not None and batch.ref_logprobs is not None:
        ratio = response_kl(batch.old_logprobs, batch.ref_logprobs, batch.mask).reshape(total.shape)
    inputs = AdvantageInputs(
        total, lengths(groups), mask, truncated(groups), by_verifier or {}, log_ratio=ratio, dpo_beta=row.dpo_beta
    )
    of_responses = advantage(inputs).float()
    return Credit(total, of_responses, spread(of_responses, batch.mask))


def credit_by_critic(batch: Batch, total: Tensor, row: Algorithm) -> Credit:
    """Each token by what the critic expected before and after it. With the KL in the reward a token pays its own.

    A batch without values (replayed rollouts, `explain`) is credited as by a new critic, whose values are all 0.
    Returns are made before whitening, and with the critic's own decay.
    """
    mask, values = batch.mask, batch.old_values
    values = torch.zeros(mask.shape) if values is None else values
    kl = batch.old_logprobs - batch.ref_logprobs if row.kl_in == "reward" and row.kl_coef else None
    rewards = token_rewards(total.flatten().float(), mask, kl, row.kl_coef)
    advantages = gae(rewards, values, mask, row.discount, row.gae_lambda)
    returns = gae(rewards, values, mask, row.discount, row.critic_lambda) + values * mask
    if row.whiten:
        advantages = whiten(advantages, mask)
    of_responses = advantages.sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    return Credit(rewards.sum(dim=1).view_as(total), of_responses.view_as(total), advantages, returns)


def creditable(total: Tensor, truncated: Tensor, row: Algorithm) -> Tensor:
    """[P, G]: the verifiers' total; where the row's `truncated` is `zero`, at most 0 for responses that were cut.

    For rewards of 0 and 1 that is 0. A total that is negative already stays: being cut off must never beat it.
    """
    same_shape("[P, G]", total=total, truncated=truncated)
    return torch.where(truncated, total.clamp(max=0.0), total) if row.truncated == "zero" else total


def spread(advantages: Tensor, mask: Tensor) -> Tensor:
    """Advantages of responses [P, G] over their tokens: [B, T], 0 outside the mask [B, T]."""
    of_shape("mask", mask, "[P * G, T]", (advantages.numel(), mask.shape[1]))
    return advantages.flatten()[:, None] * mask
