"""Rollouts of a step <-> a file: what `--save-rollouts` writes and `python -m grpo.replay` reads.

    >>> save_rollouts(Path("runs/NAME/rollouts/step-000001.pt"), recording)
    >>> load_rollouts(Path("runs/NAME/rollouts/step-000001.pt")) == recording  # but for the problems' columns

The file is a dict of tensors, lists and strings for `torch.load(path, weights_only=True)`, which runs no code. A
problem's columns stay out of it: they may hold anything, and what the verifiers made of them is there.

P problems a step, G responses a problem, N response tokens of all P * G responses.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from grpo.errors import RunError, UserError
from grpo.files import written_whole
from grpo.logs.rollout_file import check_rollout_file
from grpo.records import Group, Problem, Rollout

SETTINGS = ("model", "temperature", "max_response_tokens", "loss_constant", "micro_batch_tokens")
"""Flags of the run that a batch means nothing without. The model is the one that the run started from."""


@dataclass(frozen=True)
class Recording:
    """The rollouts of a step and all that an update needs to know of where they came from."""

    groups: list[Group]
    total: Tensor
    """[P, G] float32: `Rewards.total`, before --truncated or a KL in the reward has changed it."""
    correct: Tensor
    """[P, G] bool: full marks from the first verifier."""
    old_logprobs: Tensor
    """[N] float32: the trainer's log-probability of every response token, in order, under the policy that sampled. The
    policy moves and the starting model does not, so that only these give the ratio of a later step."""
    settings: dict[str, Any]
    """The flags of `SETTINGS`; model None is the embedded one."""
    by_verifier: dict[str, Tensor] = field(default_factory=dict)
    """Verifier -> [P, G] its own rewards; empty in recordings of earlier versions."""


def save_rollouts(path: Path, recording: Recording) -> None:
    """Write a recording, whole or not at all; folders are made. Raises: OSError or RunError, as for a full disk."""
    groups = recording.groups
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    content = {
        "prompts": [group.problem.prompt for group in groups],
        "prompt_tokens": [list(group.problem.prompt_tokens) for group in groups],
        "texts": [rollout.text for rollout in rollouts],
        "truncated": torch.tensor([rollout.truncated for rollout in rollouts]),
        "lengths": torch.tensor([len(rollout.tokens) for rollout in rollouts]),
        "tokens": torch.tensor([token for rollout in rollouts for token in rollout.tokens], dtype=torch.int64),
        # As float64, so that the sampler's Python floats come back bit for bit.
        "sampler_logprobs": torch.tensor([x for rollout in rollouts for x in rollout.logprobs], dtype=torch.float64),
        "total": recording.total,
        "correct": recording.correct,
        "old_logprobs": recording.old_logprobs,
        "settings": recording.settings,
        "by_verifier": recording.by_verifier,
    }
    try:
        with written_whole(path) as part:
            torch.save(content, part)
    except RuntimeError as error:  # torch's way to say that the disk is full
        raise RunError(f"{path} could not be written: {error}. If the disk is full, free some of it.") from error


def load_rollouts(path: Path) -> Recording:
    """Read a recording. Raises: UserError where there is no such file, or it is something else."""
    check_rollout_file(path)
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
        return _recording(content)
    except (pickle.UnpicklingError, EOFError, RuntimeError, KeyError, TypeError) as error:  # torch.load's, or ours
        raise UserError(
            f"{path} is not a rollout file ({type(error).__name__}). Give one that a run wrote with --save-rollouts: "
            "runs/NAME/rollouts/step-000001.pt."
        ) from error


def _recording(content: dict[str, Any]) -> Recording:
    lengths = content["lengths"].tolist()
    tokens, logprobs = content["tokens"].split(lengths), content["sampler_logprobs"].split(lengths)
    parts = zip(tokens, logprobs, content["texts"], content["truncated"].tolist(), strict=True)
    rollouts = [Rollout(tuple(t.tolist()), tuple(p.tolist()), text, cut) for t, p, text, cut in parts]
    size = content["total"].shape[1]
    prompts = zip(content["prompts"], content["prompt_tokens"], strict=True)
    return Recording(
        groups=[
            Group(Problem(prompt, tuple(ids), {}), tuple(rollouts[size * i : size * (i + 1)]))
            for i, (prompt, ids) in enumerate(prompts)
        ],
        total=content["total"],
        correct=content["correct"],
        old_logprobs=content["old_logprobs"],
        settings=content["settings"],
        by_verifier=content.get("by_verifier", {}),
    )
