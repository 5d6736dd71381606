"""Updates of any module by any objective: micro-batches, accumulation, clipping, schedule, and a guard on numbers.

The policy is a learner whose outputs are log-probabilities and entropies (policy.py).

    learner = Learner(module, OptimizerSettings(learning_rate=1e-6), micro_batch_tokens=16384)
    learner.update(batch, objective)      # one optimizer step on the whole batch
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from grpo.algorithm.objective import Measured
from grpo.model.optimizers import OptimizerSettings, make_optimizer, state_bytes_to_come
from grpo.model.passes import Passes
from grpo.model.ranks import Ranks
from grpo.model.recompute import recomputing
from grpo.model.schedule import factor
from grpo.model.shard import all_reduce_after, whole
from grpo.out_of_memory import out_of_memory
from grpo.records import Batch

Objective = Callable[..., Measured]
"""(micro-batch, *outputs of the learner) -> what it contributes to the loss and the metrics."""

Beginning = Callable[[], dict[str, float | None]]
"""Gives the parameters a gradient, to which that of the batch is added; returns what it has measured."""

Numbers = tuple[dict[str, float], ...]
"""Sums, sums of which the means are made, and how many values these are over, as `count`."""


class Learner(Passes):
    """A module, its optimizer and its schedule. On CUDA the forward pass is bfloat16, also of float32 parameters.

    Parameters in bfloat16 are rounded by chance: at a learning rate of 1e-6 most steps are smaller than bfloat16's
    spacing around a weight, and rounding to the nearest would drop them.
    """

    def __init__(
        self, model: nn.Module, settings: OptimizerSettings, micro_batch_tokens: int, ranks: Ranks | None = None
    ) -> None:
        """ranks: over which the model is sharded already (shard.py), and which each get the whole of every batch."""
        super().__init__(micro_batch_tokens, ranks)
        self.model = model.eval()  # no dropout: a policy's log-probabilities must be those of the sampler's network
        self.settings = settings
        self.skipped_in_a_row = 0
        """Updates left out since the last one that was made, because a number was not finite."""
        self.moves = 0
        """Times that the weights have begun to move."""
        if self.device.type == "cuda":
            # It would make a plan of its own for each new shape. vLLM switches it off where it is imported; without
            # vLLM attention is now the same.
            torch.backends.cuda.enable_cudnn_sdp(False)
        self.optimizer = make_optimizer(model, settings)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda update: factor(update, settings))

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

    def restore_schedule(self, state: dict[str, Any]) -> None:
        """Go on at the update at which the schedule was saved, at the rate that it has there now: a resumed run may be
        longer than was planned."""
        self.schedule.load_state_dict(state)
        rates = [base * factor(self.schedule.last_epoch, self.settings) for base in self.schedule.base_lrs]
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = group["lr"].fill_(rate) if isinstance(group["lr"], Tensor) else rate
        self.schedule._last_lr = rates

    def outputs(self, micro_batch: Batch) -> tuple[Tensor, ...]:
        """What the objective is computed from, with its graph: here the module's output on the micro-batch's inputs."""
        return (self.model(micro_batch.inputs),)

    def update(self, batch: Batch, objective: Objective, begin: Beginning | None = None) -> dict[str, float | None]:
        """One optimizer step on a whole optimizer batch, and on what `begin` adds to it. Returns what was measured, the
        gradient norm before clipping, the learning rate, and how many updates in a row have been skipped.

        An update in which anything that was measured is NaN or infinite (the loss, the gradient, a log-probability and
        what is computed from it) is skipped: weights, optimizer and schedule stay as they are.
        """
        measured = self.backward(batch, objective, begin)
        grad_norm = whole(nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm)).item()
        measured |= {"grad_norm": grad_norm, "learning_rate": float(self.schedule.get_last_lr()[0])}
        if not_finite(measured):
            self.skipped_in_a_row += 1
        else:
            self.skipped_in_a_row = 0
            self.moves += 1
            if self.device.type == "cuda" and not self.optimizer.state:
                torch.cuda.empty_cache()  # the state stays: in a block of a pass it would keep all of it taken
            with out_of_memory("the optimizer's step", "--optimizer adamw_8bit, or adamw_offload on a card"):
                self.optimizer.step()
            self.schedule.step()
        self.drop_gradient()
        return measured | {"skipped_in_a_row": float(self.skipped_in_a_row)}

    def examine(self, batch: Batch, objective: Objective) -> dict[str, float | None]:
        """What `update` returns, with a learning rate of 0: nothing moves."""
        measured = self.backward(batch, objective)
        grad_norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm)
        self.drop_gradient()
        measured |= {"grad_norm": whole(grad_norm).item(), "learning_rate": 0.0}
        return measured | {"skipped_in_a_row": float(self.skipped_in_a_row)}

    def backward(self, batch: Batch, objective: Objective, begin: Beginning | None = None) -> dict[str, float | None]:
        """The parameters, which have no gradient yet, get that of a whole optimizer batch, added up over micro-batches.

        An objective's contributions add up, so the gradient is that of the whole batch, however it is cut. Rows that
        have none are only measured, unless that would leave nothing. Returns the objective's sums, its means over the
        whole batch, None where there is nothing to average, and what `begin` has measured.
        """
        begun = begin() if begin else {}

        def afresh() -> None:
            self.drop_gradient()
            if begin:
                begin()

        def moving(micro_batch: Batch) -> Numbers:
            return _numbers(self.contribute(micro_batch, objective))

        def still(micro_batch: Batch) -> Numbers:
            return _numbers(self.measure(micro_batch, objective))

        moves = objective.moves(batch) if hasattr(objective, "moves") else batch.mask.new_ones(len(batch))
        if not moves.any():  # their gradient of 0 lets AdamW go on, as it does after any other update
            moves[:] = True
        rows = moves.nonzero().flatten(), (~moves).nonzero().flatten()
        made = self.each_micro_batch(batch.take(rows[0]), moving, name="a backward pass", afresh=afresh)
        if len(rows[1]):
            made += self.each_micro_batch(batch.take(rows[1]), still, name="a forward pass")
        sums, means, counts = self._of_all([numbers for _, numbers in made])
        count = counts["count"]
        return begun | sums | {name: value / count if count else None for name, value in means.items()}

    def begin_piece(self, *, last: bool) -> None:
        """Several machines sum their gradients once, after the last."""
        if self.ranks.nodes > 1:
            all_reduce_after(self.model, last)

    def _of_all(self, made: list[Numbers]) -> Numbers:
        """Added over micro-batches, and over ranks, of which some may have none."""
        own = tuple(map(_added, zip(*made, strict=True))) if made else None
        parts = [part for part in self.ranks.exchange(own) if part is not None]
        return tuple(map(_added, zip(*parts, strict=True)))

    def contribute(self, micro_batch: Batch, objective: Objective) -> Measured:
        """Add the gradient of a micro-batch to that of the parameters. Returns what was measured on it."""
        with autocast(self.device), recomputing(self.model):
            outputs = self.outputs(micro_batch)
        found = objective(micro_batch, *outputs)
        found.loss.backward()
        return found

    @torch.no_grad()
    def measure(self, micro_batch: Batch, objective: Objective) -> Measured:
        """What `contribute` returns, and no gradient."""
        with autocast(self.device):
            outputs = self.outputs(micro_batch)
        return objective(micro_batch, *outputs)

    def drop_gradient(self) -> None:
        """The parameters have none."""
        self.optimizer.zero_grad(set_to_none=True)


def not_finite(measured: dict[str, float | None]) -> dict[str, float]:
    """What is NaN or infinite among the numbers of an update; empty where the update is sound."""
    return {name: value for name, value in measured.items() if value is not None and not math.isfinite(value)}


def autocast(device: torch.device):
    """bfloat16 arithmetic on CUDA, whatever the parameters; on a CPU it is that of the parameters.

    A pass uses each weight once: a cache of their copies would only keep them all to its end.
    """
    return torch.autocast("cuda", torch.bfloat16, cache_enabled=False) if device.type == "cuda" else nullcontext()


def _numbers(found: Measured) -> Numbers:
    """Sums, means and count of a micro-batch, in one transfer from the card."""
    scalars = [*found.sums.values(), *found.means.values(), found.count]
    values = torch.stack([scalar.float() for scalar in scalars]).tolist()
    count, cut = {"count": values.pop()}, len(found.sums)
    return dict(zip(found.sums, values[:cut], strict=True)), dict(zip(found.means, values[cut:], strict=True)), count


def _added(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    """Name -> its sum over the parts."""
    return {name: sum(part[name] for part in parts) for name in parts[0]}
