"""One checkpoint: a Hugging Face folder with the trainer's state beside the model, and a list of what it should hold.

    checkpoint-7/  model.safetensors, config.json, ...    what transformers and vLLM load; of LoRA the adapter alone
                   trainer_state.pt                       optimizer, schedule, KL weights, lengths, step, config, ids
                   optimizer/                             of several ranks: the optimizer's state, a part a rank
                   critic/                                of PPO: its critic, a folder of the same kind, and of several
                                                          ranks the parts of its optimizer's state
                   manifest.json                          each file's size and SHA-256

A resumed run continues bit for bit: draws, seeds and shuffles are pure functions of the step, so the weights, the
optimizer, the schedule, the weights of the KL and the lengths of earlier responses are all the state there is. Folders
appear whole or not at all; the manifest finds what a failing disk, a copy that broke off or a hand has done to one
later.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from grpo.algorithm.kl_weight import KLCoefficient, OldKLCoefficient
from grpo.errors import RunError, UserError
from grpo.files import read_json, write_json
from grpo.folders import PART, folder_written_whole
from grpo.model.learner import Learner
from grpo.model.optimizer_shards import dealt_out, read_shards, write_shards
from grpo.model.optimizers import state_bytes
from grpo.model.policy import Policy
from grpo.model.saved_dtype import recast
from grpo.model.scalar_model import ScalarModel
from grpo.out_of_memory import said
from grpo.problems.lengths import EarlierLengths

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

STATE = "trainer_state.pt"
MANIFEST = "manifest.json"
SHARDS = "optimizer"
MIB = 2**20


@dataclass(frozen=True)
class Trained:
    """What training changes, and a checkpoint therefore holds."""

    policy: Policy
    kl_coef: KLCoefficient
    old_kl_coef: OldKLCoefficient
    lengths: EarlierLengths
    critic: ScalarModel | None = None

    @property
    def moves(self) -> int:
        """Times that any weights have begun to move."""
        return self.policy.moves + (0 if self.critic is None else self.critic.moves)


@dataclass(frozen=True)
class Restored:
    """What else a checkpoint says."""

    step: int
    wandb_id: str | None


def save_model(folder: Path, policy: Policy, tokenizer: PreTrainedTokenizerBase, dtype: str | None = None) -> None:
    """The policy as a folder that transformers and vLLM load. dtype: one of SAVE_DTYPES; None: that of the weights.

    Raises: RunError, with the old folder in place.
    """
    gathered = policy.gathered()
    with policy.ranks.together():
        if policy.ranks.writes:
            with _written(folder, needed=_bytes(policy.model.state_dict())) as part:
                policy.save(part, gathered)
                if dtype is not None:
                    recast(part, dtype)
                tokenizer.save_pretrained(part)


def save_trained(folder: Path, policy: Policy, tokenizer: PreTrainedTokenizerBase) -> None:
    """What was trained of the policy, as a checkpoint has it: of LoRA the adapter. Raises: RunError, as above."""
    gathered = policy.gathered_kept()
    with policy.ranks.together():
        if policy.ranks.writes:
            with _written(folder, needed=_bytes(policy.kept())) as part:
                policy.save_kept(part, gathered)
                tokenizer.save_pretrained(part)


def save_checkpoint(
    folder: Path,
    step: int,
    trained: Trained,
    tokenizer: PreTrainedTokenizerBase,
    *,
    config: dict[str, Any] | None = None,
    wandb_id: str | None = None,
) -> None:
    """The model, and what a bit-exact resume needs. Raises: RunError, with the old folder in place.

    Of several ranks each writes its part of the optimizer's state, and one all else.
    """
    policy, critic, ranks = trained.policy, trained.critic, trained.policy.ranks
    gathered, of_critic = policy.gathered_kept(), None if critic is None else critic.gathered()
    shards: dict[Path, Path] = {}
    if ranks.size > 1:
        learners = {Path(SHARDS): policy} | ({} if critic is None else {Path("critic") / SHARDS: critic})
        shards = {place: _shards_written(folder.resolve(), place, learner) for place, learner in learners.items()}
    state = {
        "step": step,
        "kl_coef": trained.kl_coef.value,
        "old_kl_coef": trained.old_kl_coef.value,
        "lengths": trained.lengths.mean,
        **_state_of(policy, sharded=bool(shards)),
        "critic": None if critic is None else _state_of(critic, sharded=bool(shards)),
        "config": config,
        "wandb_id": wandb_id,
    }
    with ranks.together():
        if ranks.writes:
            needed = _bytes(policy.kept()) + (0 if shards else state_bytes(policy.optimizer))
            if critic is not None:
                needed += _bytes(critic.model.state_dict()) + (0 if shards else state_bytes(critic.optimizer))
            with _written(folder, needed=needed) as part:
                policy.save_kept(part, gathered)
                tokenizer.save_pretrained(part)
                if critic is not None:
                    critic.save(part / "critic", of_critic)
                torch.save(state, part / STATE)
                for place, written in shards.items():
                    written.rename(part / place)
                files = sorted(path for path in part.rglob("*") if path.is_file())
                write_json(part / MANIFEST, {str(path.relative_to(part)): _listed(path) for path in files})


def _state_of(learner: Learner, *, sharded: bool) -> dict[str, Any]:
    """What else than its weights a learner goes on with; sharded: without the optimizer's tensors."""
    optimizer = learner.optimizer.state_dict()
    return {
        "optimizer": {**optimizer, "state": {}} if sharded else optimizer,
        "schedule": learner.schedule.state_dict(),
        "skipped_in_a_row": learner.skipped_in_a_row,
    }


