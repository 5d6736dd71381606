"""The most bytes that torch has given out at once, on a card and on a CPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile


def peak_on_cpu(function: Callable[[], object]) -> int:
    """Bytes of torch's CPU allocator while the function ran, those before it not counted."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        result = function()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    if not events:
        raise RuntimeError("torch's profiler has seen no memory being allocated")
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    del result
    return most


def peak_on_card(function: Callable[[], object]) -> tuple[int, int]:
    """(given out at once, taken from the card for it): those before it counted, too."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    function()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()


def used_of_card() -> int:
    """Bytes that are taken of the card, by whomever: what no process holds in reserve is given back before."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    return total - free
