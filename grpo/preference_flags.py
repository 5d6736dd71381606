"""The flags that `python -m grpo.reward_model` and `python -m grpo.dpo` share, and what both refuse without torch."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from grpo.errors import UserError
from grpo.flags import DeviceName, check_choices, require
from grpo.model.model_folder import check_model_files
from grpo.model.settings import OptimizerSettings, check_optimizer
from grpo.presets import EMBEDDED_MODEL
from grpo.problems.preferences import read_rows
from grpo.problems.row_files import AT_ONCE, is_row_file
from grpo.problems.rows import check_data_dir, check_exists, raw_rows
from grpo.run_flags import OptimizerName, PrecisionName, SaveDtypeName, ScheduleName

STEPS = "step-*.pt"
"""Files of saved rollouts in their folder."""


@dataclass(frozen=True, kw_only=True)
class PreferenceFlags:
    """The model, the comparisons, and the updates."""

    data: tuple[str, ...] = ()
    """Comparisons: a folder of saved rollouts such as runs/a/rollouts, a .jsonl file, hh_rlhf, or a hub name."""
    data_dir: Path | None = None
    """Folder of .jsonl files from which the sets of data/ are read instead of the hub; unset: the hub."""
    model: str | None = None
    """Hugging Face causal LM to start from, a folder or a hub name; unset: the embedded tiny model."""
    epochs: int = 1
    """Passes over the comparisons."""
    learning_rate: float | None = None
    """AdamW's learning rate; unset: the command's, for the embedded model or for any other."""
    schedule: ScheduleName = "linear"
    """The learning rate after the warm-up: constant, or falling to 0 at the end: linear, cosine."""
    warmup_updates: int = 0
    """Updates over which the learning rate rises linearly, before the schedule begins."""
    max_grad_norm: float = 1.0
    """The gradient is scaled down to this norm."""
    optimizer: OptimizerName = "adamw"
    """AdamW's state, bytes a parameter: adamw 8, adamw_8bit 2 (needs torchao), adamw_offload 8 in the host's memory."""
    precision: PrecisionName = "mixed"
    """Weights and gradients, bytes a parameter: mixed 8, float32; bfloat16 4, where chance rounds the weights."""
    micro_batch_tokens: int = 8192
    """Token positions in one pass, padding included: memory, never the result."""
    gradient_checkpointing: bool | None = None
    """Recompute activations in the backward pass: less memory, about a third more time; unset: off (embedded) or on."""
    name: str | None = None
    """Name of the run and of its folder; unset: the command, the model and the time."""
    runs_dir: Path = Path("runs")
    """Folder that holds the runs."""
    save_dtype: SaveDtypeName | None = None
    """Precision in which the model at the end is saved, such as bfloat16; unset: that of its weights."""
    seed: int = 0
    """Seed of shuffles, of ties between pairs, and of a new head."""
    device: DeviceName = "auto"
    """Where it is computed: auto, cpu, cuda."""
    trust_remote_code: bool = False
    """Run Python code that comes with a model. Off unless you trust its author."""

    @property
    def run_folder(self) -> Path:
        return self.runs_dir / self.name

    def optimizer_settings(self, updates: int) -> OptimizerSettings:
        """For so many updates in all."""
        return OptimizerSettings(
            name=self.optimizer,
            learning_rate=self.learning_rate,
            max_grad_norm=self.max_grad_norm,
            warmup_updates=self.warmup_updates,
            schedule=self.schedule,
            updates=updates,
            seed=self.seed,
        )


Flags = TypeVar("Flags", bound=PreferenceFlags)


def completed(options: Flags, command: str, presets: dict[str, dict[str, Any]]) -> Flags:
    """Fill what is unset: with the preset of the embedded model, or of any other, and a name."""
    embedded = options.model in (None, str(EMBEDDED_MODEL))
    filled = presets["embedded" if embedded else "real"] | {
        "model": str(EMBEDDED_MODEL),
        "gradient_checkpointing": not embedded,
        "name": f"{command}-{'tiny' if embedded else Path(options.model).name}-{time.strftime('%Y%m%d-%H%M%S')}",
    }
    unset = {field.name for field in fields(options) if getattr(options, field.name) is None}
    return replace(options, **{name: value for name, value in filled.items() if name in unset})


def check_shared(options: PreferenceFlags, command: str) -> None:
    """What both commands refuse without torch. Raises: UserError."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError(f"python -m grpo.{command} is one process, and torchrun has started several. Start it alone.")
    check_choices(options)
    require(options, ("epochs", "learning_rate", "max_grad_norm", "micro_batch_tokens"), "must be more than 0")
    require(options, ("warmup_updates",), "must not be negative")
    if not 0 <= options.seed < 2**32:
        raise UserError(f"--seed {options.seed} must be at least 0 and less than 2^32.")
    if not options.data:
        raise UserError(
            "--data names no comparisons. Give a folder of saved rollouts (python -m grpo.train --save-rollouts writes "
            "runs/NAME/rollouts), a .jsonl file with prompt, chosen and rejected, or a set such as hh_rlhf."
        )
    check_optimizer(options.optimizer, options.device)
    folder = options.run_folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"The run folder {folder} exists already. Choose another --name.")
    check_model_files(options.model)
    rows = [spec for spec in options.data if rollout_files(spec) is None]
    check_data_dir(options.data_dir, rows)
    for spec in rows:
        check_exists(spec)
        if spec.endswith(AT_ONCE):
            read_rows(raw_rows(spec, "train"), spec)


def rollout_files(spec: str) -> list[Path] | None:
    """The files of saved rollouts that `--data SPEC` names, in order; None where it names something else.

    Raises: UserError for a folder without any, and for a path that leads nowhere.
    """
    path = Path(spec).expanduser()
    if path.suffix == ".pt" and path.is_file():
        return [path]
    if path.is_dir():
        if found := sorted(path.glob(STEPS)):
            return found
        inside = f" Its folder {path / 'rollouts'} holds some." if list((path / "rollouts").glob(STEPS)) else ""
        raise UserError(
            f"--data {spec}: the folder holds no {STEPS}.{inside} A run writes such files with --save-rollouts, to "
            "runs/NAME/rollouts."
        )
    if path.suffix == ".pt" or (not is_row_file(spec) and (spec.startswith((".", "/", "~")) or spec.count("/") > 1)):
        if not path.suffix == ".py" and ".py:" not in spec:
            raise UserError(f"--data {spec}: there is no such file or folder.")
    return None
