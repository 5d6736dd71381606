"""A run in wandb: every metric against `step`, one table of samples that stays small, one wandb run through resumes.

A section of the run's page is what stands before a key's slash: reward, length, group, policy, eval, time, memory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpo.errors import UserError
from grpo.logs.metrics import METRICS, Metrics
from grpo.logs.pictures import Thinned, length_chart, sample_table

if TYPE_CHECKING:
    import wandb

WANDB_MODES = ("auto", "online", "offline", "off")
"""What `--wandb` accepts; `auto` is online where an account is configured and offline elsewhere."""

ENVIRONMENT_MODES = {"online": "online", "run": "online", "offline": "offline", "dryrun": "offline", "disabled": "off"}
"""What WANDB_MODE may say -> what `--wandb` calls it."""

PICTURE_GROWTH = 1.25
"""A picture is uploaded at the first step, and whenever the run is this many times as long: 28 times in 1,000 steps."""


class WandbRun:
    """One training run in wandb: `log` adds a step, `finish` ends it.

    Args:
        folder: the run's folder; wandb writes to `folder/wandb`.
        mode: online or offline.
        rows, samples: what a resumed run has logged before. Where wandb was off or in the other mode then, a new
            wandb run begins with these rows.

    Raises: UserError where wandb does not start, such as without a network.
    """

    def __init__(
        self,
        folder: Path,
        mode: str,
        *,
        project: str,
        group: str | None,
        config: Mapping[str, Any],
        rows: Sequence[Metrics] = (),
        samples: Sequence[dict[str, Any]] = (),
    ) -> None:
        self.uploaded = self.step = 0
        self.best_accuracy: float | None = None
        self.samples, self.lengths = Thinned(), Thinned()
        known = previous_id(folder, mode)
        self.run = start(folder, mode, known, project=project, group=group, config=config)
        define_metrics(self.run)
        for row in rows:
            self._remember(row)
            if known is None:
                self._send(row)
        for sample in samples:
            self.samples.add(sample)

    def log(self, metrics: Metrics, samples: Sequence[dict[str, Any]] = ()) -> None:
        """One step's row, and the pictures where they are due. What is None is left out."""
        self._remember(metrics)
        for sample in samples:
            self.samples.add(sample)
        due = self.step >= PICTURE_GROWTH * self.uploaded
        self._send(metrics, self._pictures() if due else None)

    def finish(self, exit_code: int) -> None:
        """The pictures of the whole run, and its end: wandb shows exit code 0 as finished and any other as failed."""
        if self.step > self.uploaded:
            self.run.log({"step": self.step} | self._pictures())
        self.run.finish(exit_code=exit_code)

    def _remember(self, row: Metrics) -> None:
        """What later rows are compared with and drawn beside; wandb's own maxima begin anew at a resume."""
        self.step = int(row["step"])
        self.lengths.add(row)
        if row.get("eval/accuracy") is not None:
            self.best_accuracy = max(row["eval/accuracy"], self.best_accuracy or 0.0)

    def _send(self, row: Metrics, pictures: dict[str, Any] | None = None) -> None:
        self.run.log({name: value for name, value in row.items() if value is not None} | (pictures or {}))
        if row.get("eval/accuracy") is not None:
            self.run.summary["eval/accuracy"] = {"last": row["eval/accuracy"], "max": self.best_accuracy}

    def _pictures(self) -> dict[str, Any]:
        self.uploaded = self.step
        return sample_table(self.samples.rows) | length_chart(self.lengths.rows)


# The run in wandb ------------------------------------------------------------------------------------------------


def resolve_wandb_mode(mode: str) -> str:
    """`--wandb`, and WANDB_MODE where that is `auto` -> online, offline or off.

    Raises: UserError for another word, for online without an account, and for an account that cannot be reached.
    """
    if mode not in WANDB_MODES:
        raise UserError(f"--wandb {mode} is not one of {', '.join(WANDB_MODES)}.")
    asked = f"--wandb {mode}"
    if mode == "auto" and (said := os.environ.get("WANDB_MODE")):
        if said not in ENVIRONMENT_MODES:
            raise UserError(f"WANDB_MODE={said} is not one of {', '.join(ENVIRONMENT_MODES)}.")
        mode, asked = ENVIRONMENT_MODES[said], f"WANDB_MODE={said}"
    if mode in ("off", "offline"):
        return mode
    import wandb

    try:
        account = wandb.login(prompt=False)
    except wandb.Error as error:
        raise UserError(f"wandb did not log in ({error}). Where there is no network, use --wandb offline.") from error
    if account:
        return "online"
    if mode == "auto":
        return "offline"
    raise UserError(f"{asked}, but no wandb account is configured. Run `wandb login`, or use --wandb offline.")


def previous_id(folder: Path, mode: str) -> str | None:
    """The id of the wandb run that this folder's run was logged to in this mode, from wandb's own folder names."""
    prefix = "offline-run" if mode == "offline" else "run"
    names = sorted(path.name for path in (folder / "wandb").glob(f"{prefix}-*"))  # they begin with the time
    found = re.fullmatch(rf"{prefix}-\d+_\d+-(.+)", names[-1]) if names else None
    return found and found[1]


def start(
    folder: Path, mode: str, known: str | None, *, project: str, group: str | None, config: Mapping[str, Any]
) -> wandb.Run:
    """A new wandb run, or the `known` one to be continued. Raises: UserError."""
    import wandb

    try:
        return wandb.init(
            project=project,
            group=group,
            job_type="train",
            name=folder.name,
            tags=tags(config),
            config=dict(config),
            id=known,
            resume="allow" if known else None,
            dir=folder,
            mode=mode,
            settings=wandb.Settings(silent=True, console="off"),
        )
    except wandb.Error as error:
        raise UserError(f"wandb did not start ({error}). Where there is no network, use --wandb offline.") from error


def tags(config: Mapping[str, Any]) -> list[str]:
    """Algorithm, model and data by their short names; wandb takes 64 characters each.

    >>> tags({"algo": "grpo", "model": "Qwen/Qwen2.5-Math-1.5B", "data": "./problems.jsonl"})
    ['grpo', 'Qwen2.5-Math-1.5B', 'problems.jsonl']
    """
    values = [config.get(name) for name in ("algo", "model", "data")]
    names = [name for value in values for name in (value if isinstance(value, tuple | list) else [value])]
    short = (os.path.basename(os.path.abspath(name))[:64] for name in names if name)  # `--model .`: the folder's name
    return list(dict.fromkeys(filter(None, short)))


def define_metrics(run: wandb.Run) -> None:
    """`step` is the axis of every chart: wandb's own counts rows, and a resumed run does some steps again.

    An area is a pattern, so that a new key finds its axis by itself. No key matches two patterns: wandb takes any.
    """
    run.define_metric("step", hidden=True)
    for name in dict.fromkeys(f"{key.partition('/')[0]}/*" if "/" in key else key for key in METRICS if key != "step"):
        run.define_metric(name, step_metric="step")
    run.define_metric("eval/accuracy", step_metric="step", summary="none")  # WandbRun writes it, as last and max
