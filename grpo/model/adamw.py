"""AdamW one tensor at a time: its state stays on the host, and visits the card for a tensor's update.

torchao's CPUOffloadOptimizer takes the gradient to the host while backward runs, which is before it is clipped:
--max-grad-norm would do nothing. Here the update is that of torch's AdamW, after clipping, and on the card. Nothing
differs but where the state rests; a parameter's 8 bytes travel there and back at each update.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

MOMENTS = ("exp_avg", "exp_avg_sq")


class AdamWByTensor(Optimizer):
    """Bit for bit torch's AdamW, plain on a CPU and fused on CUDA, with float32 moments in the host's memory."""

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        lr: float,
        betas: tuple[float, float],
        weight_decay: float,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(parameters, dict(lr=lr, betas=betas, weight_decay=weight_decay, eps=eps))

    @torch.no_grad()
    def step(self) -> None:
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # a checkpoint may read the host's copies next, and they are still being written

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As Optimizer's, which would move the state to the card."""
        super().load_state_dict({**state_dict, "state": {}})
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for index, slot in state_dict["state"].items():
            self.state[parameters[index]] = {"step": slot["step"].cpu()} | {
                name: on_host(slot[name], pinned=parameters[index].is_cuda) for name in MOMENTS
            }

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            zeros = torch.zeros(parameter.shape)
            state["step"] = torch.tensor(0.0)
            state |= {name: on_host(zeros, pinned=parameter.is_cuda) for name in MOMENTS}
        count = state["step"].to(parameter.device, copy=True)
        moments = [state[name].to(parameter.device, non_blocking=True) for name in MOMENTS]
        adamw(
            [parameter],
            [parameter.grad],
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
        state["step"] += 1
        for name, moment in zip(MOMENTS, moments, strict=True):
            state[name].copy_(moment, non_blocking=True)  # nothing on a CPU, where they are one tensor


def on_host(tensor: Tensor, *, pinned: bool) -> Tensor:
    """A copy in the host's memory; pinned: where a card can read and write it without waiting."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned).copy_(tensor)
