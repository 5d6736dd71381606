"""float32 -> bfloat16, up or down by chance, so that updates too small for bfloat16's spacing arrive on average.

Between 0.5 and 1 bfloat16 numbers are 0.0039 apart. Rounded to the nearest, a weight there never feels an update of
1e-6; rounded up or down with the odds of where it lies between its neighbours, it moves once in 3,900 such updates.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def stochastically_rounded(numbers: Tensor) -> Tensor:
    """[...] float32 -> [...] bfloat16: one of its two neighbours, whose mean over many draws is the number itself.

    bfloat16 is the upper half of a float32's bits: chance is added to the lower half, and what carries rounds up.
    """
    chance = torch.randint(0, 2**16, numbers.shape, dtype=torch.int32, device=numbers.device)
    return ((numbers.view(torch.int32) + chance) & -(2**16)).view(torch.float32).bfloat16()


@contextmanager
def seeded(device: torch.device, *, seed: int, update: int) -> Iterator[None]:
    """Draws within it are a function of seed and update, so that a resumed run rounds as the whole one; those after it
    are as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed * 1_000_003 + update)
        yield
