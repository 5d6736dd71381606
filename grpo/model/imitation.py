"""The gradient of PPO-ptx's pre-training term (Ouyang et al. 2022, arXiv 2203.02155, eq. 2): imitate documents.

    loss = coef * mean over learnt tokens of -log p        beside the rewards' loss, in one step of the optimizer

The documents are what the model was trained on before, so that it does not forget it. They are scored at temperature 1,
whatever the sampler's: they were not sampled.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from grpo.algorithm.objective import Measured
from grpo.model.policy import Policy
from grpo.model.shard import whole
from grpo.records import Batch


@dataclass(frozen=True)
class Imitation:
    """The objective of a batch of documents whose `token_weights` are 1 / learnt tokens."""

    coef: float
    of_tokens = True

    def __call__(self, micro_batch: Batch, logprobs: Tensor, entropy: Tensor) -> Measured:
        """logprobs: [B, T], 0 outside the mask."""
        loss = -self.coef * (micro_batch.token_weights * logprobs).sum()
        mask = micro_batch.mask
        return Measured(loss, {}, {"ptx": -logprobs.detach()[mask].sum()}, mask.sum())


def imitate(policy: Policy, documents: Batch, coef: float) -> dict[str, float | None]:
    """The parameters, which have no gradient yet, get that of the term. Returns `ptx`, nats a token, and the norm of
    the gradient, `ptx_grad_norm`."""
    tokens = documents.mask.sum().clamp(min=1)
    with policy.at_temperature(1.0):
        measured = policy.backward(replace(documents, token_weights=documents.mask / tokens), Imitation(coef))
    gradients = [parameter.grad for parameter in policy.model.parameters() if parameter.grad is not None]
    return measured | {"ptx_grad_norm": whole(nn.utils.get_total_norm(gradients)).item()}
