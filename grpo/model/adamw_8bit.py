"""torchao's AdamW, whose state takes 2 bytes a parameter instead of 8; imported only where it is asked for.

The moments are quantised in blocks of 256 by a map of 256 values (arXiv 2110.02861). Tensors of fewer than 4,096
numbers, or of a number that is no multiple of 256, keep theirs in the parameter's own type.

It is no AdamW to the last digit. Where the gradients of a block differ by a thousand times and more, the smallest
second moments are rounded to 0 and their first moments are not: a few weights in a thousand are then moved by tens of
learning rates and not by one, where gradients are about 1e-5, and by more where they are larger.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from contextlib import nullcontext

import torch
from torch import Tensor
from torchao.optim import AdamW8bit as TorchaoAdamW8bit

from grpo.model.adamw import updates_made
from grpo.model.rounding import seeded

# torch's word to torchao's authors, at the first compilation.
warnings.filterwarnings("ignore", message="OptimState8bit does not implement _stable_hash_for_caching")


class AdamW8bit(TorchaoAdamW8bit):
    """On CUDA torchao compiles the update of each shape, once, which keeps its intermediates out of memory. On a CPU
    that takes minutes and a compiler, for models whose intermediates are small: there it runs as it is written.
    """

    def __init__(self, parameters: Iterable[Tensor], *, seed: int = 0, **adamw) -> None:
        """seed: of the rounding of bfloat16 weights, which is by chance; torchao draws it from the global generator."""
        super().__init__(parameters, **adamw, bf16_stochastic_round=True)
        self.seed = seed

    def step(self, closure=None):
        device = self.param_groups[0]["params"][0].device
        as_written = torch.compiler.set_stance("force_eager") if device.type == "cpu" else nullcontext()
        with as_written, seeded(device, seed=self.seed, update=updates_made(self)):
            return super().step(closure)
