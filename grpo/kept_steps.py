"""A step whose rollouts are kept in a file, for grpo.replay: as was asked for, or because an update was skipped."""

from __future__ import annotations

from pathlib import Path

import torch

from grpo.config import Config
from grpo.logs.rollouts import SETTINGS, Recording, save_rollouts
from grpo.model.batching import collate
from grpo.model.learner import not_finite
from grpo.outcomes import correct
from grpo.records import Batch, Group, Rewards
from grpo.setup import Parts


def save_step(config: Config, parts: Parts, step: int, groups: list[Group], rewards: Rewards, batch: Batch) -> Path:
    """The step's rollouts as a file, for grpo.replay, with the log-probabilities that the batch has. Where it has none,
    and for what it leaves out of the loss, they are those of the policy as it is now."""
    whole = collate(groups)  # nothing masked, whatever --truncated says
    if batch.old_logprobs is None:
        old_logprobs = parts.policy.logprobs(whole)
    elif torch.equal(batch.mask, whole.mask):
        old_logprobs = batch.old_logprobs
    else:
        old_logprobs = torch.where(batch.mask, batch.old_logprobs, parts.policy.logprobs(whole))
    settings = {name: getattr(config, name) for name in SETTINGS} | ({"model": None} if config.embedded else {})
    path = config.run_folder / "rollouts" / f"step-{step:06d}.pt"
    by_verifier = rewards.by_verifier
    recording = Recording(groups, rewards.total, correct(rewards), old_logprobs[whole.mask], settings, by_verifier)
    with parts.ranks.together():
        if parts.ranks.writes:
            save_rollouts(path, recording)
    return path


def save_skipped(
    config: Config, parts: Parts, step: int, groups: list[Group], rewards: Rewards, batch: Batch, updates: list[dict]
) -> None:
    """Where an update was skipped: what was not finite, and the step's rollouts, to look for the reason."""
    found = [not_finite(update) for update in updates]
    if any(found):
        parts.engine.release()  # the policy's log-probabilities are computed; the next generation wakes it
        path = save_step(config, parts, step, groups, rewards, batch)
        names = ", ".join(dict.fromkeys(name for numbers in found for name in numbers))
        parts.logger.say(
            f"step {step}: {sum(map(bool, found))} of {len(found)} updates skipped. NaN or infinite: {names}. Look at "
            f"the step: python -m grpo.replay {path}"
        )
