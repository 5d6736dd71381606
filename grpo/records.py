"""What flows through a step: problems -> groups of rollouts -> rewards -> batch. All frozen; no field changes meaning.

Shapes: P problems a step, G responses a problem, B sequences, T token positions (already shifted).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # verifiers and the reading of flags do without torch
    import torch
    from torch import Tensor

Message = dict[str, str]


@dataclass(frozen=True)
class Problem:
    """One row of a data set, ready for the engine."""

    prompt: str | list[Message]
    """What the data set asks: plain text, or chat messages."""
    prompt_tokens: tuple[int, ...]
    """The prompt under its template, encoded once; the engine and the trainer both use these ids."""
    columns: dict[str, Any]
    """Every column of the row: what a verifier may ask for by parameter name."""


@dataclass(frozen=True)
class Rollout:
    """One response as the engine sampled it."""

    tokens: tuple[int, ...]
    """Sampled ids, the end-of-sequence id included where the response has ended by itself."""
    logprobs: tuple[float, ...]
    """The sampler's log-probability of each token, after temperature."""
    text: str
    """The decoded response, special tokens left out: what verifiers read."""
    truncated: bool
    """True exactly where the engine stopped at the token limit (finish_reason == "length")."""


@dataclass(frozen=True)
class Group:
    """A problem and its G responses."""

    problem: Problem
    rollouts: tuple[Rollout, ...]


@dataclass(frozen=True)
class Rewards:
    """What the verifiers said of P groups of G responses."""

    total: Tensor
    """[P, G] float32: the weighted sum over verifiers."""
    by_verifier: dict[str, Tensor]
    """Verifier name -> [P, G] float32 raw rewards; NaN where the verifier returned None ("does not apply")."""
    errors: dict[str, int]
    """Verifier name -> responses whose call raised or crashed; each scored 0. A batch call counts for all it covers."""
    timeouts: dict[str, int]
    """Verifier name -> responses whose call was stopped at the wall-clock limit, counted in the same way."""
    correct_at: float = 1.0
    """The reward of the first verifier from which on a response is correct."""


@dataclass(frozen=True)
class Batch:
    """B sequences, shifted once: position t of every [B, T] tensor speaks of `targets[:, t]`."""

    inputs: Tensor
    """[B, T] int64 ids that the model reads."""
    targets: Tensor
    """[B, T] int64 ids that it predicts."""
    lengths: Tensor
    """[B] int64: positions that are not padding. Padding is on the right, so a causal model never attends to it."""
    mask: Tensor
    """[B, T] bool: targets that are response tokens and are trained on."""
    groups: Tensor
    """[B] int64: which group of the step a sequence belongs to."""
    sampler_logprobs: Tensor
    """[B, T] float32: the engine's own, 0 outside the response."""
    advantages: Tensor | None = None
    """[B, T] float32, one a token, 0 outside the mask; None before rewards have been credited to tokens."""
    token_weights: Tensor | None = None
    """[B, T] float32 by the aggregation, over the whole optimizer batch, 0 outside the mask; None before the cut into
    optimizer batches."""
    old_logprobs: Tensor | None = None
    """[B, T] float32 of the policy that sampled, recomputed by the trainer; None: the detached current value."""
    ref_logprobs: Tensor | None = None
    """[B, T] float32 of the frozen reference; None where no term asks for it."""
    old_values: Tensor | None = None
    """[B, T] float32 of the critic before the step, 0 outside the mask; None where there is none."""
    returns: Tensor | None = None
    """[B, T] float32: what the critic learns to foretell, 0 outside the mask; None where there is none."""

    def __len__(self) -> int:
        return self.inputs.shape[0]

    def take(self, rows: Tensor) -> Batch:
        """Some rows of the batch, cut to the longest of them; the weights stay those of the whole.

        Shapes: rows [N] int64 indices -> a Batch of N sequences.
        """
        width = int(self.lengths[rows].max())
        return replace(self, **{k: v[rows, :width] if v.ndim == 2 else v[rows] for k, v in self._tensors().items()})

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return replace(self, **{k: v.to(device) for k, v in self._tensors().items()})

    def _tensors(self) -> dict[str, Tensor]:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if value is not None}
