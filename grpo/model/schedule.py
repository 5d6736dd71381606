"""Schedules: what the learning rate is multiplied by at an update.

u counts the updates from 0, W of them warm up, and there are N in all.

| `--schedule` | factor after the warm-up, with t = (u - W) / (N - W) |
|--------------|------------------------------------------------------|
| `constant`   | 1                                                    |
| `linear`     | 1 - t                                                |
| `cosine`     | (1 + cos(pi t)) / 2                                  |

During the warm-up it is (u + 1) / (W + 1). The factor would reach 0 at the update after the last one, so that every
update moves the weights.
"""

from __future__ import annotations

import math

from grpo.model.settings import OptimizerSettings


def factor(update: int, settings: OptimizerSettings) -> float:
    """Of update `update`, from 0; `settings.updates` is that of the whole run."""
    warmup = settings.warmup_updates
    if update < warmup:
        return (update + 1) / (warmup + 1)
    if settings.schedule == "constant":
        return 1.0
    done = min(1.0, (update - warmup) / max(1, settings.updates - warmup))
    return 1.0 - done if settings.schedule == "linear" else (1.0 + math.cos(math.pi * done)) / 2
