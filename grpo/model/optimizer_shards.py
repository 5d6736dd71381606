"""The optimizer's state of a sharded model <-> a folder of a checkpoint, in which each rank writes its own part.

A gathered state would not fit one host. The format is torch's (torch.distributed.checkpoint): it can be read by any
number of ranks, also by a single process, and each reads no more than its own part.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

State = dict[int, dict[str, Tensor]]
"""As in Optimizer.state_dict(): a parameter's place -> its moments and count."""


def write_shards(folder: Path, optimizer: Optimizer) -> None:
    """All ranks at once, into a folder that is there."""
    import torch.distributed.checkpoint as dcp

    state = optimizer.state_dict()["state"]
    dcp.save({f"{i}.{name}": value for i, slot in state.items() for name, value in slot.items()}, checkpoint_id=folder)


def read_shards(folder: Path, optimizer: Optimizer, *, ranks: int) -> State:
    """The state for as many ranks as there are now, all of them at once."""
    import torch.distributed.checkpoint as dcp

    names = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
    parameters = _parameters(optimizer)
    found: dict[str, Any] = {}
    for key in names:
        index, _, name = key.partition(".")
        found[key] = torch.tensor(0.0) if name == "step" else torch.zeros_like(parameters[int(index)].detach())
    if found:  # nothing before the first update
        dcp.load(found, checkpoint_id=folder, no_dist=ranks == 1)
    state: State = {}
    for key, value in found.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    return state


def dealt_out(state: State, optimizer: Optimizer) -> State:
    """The whole state of a single process -> this rank's parts of it."""
    from torch.distributed.tensor import distribute_tensor

    def part(value: Tensor, like: Tensor) -> Tensor:
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)

    parameters = _parameters(optimizer)
    return {
        i: {name: value if name == "step" else part(value, parameters[i]) for name, value in slot.items()}
        for i, slot in state.items()
    }


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
