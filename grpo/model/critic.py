"""The critic of PPO: a value for each response token, learnt beside the policy.

    critic.values(batch)                                  # [B, T]: before the step
    update_with_critic(policy, critic, batch, objective, clip=0.2, warming=False)

It is a model of its own, of which the policy, the sampler and the sync know nothing: gradients of values never reach
the weights that sample. It has its own optimizer, and its gradient is cut on its own: under a joint norm the loss of
the values would silence the policy.

B sequences, T token positions (already shifted).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from grpo.algorithm.gae import explained_variance, value_loss
from grpo.algorithm.objective import Measured, Objective
from grpo.model.learner import Beginning
from grpo.model.policy import Policy
from grpo.model.scalar_model import ScalarModel
from grpo.records import Batch


@dataclass(frozen=True)
class ValueObjective:
    """The clipped loss of the values against the returns, a mean over the response tokens of an optimizer batch."""

    clip: float

    def __call__(self, micro_batch: Batch, values: Tensor) -> Measured:
        """values: [B, T]; `token_weights` of the micro-batch are 1 / response tokens."""
        loss, clipped = value_loss(values, micro_batch.old_values, micro_batch.returns, self.clip)
        mask = micro_batch.mask
        total = (micro_batch.token_weights * loss)[mask].sum()
        means = {"value": values.detach()[mask].sum(), "clip": clipped[mask].sum()}
        return Measured(total, {"loss": total.detach()}, means, mask.sum())


def update_critic(critic: ScalarModel, batch: Batch, clip: float) -> dict[str, float | None]:
    """One step of the critic on an optimizer batch with `old_values` and `returns`. Returns `critic/...`."""
    tokens = batch.mask.sum().clamp(min=1)
    measured = critic.update(replace(batch, token_weights=batch.mask / tokens), ValueObjective(clip))
    names = ("loss", "value", "clip", "grad_norm", "learning_rate", "skipped_in_a_row")
    found = {f"critic/{name}": measured[name] for name in names}
    return found | {"critic/explained_variance": explained_variance(batch.old_values, batch.returns, batch.mask)}


def update_with_critic(
    policy: Policy,
    critic: ScalarModel | None,
    batch: Batch,
    objective: Objective,
    *,
    clip: float,
    warming: bool,
    begin: Beginning | None = None,
) -> dict[str, float | None]:
    """One step of the policy, and one of its critic where there is one. warming: of the critic alone, and the policy is
    only measured; begin: what the policy learns beside. Returns what was measured, that of the critic as
    `critic/...`."""
    measured = policy.examine(batch, objective) if warming else policy.update(batch, objective, begin)
    return measured if critic is None else measured | update_critic(critic, batch, clip)
