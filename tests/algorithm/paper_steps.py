"""A step made of numbers alone, for the tests that hold the code against the papers' sentences."""

import torch

from grpo.records import Group, Problem, Rewards, Rollout


def make_groups(lengths, truncated=None, sampler=None):
    """[[|o|, ...], ...] -> a group a row. Prompts are one to three tokens long, so that no two rows begin alike."""
    groups = []
    for p, row in enumerate(lengths):
        rollouts = []
        for i, length in enumerate(row):
            logprobs = tuple(sampler[p][i]) if sampler else (-1.0,) * length
            rollouts.append(Rollout((7,) * length, logprobs, "", bool(truncated and truncated[p][i])))
        groups.append(Group(Problem(f"problem {p}", (5,) * (1 + p % 3), {}), tuple(rollouts)))
    return groups


def make_rewards(weights=None, **parts):
    """Verifier -> [[reward, ...], ...], and verifier -> its weight, 1 where none is given. The first judges."""
    parts = {name: torch.tensor(rows, dtype=torch.float32) for name, rows in parts.items()}
    total = sum((weights or {}).get(name, 1.0) * part for name, part in parts.items())
    nothing = dict.fromkeys(parts, 0)
    return Rewards(total, parts, nothing, nothing)