def _shards_written(folder: Path, place: Path, learner: Learner) -> Path:
    """The optimizer's state of all ranks in a hidden folder beside the checkpoint's, where a death would leave it for
    `mend_all`. place: in the checkpoint. Raises: RunError, on all ranks."""
    ranks, shards = learner.ranks, folder.with_name(f".{folder.name}-{'-'.join(place.parts)}{PART}")
    with ranks.together():
        if ranks.writes:
            shutil.rmtree(shards, ignore_errors=True)
            shards.mkdir(parents=True)
    failure: BaseException | None = None
    try:
        write_shards(shards, learner.optimizer)
    except Exception as error:  # torch raises one of its own, on all ranks, whatever has failed on one of them
        failure = error
    with ranks.together():
        if failure is not None:
            text = f"{folder} could not be saved: {said(failure)}. What was saved before is whole."
            raise RunError(text) from failure
    return shards


def checkpoints(run: Path) -> dict[int, Path]:
    """Step -> the run's checkpoint of it, oldest first."""
    found = {step_of(path): path for path in run.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)}
    return dict(sorted(found.items()))


def step_of(checkpoint: Path) -> int:
    """Its number: the step that was the last one done."""
    return int(checkpoint.name.rpartition("-")[2])


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, in words; None where every file is as it was written.

    One of an earlier version has no manifest: that it can be read is all that can be said of it.
    """
    if not (checkpoint / STATE).is_file():
        return f"has no {STATE}"
    if not (checkpoint / MANIFEST).is_file():
        return None if zipfile.is_zipfile(checkpoint / STATE) else f"{STATE} cannot be read"
    try:
        listed = read_json(checkpoint / MANIFEST, "").items()
        expected = {name: (said["bytes"], said["sha256"]) for name, said in listed}
    except (UserError, AttributeError, TypeError, KeyError):
        return f"{MANIFEST} cannot be read"
    for name, (size, digest) in expected.items():
        path = checkpoint / name
        if not path.is_file():
            return f"has no {name}"
        try:
            if path.stat().st_size != size or _digest(path) != digest:
                return f"{name} is not what was written"
        except OSError as error:  # a disk that fails
            return f"{name} cannot be read ({error.strerror})"
    return None


def restore(checkpoint: Path, trained: Trained) -> Restored:
    """Optimizer, schedule and KL weights of a checkpoint into a policy made from its model."""
    state = torch.load(checkpoint / STATE, weights_only=True, map_location="cpu")  # copied to the device below
    _go_on(trained.policy, state, checkpoint / SHARDS)
    if trained.critic is not None:
        _go_on(trained.critic, state["critic"], checkpoint / "critic" / SHARDS)
    for name in ("kl_coef", "old_kl_coef"):
        weight = getattr(trained, name)
        if weight.target is not None:  # a constant weight is the flag's to say
            weight.value = state.get(name, weight.value)
    trained.lengths.mean = state.get("lengths", {})
    return Restored(state["step"], state.get("wandb_id"))


def _go_on(learner: Learner, state: dict[str, Any], shards: Path) -> None:
    """shards: the folder of the optimizer's state, where several ranks have written it."""
    if shards.is_dir():
        state["optimizer"]["state"] = read_shards(shards, learner.optimizer, ranks=learner.ranks.size)
    elif learner.ranks.size > 1:
        state["optimizer"]["state"] = dealt_out(state["optimizer"]["state"], learner.optimizer)
    learner.optimizer.load_state_dict(state["optimizer"])
    learner.restore_schedule(state["schedule"])
    learner.skipped_in_a_row = state.get("skipped_in_a_row", 0)  # earlier versions did not know it, nor the lengths


@contextmanager
def _written(folder: Path, *, needed: int) -> Iterator[Path]:
    """A folder to fill with so many bytes. Raises: RunError, with the old folder in place."""
    try:
        with folder_written_whole(folder) as part:
            free = shutil.disk_usage(part).free
            if free < needed:
                raise OSError(f"it takes {needed / MIB:,.0f} MiB, and {free / MIB:,.0f} MiB are free on that disk")
            yield part
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:  # a full disk is each of them for someone
        raise RunError(
            f"{folder} could not be saved: {error}. What was saved before is whole. If the disk is full, free some of "
            "it; --keep 1 needs the least."
        ) from error


def _bytes(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())


def _listed(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": _digest(path)}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
