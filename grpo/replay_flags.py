"""The flags of `python -m grpo.replay`, and what is refused before torch is imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from grpo.algorithm.table import ALGORITHMS
from grpo.asked import completed
from grpo.config import Config
from grpo.errors import UserError
from grpo.flags import DeviceName
from grpo.logs.rollout_file import check_rollout_file
from grpo.model.model_folder import check_model_files
from grpo.run_flags import CellFlags


@dataclass(frozen=True, kw_only=True)
class Options(CellFlags):
    """Advantages, loss and gradient of several algorithms on the rollouts that a run has saved.

    A cell that is given, such as --dual-clip 3, is that of all of them.
    """

    rollouts: Annotated[Path, tyro.conf.Positional]
    """File that a run wrote with --save-rollouts."""
    algo: tuple[str, ...] = ("grpo", "dr_grpo", "dapo")
    """Rows of the algorithm table."""
    model: str | None = None
    """Model whose gradient is taken, a folder or a hub name; unset: the one that the run started from."""
    device: DeviceName = "auto"
    """Where it is computed: auto, cpu, cuda."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Off unless you trust its author."""
    out: Path | None = None
    """JSON file to write the figures and cosines to."""


def asked(arguments: list[str] | None = None) -> Options:
    """The command line. An unknown flag ends the program with what exists."""
    return tyro.cli(Options, args=arguments, prog="python -m grpo.replay")


def check_command(arguments: list[str] | None = None) -> None:
    """What is refused by flags, names and files. Raises: UserError."""
    options = asked(arguments)
    check_rollout_file(options.rollouts)
    check_algorithms(options)
    for name in options.algo:
        completed(Config(algo=name, log_kl=False, **options.given()))
    if options.model is not None:
        check_model_files(options.model)


def check_algorithms(options: Options) -> None:
    """Raises: UserError where none is named."""
    if not options.algo:
        raise UserError(f"--algo names no algorithm. It takes: {', '.join(ALGORITHMS)}.")
