"""AdamW one tensor at a time: with its state on the host, and for bfloat16 weights.

torchao's CPUOffloadOptimizer takes the gradient to the host while backward runs, which is before it is clipped:
--max-grad-norm would do nothing. Here the update is that of torch's AdamW, after clipping, and on the card. Nothing
differs but where the state rests; a parameter's 8 bytes travel there and back at each update.

The update of a bfloat16 tensor is that of a float32 one, and is then rounded by chance (rounding.py). Its moments are
float32: at a beta of 0.999 most of their own changes would be lost in bfloat16.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from grpo.model.host import host_copy
from grpo.model.rounding import seeded, stochastically_rounded

MOMENTS = ("exp_avg", "exp_avg_sq")


class AdamWByTensor(Optimizer):
    """For float32 weights torch's AdamW bit for bit, the plain one on a CPU and the fused one on CUDA."""

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
        eps: float = 1e-8,
        on_host: bool,
        seed: int = 0,
    ) -> None:
        """on_host: whether the state rests in the host's memory; seed: of the rounding."""
        super().__init__(parameters, dict(lr=lr, betas=betas, weight_decay=weight_decay, eps=eps))
        self.on_host = on_host
        self.seed = seed

    @torch.no_grad()
    def step(self) -> None:
        """One update of every parameter that has a gradient."""
        with seeded(self.param_groups[0]["params"][0].device, seed=self.seed, update=updates_made(self)):
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._update(parameter, group)
        if self.on_host and torch.cuda.is_available():
            torch.cuda.synchronize()  # a checkpoint may read the host's copies next, and they are still being written

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As Optimizer's, which would move the state to the card, and to the precision of the weights."""
        super().load_state_dict({**state_dict, "state": {}})
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for index, slot in state_dict["state"].items():
            moments = {name: self._at_rest(slot[name], parameters[index]) for name in MOMENTS}
            self.state[parameters[index]] = {"step": slot["step"].cpu()} | moments

    def _at_rest(self, tensor: Tensor, parameter: Tensor) -> Tensor:
        return host_copy(tensor, pinned=parameter.is_cuda) if self.on_host else tensor.to(parameter.device, copy=True)

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            zeros = torch.zeros(parameter.shape)
            state["step"] = torch.tensor(0.0)
            state |= {name: self._at_rest(zeros, parameter) for name in MOMENTS}
        count = state["step"].to(parameter.device, copy=True)
        moments = [state[name].to(parameter.device, non_blocking=True) for name in MOMENTS]
        weights = parameter.float()  # the parameter itself where it is float32
        adamw(
            [weights],
            [parameter.grad.float()],
            [moments[0]],
            [moments[1]],
            [],
            [count],
            foreach=False,
            fused=parameter.is_cuda,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
        if parameter.dtype is torch.bfloat16:
            parameter.copy_(stochastically_rounded(weights))
        state["step"] += 1
        for name, moment in zip(MOMENTS, moments, strict=True):
            state[name].copy_(moment, non_blocking=True)  # nothing where it rests on the parameter's device


def updates_made(optimizer: Optimizer) -> int:
    """As its state, and so a checkpoint, counts them."""
    return max((int(slot["step"]) for slot in optimizer.state.values()), default=0)
