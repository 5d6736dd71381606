"""Updates of any module by any objective: micro-batches, accumulation, clipping, schedule, and a guard on numbers.

The policy is a learner whose outputs are log-probabilities and entropies (policy.py).

    learner = Learner(module, OptimizerSettings(learning_rate=1e-6), micro_batch_tokens=16384)
    learner.update(batch, objective)      # one optimizer step on the whole batch
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from grpo.algorithm.objective import Measured
from grpo.model.batching import micro_batches
from grpo.model.optimizers import OptimizerSettings, make_optimizer, state_bytes_to_come
from grpo.model.recompute import recomputing
from grpo.records import Batch

Objective = Callable[..., Measured]
"""(micro-batch, *outputs of the learner) -> what it contributes to the loss and the metrics."""


class Learner:
    """A module, its optimizer and its schedule. On CUDA the forward pass is bfloat16, also of float32 parameters.

    Parameters in bfloat16 are rounded by chance: at a learning rate of 1e-6 most steps are smaller than bfloat16's
    spacing around a weight, and rounding to the nearest would drop them.
    """

    def __init__(self, model: nn.Module, settings: OptimizerSettings, micro_batch_tokens: int) -> None:
        self.model = model.eval()  # no dropout: a policy's log-probabilities must be those of the sampler's network
        self.settings = settings
        self.micro_batch_tokens = micro_batch_tokens
        self.skipped_in_a_row = 0
        """Updates left out since the last one that was made, because a number was not finite."""
        self.moves = 0
        """Times that the weights have begun to move."""
        self.optimizer = make_optimizer(model, settings)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda update: min(1.0, (update + 1) / (settings.warmup_updates + 1))
        )

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def precision(self) -> torch.dtype:
        """Of the forward pass: bfloat16 on CUDA, elsewhere that of the parameters."""
        return torch.bfloat16 if self.device.type == "cuda" else next(self.model.parameters()).dtype

    def state_bytes_to_come(self) -> int:
        """Bytes of the card that the optimizer's state has yet to take."""
        return state_bytes_to_come(self.optimizer, self.settings.name)

    def outputs(self, micro_batch: Batch) -> tuple[Tensor, ...]:
        """What the objective is computed from, with its graph: here the module's output on the micro-batch's inputs."""
        return (self.model(micro_batch.inputs),)

    def update(self, batch: Batch, objective: Objective) -> dict[str, float | None]:
        """One optimizer step on a whole optimizer batch. Returns what was measured, the gradient norm before clipping,
        the learning rate, and how many updates in a row have been skipped.

        An update in which anything that was measured is NaN or infinite (the loss, the gradient, a log-probability and
        what is computed from it) is skipped: weights, optimizer and schedule stay as they are.
        """
        measured = self.backward(batch, objective)
        grad_norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm).item()
        measured |= {"grad_norm": grad_norm, "learning_rate": float(self.schedule.get_last_lr()[0])}
        if not_finite(measured):
            self.skipped_in_a_row += 1
        else:
            self.skipped_in_a_row = 0
            self.moves += 1
            self.optimizer.step()
            self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        return measured | {"skipped_in_a_row": float(self.skipped_in_a_row)}

    def backward(self, batch: Batch, objective: Objective) -> dict[str, float | None]:
        """Add a whole optimizer batch's gradient to the parameters', accumulated over micro-batches.

        An objective's contributions add up, so the gradient is that of the whole batch, however it is cut. Returns the
        objective's sums, and its means over the whole batch; None where there is nothing to average.
        """
        sums: dict[str, float] = {}
        means: dict[str, float] = {}
        count = 0.0
        for micro_batch, _ in on_device(batch, self.micro_batch_tokens, self.device):
            with autocast(self.device), recomputing(self.model):
                outputs = self.outputs(micro_batch)
            found = objective(micro_batch, *outputs)
            found.loss.backward()
            values = _numbers([*found.sums.values(), *found.means.values(), found.count])  # one transfer from the card
            for totals, names in ((sums, found.sums), (means, found.means)):
                for name in names:
                    totals[name] = totals.get(name, 0.0) + values.pop(0)
            count += values.pop(0)
        return sums | {name: value / count if count else None for name, value in means.items()}


def not_finite(measured: dict[str, float | None]) -> dict[str, float]:
    """What is NaN or infinite among the numbers of an update; empty where the update is sound."""
    return {name: value for name, value in measured.items() if value is not None and not math.isfinite(value)}


def on_device(batch: Batch, max_tokens: int, device: torch.device) -> Iterator[tuple[Batch, Tensor]]:
    """The micro-batches of a batch, moved to the device one at a time, and the rows of each."""
    for rows in micro_batches(batch, max_tokens):
        yield batch.take(rows).to(device), rows


def autocast(device: torch.device):
    """bfloat16 arithmetic on CUDA, whatever the parameters; on a CPU it is that of the parameters."""
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


def _numbers(scalars: list[Tensor]) -> list[float]:
    return torch.stack([scalar.float() for scalar in scalars]).tolist()
