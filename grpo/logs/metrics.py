"""What one step measured: dict of `area/name` -> float. Pure; None where a mean has nothing to average.

P problems a step, G responses a problem.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from grpo.algorithm.advantages import equal_rewards
from grpo.model.ranks import Ranks
from grpo.outcomes import correct, lengths, truncated
from grpo.records import Group, Rewards

Metrics = dict[str, float | None]

METRICS: dict[str, str] = {
    "step": "updates of the sampler so far; step 0 is the untrained model",
    "reward/mean": "mean of the verifiers' weighted sum over the step's responses, truncated ones as --truncated says",
    "reward/<verifier>": "mean reward of one verifier before its weight, over the responses that it applies to",
    "reward/errors": "verifier calls that raised or crashed; each scored 0",
    "reward/timeouts": "verifier calls stopped at the time limit; each scored 0",
    "reward/errors/<verifier>": "the same by verifier, where there were any",
    "reward/timeouts/<verifier>": "the same by verifier, where there were any",
    "length/mean": "mean response length in tokens, the end-of-sequence token included",
    "length/p95": "95th percentile of the response length",
    "length/correct": "mean length of correct responses (full marks from the first verifier)",
    "length/incorrect": "mean length of all others: the curve that grows under GRPO's length bias",
    "length/truncated": "share of responses cut at --max-response-tokens",
    "group/uniform": "share of groups whose rewards are all equal: nobody is better, so nothing is learnt",
    "group/refills": "times that dynamic sampling drew anew in the step",
    "group/dropped": "share of groups that the row leaves out of the loss, all correct or all incorrect",
    "policy/loss": "value of the loss; about 0 with one update a step (the ratio is 1), though its gradient is not",
    "policy/surrogate": "weighted advantage times log-probability: a value that moves where the loss does not",
    "policy/kl": "k3 estimate of the KL to the frozen reference, nats a token; null where none is kept (--log-kl)",
    "policy/kl_coef": "weight of the KL; moves where --kl-target adapts it",
    "policy/old_kl": "KL of the policy that sampled to the current one at the step's last update, nats a token",
    "policy/old_kl_coef": "weight of that KL in the loss (PPO's penalty); moves where --old-kl-target adapts it",
    "policy/entropy": "how undecided the policy is, nats a token; near 0 a group's responses are all alike",
    "policy/clip_low": "share of tokens that no longer push: ratio below the clip range and advantage negative",
    "policy/clip_high": "share of tokens that no longer push: ratio above the clip range and advantage positive",
    "policy/clip_dual": "share of tokens whose ratio is above --dual-clip while the advantage is negative",
    "policy/grad_norm": "gradient norm before it is cut to --max-grad-norm, mean over the step's updates",
    "policy/learning_rate": "learning rate of the step's last update",
    "policy/skipped": "updates of the step that were skipped, because a number in them was NaN or infinite",
    "policy/skipped_in_a_row": "the longest row of skipped updates up to now that reaches into the step; 3 end the run",
    "policy/engine_gap": "sampler against trainer: mean absolute difference of the sampled tokens' log-probabilities",
    "policy/sync_gap": "the same on the fixed probe after the sync; above --sync-tolerance the run stops",
    "policy/importance": "mean weight that corrects the engine gap; 1 where sampler and trainer agree",
    "policy/importance_cut": "share of tokens whose importance weight was truncated or masked",
    "time/generate": "seconds generating",
    "time/verify": "seconds waiting for verifiers after generation",
    "time/update": "seconds on log-probabilities and updates",
    "time/sync": "seconds handing the weights over and proving it",
    "time/wait": "of several ranks: seconds that each waits for others, on average, within the above; absent of one",
    "time/other": "seconds outside these stages: batches, credit, metrics, --save-rollouts",
    "time/step": "seconds of the whole step, evaluation and checkpoint excluded",
    "time/idle": "share of time/step in which a card has nothing to do: verifiers and other work of the host",
    "tokens_per_second": "response tokens generated in the step, dropped ones included, over time/step",
    "tokens_per_pass": "response tokens over the sampler's passes: how many are generated together; falls with waiting",
    "tokens": "response tokens of the step's groups, those that the loss leaves out included",
    "tokens_dropped": "response tokens of groups that dynamic sampling drew and replaced in the step",
    "tokens_total": "response tokens generated since the run began: the axis on which runs spend alike",
    "memory/host_gib": "peak memory of the process, GiB; of several the fullest",
    "memory/device_gib": "torch's peak on the GPU in a step, GiB, without vLLM's weights and KV cache; absent on a CPU",
    "eval/accuracy": "share of held-out responses that are correct at --eval-temperature; a truncated one is not",
    "eval/accuracy_low": "lower end of its 95% interval, by a bootstrap over problems",
    "eval/accuracy_high": "upper end of it",
    "eval/pass@k": "chance that one of k = --eval-responses responses is correct; absent where k is 1",
    "eval/maj@k": "share of held-out problems whose most frequent answer is correct; absent where k is 1",
    "eval/length": "mean response length on the held-out problems",
    "eval/length_correct": "mean length of the correct responses to them",
    "eval/length_incorrect": "mean length of all others",
    "eval/truncated": "share of held-out responses cut at the limit",
    "eval/failures": "held-out responses on which the first verifier raised or timed out; they count as incorrect",
}
"""Every key of metrics.jsonl and wandb, in one sentence each; the README's table is this one."""


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
        "group/uniform": equal_rewards(total).float().mean().item(),
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
    """`policy/...`: means over a step's updates; the learning rate and the KL to the old policy are the last one's.

    Skipped updates are counted and left out of all else; None where none was made.
    """
    made = [update for update in updates if not update["skipped_in_a_row"]]
    names = [name for name in updates[0] if name != "skipped_in_a_row"]
    measured = {name: [update[name] for update in made if update[name] is not None] for name in names}
    means = {f"policy/{name}": fmean(values) if values else None for name, values in measured.items()}
    last = {f"policy/{name}": made[-1][name] for name in ("learning_rate", "old_kl") if made}
    skipped = {
        "policy/skipped": float(len(updates) - len(made)),
        "policy/skipped_in_a_row": max(update["skipped_in_a_row"] for update in updates),
    }
    return {"policy/kl": None, **means, **last, **skipped}


def memory_metrics(held_bytes: int = 0) -> Metrics:
    """Peak memory, GiB: of the process, and of torch on CUDA since this was last asked, without what vLLM holds."""
    metrics = {"memory/host_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}  # Linux counts in KiB
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
