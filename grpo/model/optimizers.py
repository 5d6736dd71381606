"""`--optimizer` -> AdamW with its state where there is room for it: on the card, in 8 bits, or on the host.

torch's own AdamW is the default; torchao's quantises the state; adamw.py leaves it on the host, and updates bfloat16
weights, as torchao's does too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from grpo.memory.widths import STATE
from grpo.model.adamw import AdamWByTensor
from grpo.model.settings import OptimizerSettings


def make_optimizer(model: nn.Module, settings: OptimizerSettings) -> Optimizer:
    """The optimizer of the parameters that are trained, float32 or bfloat16, on whatever device they are."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    adamw = dict(lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay)
    if settings.name == "adamw_8bit":
        from grpo.model.adamw_8bit import AdamW8bit

        return AdamW8bit(parameters, **adamw, seed=settings.seed)
    on_host = settings.name == "adamw_offload"
    if on_host or any(parameter.dtype is torch.bfloat16 for parameter in parameters):
        return AdamWByTensor(parameters, **adamw, on_host=on_host, seed=settings.seed)
    # One kernel for all tensors. On a CPU it saves nothing at the sizes that train there, and rounds otherwise than the
    # plain loop that the published results were made with.
    return torch.optim.AdamW(parameters, **adamw, fused=parameters[0].device.type == "cuda")


def state_bytes(optimizer: Optimizer) -> int:
    """Bytes of the optimizer's state, as it lies in memory and in a checkpoint; of a sharded model this rank's part."""
    return sum(_bytes(value) for slot in optimizer.state.values() for value in slot.values())


def state_bytes_to_come(optimizer: Optimizer, name: str) -> int:
    """Bytes of the card that the state takes from the first update on, 0 where it is there; by `--optimizer`'s name."""
    trained = (p for group in optimizer.param_groups for p in group["params"] if p.requires_grad)
    return 0 if optimizer.state else STATE[name] * sum(parameter.numel() for parameter in trained)


def _bytes(tensor: Tensor) -> int:
    """A quantised tensor gives its `nbytes` as if it were float32; what it is made of tells the truth."""
    if hasattr(tensor, "to_local"):
        return tensor.to_local().nbytes
    if hasattr(tensor, "__tensor_flatten__"):
        return sum(getattr(tensor, name).nbytes for name in tensor.__tensor_flatten__()[0])
    return tensor.nbytes
