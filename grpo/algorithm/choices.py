"""What the cells of a row may be, by name. What computes under these names is in a file for each, which imports torch.

Flags are read, explained and refused by this file alone, so that `--help` need not wait for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grpo.algorithm.row import Algorithm

ADVANTAGE_NAMES = (
    "raw",
    "max_only",
    "centered",
    "leave_one_out",
    "group_normalized",
    "batch_normalized",
    "batch_scaled",
    "mean_normalized",
    "optimal_baseline",
    "best_worst",
    "gae",
)
"""advantages.py: what `--advantage` accepts, besides a function of your own."""
WITHOUT_COMPARISON = ("raw", "max_only", "gae")
"""Advantages that a group of one response can have; all others are 0 there."""
PAIRED = ("best_worst",)
"""Advantages that read log-probabilities of the policy that sampled and of the reference, and hold for one update of
the responses that they were computed for."""
WITH_CRITIC = ("gae",)
"""Advantages of tokens, by a critic's values."""
AGGREGATION_NAMES = ("sequence_mean", "constant", "token_mean", "prompt_mean")
"""aggregations.py: what `--aggregation` accepts, besides a function of your own."""
SURROGATE_NAMES = ("naive", "unclipped", "clipped", "cispo", "geometric", "soft_gate")
"""surrogates.py: what `--surrogate` accepts."""
RATIO_NAMES = ("token", "sequence", "product")
"""ratios.py: what `--ratio` accepts."""
KL_ESTIMATOR_NAMES = ("k1", "k2", "k3", "k3_ratio")
"""kl.py: what `--kl-estimator` accepts."""
KL_PLACES = ("loss", "reward")
"""What `--kl-in` accepts."""
TRUNCATED = ("zero", "mask", "keep")
"""What `--truncated` accepts."""
UNIFORM_GROUPS = ("keep", "drop")
"""What `--uniform-groups` accepts."""
IMPORTANCE = ("truncate", "mask", "sequence_mask", "none")
"""importance.py: what `--importance` accepts."""
PREFERENCE_LOSS_NAMES = ("sigmoid", "ipo")
"""preference_losses.py: what `--loss` of grpo.dpo accepts."""

LIMITS = {"truncate": (0.0, 2.0), "mask": (0.5, 5.0), "sequence_mask": (0.99, 1.01)}
"""Of the importance weight (low, high) where the row has None: verl's and slime's; OpenRLHF's; verl's recipes'."""


def limits(row: Algorithm) -> tuple[float, float]:
    """(low, high) of the row's importance weight, its own or those of `LIMITS`."""
    low, high = LIMITS.get(row.importance, (0.0, 0.0))
    return (
        low if row.importance_low is None else row.importance_low,
        high if row.importance_cap is None else row.importance_cap,
    )
