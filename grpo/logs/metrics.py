"""What one step measured: dict of `area/name` -> float. Pure; None where a mean has nothing to average.

P problems a step, G responses a problem.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from grpo.algorithm.advantages import equal_rewards
from grpo.logs.metric_names import Metrics
from grpo.model.ranks import Ranks
from grpo.outcomes import correct, lengths, truncated
from grpo.records import Group, Rewards
from grpo.unix import unix_module


def rollout_metrics(groups: Sequence[Group], rewards: Rewards, total: Tensor) -> Metrics:
    """Rewards, lengths and groups; `total` [P, G] is the reward that the advantages were computed from."""
    is_correct, length = correct(rewards), lengths(groups)
    return {
        "reward/mean": total.mean().item(),
        **{f"reward/{name}": _mean(part[~part.isnan()]) for name, part in rewards.by_verifier.items()},
        "reward/errors": float(sum(rewards.errors.values())),
        "reward/timeouts": float(sum(rewards.timeouts.values())),
        **{f"reward/errors/{name}": float(count) for name, count in rewards.errors.items() if count},
        **{f"reward/timeouts/{name}": float(count) for name, count in rewards.timeouts.items() if count},
        "length/mean": length.mean().item(),
        "length/p95": float(np.percentile(length.numpy(), 95)),
        "length/correct": _mean(length[is_correct]),
        "length/incorrect": _mean(length[~is_correct]),
        "length/truncated": truncated(groups).float().mean().item(),
        "group/uniform": equal_rewards(total).float().mean().item() if total.shape[1] > 1 else None,
    }


def step_metrics(
    step: int,
    groups: Sequence[Group],
    rewards: Rewards,
    total: Tensor,
    updates: Sequence[dict[str, float]],
    generated: float,
    held_bytes: int = 0,
) -> Metrics:
    """A step's row, but for the times, the sync's gap and the evaluation. `generated`: tokens, as Stopwatch counts;
    `held_bytes`: as Engine has it."""
    tokens = lengths(groups).sum().item()
    return {
        "step": step,
        **rollout_metrics(groups, rewards, total),
        **update_metrics(updates),
        "tokens": tokens,
        "tokens_dropped": generated - tokens,
        **memory_metrics(held_bytes),
    }


def update_metrics(updates: Sequence[dict[str, float]]) -> Metrics:
    """`policy/...`, and `critic/...` as it is named: means over a step's updates; the policy's learning rate and its KL
    to the old policy are the last one's.

    Skipped updates are counted and left out of all else; None where none was made.
    """
    made = [update for update in updates if not update["skipped_in_a_row"]]
    names = [name for name in updates[0] if name != "skipped_in_a_row"]
    measured = {name: [update[name] for update in made if update[name] is not None] for name in names}
    means = {_in_area(name): fmean(values) if values else None for name, values in measured.items()}
    last = {f"policy/{name}": made[-1][name] for name in ("learning_rate", "old_kl") if made}
    skipped = {
        "policy/skipped": float(len(updates) - len(made)),
        "policy/skipped_in_a_row": max(update["skipped_in_a_row"] for update in updates),
    }
    return {"policy/kl": None, **means, **last, **skipped}


def _in_area(name: str) -> str:
    return name if "/" in name else f"policy/{name}"


def memory_metrics(held_bytes: int = 0) -> Metrics:
    """Peak memory, GiB: of the process, and of torch on CUDA since this was last asked, without what vLLM holds."""
    resource = unix_module("resource")
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts in bytes, Linux in KiB
    metrics = {"memory/host_gib": unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30}
    if torch.cuda.is_available():
        metrics["memory/device_gib"] = (torch.cuda.max_memory_allocated() - held_bytes) / 2**30
        torch.cuda.reset_peak_memory_stats()
    return metrics


def of_ranks(metrics: Metrics, ranks: Ranks) -> Metrics:
    """What differs between ranks, as the slowest and the fullest of them has it, and what the slowest costs the others;
    nothing where there is one."""
    if ranks.size == 1:
        return {}
    own = {name: value for name, value in metrics.items() if name.startswith(("time/", "memory/"))}
    found = ranks.largest(own)
    generated = metrics["tokens"] + metrics["tokens_dropped"]
    return {**found, "time/wait": ranks.seconds_waited(), "tokens_per_second": generated / found["time/step"]}


class Stopwatch:
    """Of a step: seconds by stage (`with watch("generate"):` adds to `seconds["time/generate"]`), tokens generated."""

    def __init__(self, ranks: Ranks | None = None) -> None:
        """ranks: what they have waited for one another is counted from here on."""
        if ranks is not None:
            ranks.waited = 0.0
        self.seconds: dict[str, float] = {}
        self.tokens = 0.0
        """Response tokens, those of groups that dynamic sampling drops included."""
        self.passes = 0
        self.begun = time.perf_counter()

    def count(self, groups: Sequence[Group], passes: int) -> None:
        """Add the tokens of the groups that were generated, and the sampler's passes."""
        self.tokens += lengths(groups).sum().item()
        self.passes += passes

    def metrics(self) -> Metrics:
        """`time/...` from the beginning to now, and tokens a second and a pass."""
        whole = time.perf_counter() - self.begun
        other = whole - sum(self.seconds.values())
        return {
            **self.seconds,
            "time/other": other,
            "time/step": whole,
            "time/idle": (self.seconds["time/verify"] + other) / whole,
            "tokens_per_second": self.tokens / whole,
            "tokens_per_pass": self.tokens / self.passes,
        }

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            key = f"time/{stage}"
            self.seconds[key] = self.seconds.get(key, 0.0) + time.perf_counter() - start


def _mean(values: Tensor) -> float | None:
    return values.mean().item() if values.numel() else None
