"""Pairs of responses -> advantages: DPO as the surrogate -A l. Pure.

    l       [2 N, T] log-probabilities of tokens under the policy, rows chosen, rejected, chosen, rejected, ...
    h       [N]      (l - ref of the chosen) - (l - ref of the rejected): sums over the response, or means a token
    A       [2 N, T] -f'(h) on every token of the chosen, f'(h) on those of the rejected; divided by |o| under `mean`

The gradient of the sum of -A l over N pairs, divided by N, is that of the mean of f(h): the two responses of a pair
need not share a micro-batch, and the update is the one that trains every other algorithm.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from grpo.algorithm.preference_losses import PREFERENCE_LOSSES, slopes
from grpo.shapes import same_shape


@dataclass(frozen=True)
class PairLoss:
    """The cells of DPO."""

    loss: str = "sigmoid"
    """A name in preference_losses.PREFERENCE_LOSSES."""
    beta: float = 0.1
    label_smoothing: float = 0.0
    length: str = "sum"
    """`sum` of a response's tokens, or their `mean`."""
    sft_coef: float = 0.0
    """Weight of the mean negative log-probability a token of the chosen response."""

    def of(self, h: Tensor) -> Tensor:
        """[N] -> [N]."""
        return PREFERENCE_LOSSES[self.loss](h, self.beta, self.label_smoothing)


@dataclass(frozen=True)
class PairCredit:
    """What N pairs teach, and what there is to say of them."""

    advantages: Tensor
    """[2 N, T], 0 outside the mask."""
    losses: Tensor
    """[N]."""
    margins: Tensor
    """[N]: beta h."""
    changes: Tensor
    """[2 N]: log-probability of the response less that under the reference, nats."""


def pair_credit(logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, cells: PairLoss) -> PairCredit:
    """Shapes: all [2 N, T], the mask bool. Raises: ValueError where they are not."""
    same_shape("[2 N, T]", logprobs=logprobs, ref_logprobs=ref_logprobs, mask=mask)
    lengths = mask.sum(dim=1)
    changes = ((logprobs - ref_logprobs) * mask).sum(dim=1)
    divided = changes / lengths if cells.length == "mean" else changes
    h = divided[0::2] - divided[1::2]
    slope = slopes(h, cells.of)
    advantages = torch.stack([-slope, slope], dim=1).flatten()
    if cells.length == "mean":
        advantages = advantages / lengths
    losses = cells.of(h)
    if cells.sft_coef:
        chosen = torch.arange(len(mask)) % 2 == 0
        advantages = advantages + cells.sft_coef / lengths * chosen
        losses = losses - cells.sft_coef * ((logprobs * mask).sum(dim=1) / lengths)[0::2]
    return PairCredit(advantages[:, None] * mask, losses, cells.beta * h, changes)


def numbers(credit: PairCredit, mask: Tensor) -> dict[str, float]:
    """What is logged of pairs: means over them."""
    lengths = mask.sum(dim=1).float()
    correct = (credit.margins > 0).float() + 0.5 * (credit.margins == 0).float()
    columns = {
        "loss": credit.losses,
        "accuracy": correct,
        "margin": credit.margins,
        "chosen": credit.changes[0::2],
        "rejected": credit.changes[1::2],
        "chosen_tokens": lengths[0::2],
        "rejected_tokens": lengths[1::2],
    }
    return {name: column.mean().item() for name, column in columns.items()}
