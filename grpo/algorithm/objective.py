"""The objective: a resolved row of the table -> the loss of a micro-batch. Training, replay and the tests use this one.

    objective = Objective(row)                            # a row of table.py, flags applied
    policy.update(optimizer_batch, objective)             # calls it once a micro-batch

B sequences, T token positions (already shifted).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from grpo.algorithm.losses import TokenLoss, policy_token_loss
from grpo.algorithm.row import Algorithm
from grpo.algorithm.token_inputs import TokenInputs
from grpo.records import Batch
from grpo.shapes import same_shape

LossTerm = Callable[[Tensor, Batch], Tensor]
"""A user's own: (log-probabilities [B, T], the micro-batch) -> [B, T], added to every token's loss."""


@dataclass(frozen=True)
class Measured:
    """What a micro-batch contributes. Contributions of micro-batches add up to the optimizer batch's."""

    loss: Tensor
    """Scalar, differentiable."""
    sums: dict[str, Tensor]
    """Scalars that are added over the micro-batches ..."""
    means: dict[str, Tensor]
    """... and those whose sum is divided by the sum of `count`."""
    count: Tensor
    """How many values a mean is over: response tokens."""


def added(parts: Sequence[Measured]) -> Measured:
    """The contribution of all the parts together."""
    one, *more = parts
    for other in more:
        one = Measured(
            one.loss + other.loss,
            {name: value + other.sums[name] for name, value in one.sums.items()},
            {name: value + other.means[name] for name, value in one.means.items()},
            one.count + other.count,
        )
    return one


@dataclass(frozen=True)
class Objective:
    """A pure function of a micro-batch, the policy's log-probabilities and entropies."""

    row: Algorithm
    """With its KL weight as it is at this step, where that adapts."""
    loss_term: LossTerm | None = None

    @property
    def of_tokens(self) -> bool:
        """Whether it may be computed for any part of the tokens. A user's own term is given whole responses."""
        return self.row.of_tokens and self.loss_term is None

    @property
    def max_kl(self) -> float:
        """The row's trust region; 0: none."""
        return self.row.max_kl

    def moves(self, batch: Batch) -> Tensor:
        """[B] bool: the rows that have a gradient. Without other terms one whose advantages are all 0 has none."""
        row = self.row
        others = row.entropy_coef or row.old_kl_coef or (row.kl_coef if row.kl_in == "loss" else 0.0)
        if others or self.loss_term is not None:
            return batch.mask.new_ones(len(batch))
        return (batch.advantages != 0).any(dim=1)

    def __call__(self, micro_batch: Batch, logprobs: Tensor, entropy: Tensor) -> Measured:
        """The weighted sum of token losses, and what was measured over the response tokens."""
        same_shape("[B, T]", logprobs=logprobs, token_weights=micro_batch.token_weights, entropy=entropy)
        if micro_batch.old_logprobs is None:  # the policy that samples is the one that is trained: a ratio of 1
            micro_batch = replace(micro_batch, old_logprobs=logprobs.detach())
        token = self.token_loss(micro_batch, logprobs, entropy)
        loss = (micro_batch.token_weights * token.loss).sum()
        mask, current = micro_batch.mask, logprobs.detach()
        means = {
            "entropy": entropy.detach()[mask].sum(),
            "clip_low": token.clip_low[mask].sum(),
            "clip_high": token.clip_high[mask].sum(),
            "clip_dual": token.clip_dual[mask].sum(),
            "importance": token.importance[mask].sum(),
            "importance_cut": token.importance_cut[mask].sum(),
            "engine_gap": (micro_batch.old_logprobs - micro_batch.sampler_logprobs)[mask].abs().sum(),
            "old_kl": token.old_kl[mask].sum(),
        }
        if token.kl is not None:
            means["kl"] = token.kl[mask].sum()
        # With one update a batch the ratio is 1 and the loss about 0, though its gradient is not; the surrogate moves.
        surrogate = (micro_batch.token_weights * micro_batch.advantages * current).sum()
        return Measured(loss, {"loss": loss.detach(), "surrogate": surrogate}, means, mask.sum())

    def token_loss(self, micro_batch: Batch, logprobs: Tensor, entropy: Tensor) -> TokenLoss:
        """The loss of every token, [B, T], and the user's own term on top. `micro_batch.old_logprobs` must be there."""
        token = policy_token_loss(
            TokenInputs(
                logprobs=logprobs,
                old_logprobs=micro_batch.old_logprobs,
                advantages=micro_batch.advantages,
                mask=micro_batch.mask,
                sampler_logprobs=micro_batch.sampler_logprobs,
                ref_logprobs=micro_batch.ref_logprobs,
                entropy=entropy,
            ),
            self.row,
        )
        if self.loss_term is None:
            return token
        return replace(token, loss=token.loss + self.loss_term(logprobs, micro_batch))
