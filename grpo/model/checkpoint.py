"""Save, find, resume. A checkpoint is a Hugging Face folder with the trainer's state beside the model.

A resumed run continues bit for bit: draws, seeds and shuffles are pure functions of the step, so the weights, the
optimizer, the schedule and the weights of the KL are all the state there is. Folders appear whole or not at all.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from grpo.algorithm.kl_weight import KLCoefficient, OldKLCoefficient
from grpo.errors import UserError
from grpo.model.policy import Policy

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

STATE = "trainer_state.pt"


def save_model(folder: Path, policy: Policy, tokenizer: PreTrainedTokenizerBase) -> None:
    """The policy as a folder that transformers and vLLM load."""
    _write(folder, policy, tokenizer, state=None)


def save_checkpoint(
    run: Path,
    step: int,
    policy: Policy,
    tokenizer: PreTrainedTokenizerBase,
    kl_coef: KLCoefficient,
    old_kl_coef: OldKLCoefficient,
) -> None:
    """`run/checkpoint-STEP`: the model, and what a bit-exact resume needs."""
    state = {
        "step": step,
        "kl_coef": kl_coef.value,
        "old_kl_coef": old_kl_coef.value,
        "optimizer": policy.optimizer.state_dict(),
        "schedule": policy.schedule.state_dict(),
    }
    _write(run / f"checkpoint-{step}", policy, tokenizer, state)


def latest_checkpoint(run: Path) -> Path:
    """The newest checkpoint of a run. Raises: UserError where there is none."""
    found = [path for path in run.glob("checkpoint-*") if (path / STATE).is_file()]
    if not found:
        raise UserError(f"--resume: there is no checkpoint in {run}. A run saves one every --save-every steps.")
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]))


def restore(checkpoint: Path, policy: Policy, kl_coef: KLCoefficient, old_kl_coef: OldKLCoefficient) -> int:
    """Optimizer, schedule and KL weights of a checkpoint into a policy made from its model; returns the step."""
    state = torch.load(checkpoint / STATE, weights_only=True, map_location=policy.device)
    policy.optimizer.load_state_dict(state["optimizer"])
    policy.schedule.load_state_dict(state["schedule"])
    for name, weight in (("kl_coef", kl_coef), ("old_kl_coef", old_kl_coef)):
        if weight.target is not None:  # a constant weight is the flag's to say
            weight.value = state.get(name, weight.value)  # checkpoints of earlier versions know no old_kl_coef
    return state["step"]


def _write(folder: Path, policy: Policy, tokenizer: PreTrainedTokenizerBase, state: dict | None) -> None:
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    policy.model.save_pretrained(part)
    tokenizer.save_pretrained(part)
    if state is not None:
        torch.save(state, part / STATE)
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(part, folder)
