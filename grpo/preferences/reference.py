"""Log-probabilities of pairs under the starting model: computed once, by the policy before it learns, and kept.

    reference = reference_logprobs(policy, pairs, save=folder / "reference.pt", given=None)
    reference.of(batch, rows)       # [2 N, T] of the pairs `rows`, as `collate` has them

There is no second model in memory. Another run on the same pairs, at another beta, reads the file instead.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from grpo.errors import UserError
from grpo.files import written_whole
from grpo.model.batching import collate
from grpo.model.policy import Policy
from grpo.records import Batch, Group

AT_ONCE = 256
"""Pairs that are put into a batch at a time."""
TRIED = 4
"""Pairs on which a file of an earlier run is held to the model that is here."""
TOLERANCE = 0.05
"""Nats a token between the two, at most."""


@dataclass(frozen=True)
class ReferenceLogprobs:
    """Of the tokens of each pair's two responses."""

    of_pairs: tuple[Tensor, ...]
    """One a pair, [tokens of the chosen + of the rejected] float32."""

    def of(self, batch: Batch, rows: Sequence[int]) -> Tensor:
        """[2 N, T], 0 outside the response, for the batch of the pairs `rows`."""
        values = torch.cat([self.of_pairs[row] for row in rows])
        return torch.zeros(batch.mask.shape).masked_scatter(batch.mask, values)


def reference_logprobs(policy: Policy, pairs: Sequence[Group], save: Path, given: Path | None) -> ReferenceLogprobs:
    """Computed and saved; or read from the file of an earlier run.

    Raises: UserError for a file of other pairs, or of another model.
    """
    if given is None:
        found = computed(policy, pairs)
        with written_whole(save) as part:
            torch.save({"pairs": fingerprint(pairs), "logprobs": list(found.of_pairs)}, part)
        return found
    found = read(given, pairs)
    gap = torch.cat(found.of_pairs[:TRIED]) - torch.cat(computed(policy, pairs[:TRIED]).of_pairs)
    if not gap.abs().mean() < TOLERANCE:
        raise UserError(
            f"--reference {given} was computed by another model: its log-probabilities are {gap.abs().mean():.2g} nats "
            "a token from those of --model. Leave it out; they are then computed."
        )
    return found


def computed(policy: Policy, pairs: Sequence[Group]) -> ReferenceLogprobs:
    """By the policy as it is, at temperature 1."""
    found: list[Tensor] = []
    for start in range(0, len(pairs), AT_ONCE):
        batch = collate(pairs[start : start + AT_ONCE])
        logprobs = policy.logprobs(batch)
        each = logprobs[batch.mask].split(batch.mask.view(-1, 2 * batch.mask.shape[1]).sum(1).tolist())
        found += [tokens.clone() for tokens in each]
    return ReferenceLogprobs(tuple(found))


def read(path: Path, pairs: Sequence[Group]) -> ReferenceLogprobs:
    """Raises: UserError for a file that is none, or of other pairs."""
    advice = "Leave --reference out; the log-probabilities are then computed."
    try:
        content = torch.load(path, weights_only=True)
        same, logprobs = content["pairs"] == fingerprint(pairs), tuple(content["logprobs"])
    except (OSError, pickle.UnpicklingError, EOFError, RuntimeError, KeyError, TypeError) as error:
        raise UserError(f"--reference {path} cannot be read ({type(error).__name__}). {advice}") from error
    if not same:
        raise UserError(f"--reference {path} is of other pairs than these: the data or a flag has changed. {advice}")
    return ReferenceLogprobs(logprobs)


def fingerprint(pairs: Sequence[Group]) -> str:
    """Of all token ids, in order."""
    found = hashlib.sha256()
    for pair in pairs:
        found.update(repr((pair.problem.prompt_tokens, [rollout.tokens for rollout in pair.rollouts])).encode())
    return found.hexdigest()
