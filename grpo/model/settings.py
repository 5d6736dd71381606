"""How a model is trained, as data: optimizer, adapter, precisions. Nothing here imports torch."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from grpo.errors import UserError

OPTIMIZERS = ("adamw", "adamw_8bit", "adamw_offload")
"""What `--optimizer` accepts (optimizers.py)."""
PRECISION_NAMES = ("mixed", "bfloat16")
"""What `--precision` accepts (pretrained.PRECISIONS)."""
SCHEDULES = ("constant", "linear", "cosine")
"""What `--schedule` accepts (schedule.py)."""
SAVE_DTYPES = ("float32", "bfloat16")
"""What `--save-dtype` accepts (saved_dtype.py)."""
RANK_MINUTES = 120.0
"""That several processes wait for one another while each works alone, as in generation (ranks.py)."""
HEAD_DTYPE_NAMES = ("float32", "bfloat16")
"""What `--head-dtype` accepts (head.HEAD_DTYPES)."""


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW, its schedule and the clipping."""

    name: str = "adamw"
    """One of OPTIMIZERS."""
    learning_rate: float = 1e-6
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    """The gradient is scaled down to this norm."""
    warmup_updates: int = 0
    """Updates over which the learning rate rises linearly, before the schedule begins."""
    schedule: str = "constant"
    """One of SCHEDULES."""
    updates: int = 0
    """Those of the whole run, over which the schedule falls."""
    seed: int = 0
    """Of the rounding of bfloat16 weights."""


@dataclass(frozen=True)
class LoraSettings:
    """An adapter."""

    rank: int
    alpha: float
    targets: tuple[str, ...] | None = None
    """Names of linear layers, or ends of their paths; None: every linear layer but the head."""


def check_optimizer(name: str, device: str) -> None:
    """What an optimizer needs, before a model is loaded. device: where torch computes, or what `--device` says of it.

    Raises: UserError where it is not there.
    """
    if name == "adamw_8bit" and importlib.util.find_spec("torchao") is None:
        raise UserError(
            "--optimizer adamw_8bit is torchao's, which is not installed in this environment. Run `python -m pip "
            "install torchao==0.18.0`, or use --optimizer adamw."
        )
    if name == "adamw_offload" and device == "cpu":
        raise UserError(
            "--optimizer adamw_offload keeps the optimizer's state on the host to spare a card, and this run computes "
            "on the CPU, where all is on the host anyway. Use --optimizer adamw, or --device cuda where there is one."
        )
