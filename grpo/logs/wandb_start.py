"""How a run in wandb begins or goes on: its id, what wandb is told of it, and the folders whose place it takes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpo.errors import UserError
from grpo.logs.metric_names import METRICS

if TYPE_CHECKING:
    import wandb

PREFIXES = {"online": "run", "offline": "offline-run"}
"""Mode -> what wandb's folder names begin with: `offline-run-20261121_214929-r4ncq2gm`, with the id at the end."""

FINISH_SECONDS = 60
"""What wandb has for uploading the rest at the end of a run; what is not uploaded then stays on the disk."""


def parts(folder: Path, mode: str) -> dict[Path, str]:
    """wandb's folders of a run in this mode -> their ids, oldest first."""
    prefix = PREFIXES[mode]
    paths = sorted((folder / "wandb").glob(f"{prefix}-*"))  # the names begin with the time
    found = {path: re.fullmatch(rf"{prefix}-\d+_\d+-(.+)", path.name) for path in paths}
    return {path: match[1] for path, match in found.items() if match}


def id_to_continue(folder: Path, mode: str, known: str | None) -> str | None:
    """The `known` id, unless it is of the other mode; else that of the newest part in this mode; None: begin anew."""
    mine = parts(folder, mode).values()
    (other,) = PREFIXES.keys() - {mode}
    if known is not None and (known in mine or known not in parts(folder, other).values()):
        return known
    return list(mine)[-1] if mine else None


def start(
    folder: Path, mode: str, known: str | None, *, project: str, group: str | None, config: Mapping[str, Any]
) -> wandb.Run:
    """A new wandb run; with a `known` id the run of that id: online it is continued, offline it is written anew.

    Raises: UserError.
    """
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
            # Offline the rows begin anew: without `resume` their upload replaces what the server has of this id.
            resume="allow" if known and mode == "online" else None,
            dir=folder,
            mode=mode,
            settings=wandb.Settings(
                silent=True, console="off", finish_timeout=FINISH_SECONDS, finish_timeout_raises=True
            ),
        )
    except Exception as error:  # not all that wandb raises is a wandb.Error, as "run ID is in use" is not
        raise UserError(
            f"wandb did not start ({error}). Where there is no network, use --wandb offline; where a run of this id is "
            "in use, end the process that has it, or unset WANDB_SERVICE."
        ) from error


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
    """`step` is the axis of every chart, also where another tool has added rows of its own to the run.

    An area is a pattern, so that a new key finds its axis by itself. No key matches two patterns: wandb takes any.
    """
    run.define_metric("step", hidden=True)
    for name in dict.fromkeys(f"{key.partition('/')[0]}/*" if "/" in key else key for key in METRICS if key != "step"):
        run.define_metric(name, step_metric="step")
    run.define_metric("eval/accuracy", step_metric="step", summary="none")  # WandbRun writes it, as last and max


class Superseded:
    """The older folders of an offline run, whose rows a new folder has too.

    They are renamed, so that an upload finds each step once, and only when the new folder's rows are on the disk:
    wandb's process writes them in blocks, up to 15 seconds late.
    """

    def __init__(self, older: list[Path], new: Path) -> None:
        self.older, self.file = older, new
        self.size: int | None = None

    def look(self, finished: bool = False) -> None:
        """To be called at each step after the rows were sent. What is written from then on comes after them."""
        if not self.older:
            return
        size = self.file.stat().st_size
        if finished or (self.size is not None and size > self.size):
            for path in self.older:
                path.rename(path.with_name(f"superseded-{path.name}"))
            self.older = []
        elif self.size is None:
            self.size = size
