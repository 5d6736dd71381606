"""Whole responses for samples.jsonl: what was asked, what was answered, and all that was said of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grpo.algorithm.credit import Credit
from grpo.records import Group, Rewards


def whole_samples(
    step: int, groups: Sequence[Group], rewards: Rewards, credited: Credit, count: int
) -> list[dict[str, Any]]:
    """The first response of the step's first `count` problems, with all that was said of it."""
    samples = []
    for p, group in enumerate(groups[:count]):
        rollout = group.rollouts[0]
        columns = {k: v for k, v in group.problem.columns.items() if k not in ("problem", "solution")}
        samples.append(
            {
                "step": step,
                "prompt": group.problem.prompt,
                "response": rollout.text,
                "reward": credited.rewards[p, 0].item(),
                "advantage": credited.of_responses[p, 0].item(),
                "truncated": rollout.truncated,
                "verifiers": {name: _number(part[p, 0].item()) for name, part in rewards.by_verifier.items()},
                "columns": columns,
            }
        )
    return samples


def _number(value: float) -> float | None:
    return None if value != value else value
