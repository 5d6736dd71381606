"""Where a command computes: what `--device` means on this machine, and flags that need a card."""

from __future__ import annotations

import torch

from grpo.errors import UserError
from grpo.flags import EngineFlags


def torch_device(flags: EngineFlags) -> str:
    """`--device` as torch takes it: auto is cuda where there is one."""
    return "cuda" if flags.device == "cuda" or (flags.device == "auto" and torch.cuda.is_available()) else "cpu"


def check_device(device: str) -> None:
    """Raises: UserError for cuda where there is none."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda, but torch sees no CUDA device here. Use --device cpu, or leave it at auto.")
