"""Bytes a second between the processes of a machine, and seconds of a collective without any, for scripts/scaling.py.

torchrun --standalone --nproc-per-node 2 scripts/measure_link.py     # with gloo on a CPU, with NCCL on cards
"""

from __future__ import annotations

import time
from statistics import median

import torch
import torch.distributed as dist

from grpo.model.ranks import Ranks

SMALL, LARGE, TIMES = 64, 2**22, 20
"""Numbers of float32 that each rank has, and how often each is gathered."""


def seconds(numbers: int, device: str) -> float:
    """Median, of an all-gather of so many float32 from each rank."""
    mine = torch.ones(numbers, device=device)
    everyone = torch.empty(numbers * dist.get_world_size(), device=device)
    taken = []
    for _ in range(TIMES):
        start = time.perf_counter()
        dist.all_gather_into_tensor(everyone, mine)
        everyone[-1].item()
        taken.append(time.perf_counter() - start)
    return median(taken)


if __name__ == "__main__":
    on_card = torch.cuda.is_available()
    ranks = Ranks.join(on_card=on_card)
    small, large = (seconds(numbers, "cuda" if on_card else "cpu") for numbers in (SMALL, LARGE))
    if ranks.writes:
        rate = 4 * LARGE * ranks.size / (large - small)
        print(f"--in-node {rate:.3g} --latency {small:.3g}")
    dist.destroy_process_group()
