"""`--resume`: the flags of a run from its own config.json, and what may differ when it goes on.

python -m grpo.train --name x --resume --steps 200      # every other flag is that of the run x
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import tyro

from grpo.algorithm.table import in_todays_words
from grpo.config import Config
from grpo.errors import UserError
from grpo.files import read_json
from grpo.flags import EngineFlags, VerifierFlags, flag
from grpo.logs.run_versions import versions
from grpo.presets import EMBEDDED_MODEL
from grpo.problems.hub import is_hub_name
from grpo.problems.rows import has_split
from grpo.run_flags import EvaluationFlags, RunFlags

PLACE = ("name", "runs_dir", "resume")
"""Said by the command that resumes: a run may have been moved."""

FREE = {field.name for group in (RunFlags, EvaluationFlags) for field in fields(group)}
FREE = FREE - {"seed", "tensor_parallel"} | {"steps", "data_dir", "reference_device", "correct_at"}
"""May change: how long, how it is measured, logged and saved. The steps themselves stay the same, bit for bit."""

ROUNDING = {field.name for group in (EngineFlags, VerifierFlags) for field in fields(group)}
ROUNDING |= {"tensor_parallel", "micro_batch_tokens", "gradient_checkpointing", "compile", "sync_tolerance"}
ROUNDING -= FREE
"""May change, for a run that does not fit or goes on on another machine: the same method, with other roundings, draws
or limits, so that the steps are no longer those of an uninterrupted run to the last bit."""

OTHERWISE = "the steps may no longer be those of an uninterrupted run to the last bit"


def resumed(arguments: list[str] | None, asked: Config) -> Config:
    """The config of a run that goes on: that of its config.json, with the flags of `arguments` that may change.

    `asked` is what the arguments alone say. Raises: UserError where there is no such run, and for flags that contradict
    it, all of them in one list.
    """
    if asked.name is None:
        raise UserError("--resume continues a run: name it by --name, which is the name of its folder in --runs-dir.")
    before = replace(stored(asked.run_folder), **{name: getattr(asked, name) for name in PLACE})
    config = tyro.cli(Config, args=arguments, prog="python -m grpo.train", default=before)
    allowed = FREE | ROUNDING
    if before.eval_data is None and (not has_split(before.data) or is_hub_name(before.data)):
        allowed -= {"eval_problems"}  # they may be taken out of the problems that are trained on
    refused = [
        f"  {flag(name)} {shown(value)}, the run has {shown(was)}"
        for name, was, value in changes(before, config)
        if name not in allowed
    ]
    if refused:
        raise UserError(
            f"--resume: the run {asked.name} cannot go on with other flags than it began with:\n"
            + "\n".join(refused)
            + f"\nLeave them out, or begin a new run from its weights: --model {asked.run_folder}/model or one of its "
            "checkpoints. What may change: --steps, and the flags of evaluation, logging, saving, memory and limits."
        )
    return config


def changes(before: Config, now: Config) -> list[tuple[str, Any, Any]]:
    """(flag, value before, value now) of all that differs."""
    both = [(field.name, getattr(before, field.name), getattr(now, field.name)) for field in fields(Config)]
    return [change for change in both if change[0] not in PLACE and change[1] != change[2]]


def words(before: dict[str, Any], config: Config) -> list[str]:
    """What a resumed run does otherwise than it did before, a line each. `before`: the content of its config.json."""
    said = [
        f"resumed with another value: {flag(name)} {shown(value)}, was {shown(was)}"
        + (f"; {OTHERWISE}" if name in ROUNDING else "")
        + ("; the learning rate now falls over these" if name == "steps" and config.schedule != "constant" else "")
        for name, was, value in changes(as_config(before), config)
        if name in before
    ]
    then, now = before.get("versions") or {}, versions()
    differing = [f"{name} {now.get(name)}, was {was}" for name, was in then.items() if now.get(name) != was]
    return said + [f"resumed with other versions: {', '.join(differing)}; {OTHERWISE}"] * bool(differing)


def stored(folder: Path) -> Config:
    """The config of a run. Raises: UserError where the folder holds none."""
    if not folder.is_dir():
        raise UserError(f"--resume: there is no run folder {folder}. Name the run to continue by --name.")
    return as_config(read_json(folder / "config.json", "Begin the run anew without --resume, under another --name."))


def as_config(values: dict[str, Any]) -> Config:
    """The content of a config.json -> Config; flags that an earlier version did not have are unset."""
    hints = get_type_hints(Config)
    values = in_todays_words(values)
    if Path(values.get("model") or "").parts[-2:] == EMBEDDED_MODEL.parts[-2:]:  # of another checkout
        values["model"] = str(EMBEDDED_MODEL)
    return Config(**{f.name: _typed(values[f.name], hints[f.name]) for f in fields(Config) if f.name in values})


def shown(value: Any) -> str:
    """A value as it is typed on the command line."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _typed(value: Any, hint: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, str) and hint == tuple[str, ...] | None:  # one set, as runs of before have it
        return (value,)
    return Path(value) if isinstance(value, str) and Path in (hint, *get_args(hint)) else value
