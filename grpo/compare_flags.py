"""The flags of `python -m grpo.compare`, and what is refused before anything is computed or drawn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from grpo.comparison.groups import RunGroup, group_runs
from grpo.comparison.runs import Run, find_runs, read_run
from grpo.comparison.styles import styles
from grpo.comparison.view import View, make_view
from grpo.errors import UserError


@dataclass(frozen=True)
class Options:
    """Compare runs. Those that differ in nothing but the seed are one group; each is compared with the first."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Run folders, folders that hold runs, or quoted patterns such as 'runs/grpo-*'."""
    out: Path = Path("comparison")
    """Where to write: a folder, or a path to which .png and .html are added."""
    title: str = "Comparison of runs"
    """Title of picture and page."""
    label: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """LABEL=PATTERN: put the runs whose folder name matches into one group of that name, whatever their settings. May
    be given again, for another group."""
    reach: tuple[float, ...] = ()
    """Held-out accuracies whose price in tokens and steps is told; unset: up to three that some run reaches."""
    smooth: int | None = None
    """Steps of the centred running mean of training curves, 1 for none, an even number counts as the next; unset: a
    twentieth of the longest run."""
    band: Literal["interval", "range"] = "interval"
    """Bands over seeds: 95% t interval of the mean, or lowest to highest."""
    final: float = 0.1
    """Share of the steps that "final" and "first" values average over."""
    until: int | None = None
    """Step that values are taken at; unset: the last that every run has reached."""


def asked(arguments: list[str] | None = None) -> Options:
    """The command line. An unknown flag ends the program with what exists."""
    return tyro.cli(Options, args=arguments, prog="python -m grpo.compare")


def check_command(arguments: list[str] | None = None) -> None:
    """What is refused by flags, names and files. Raises: UserError."""
    groups_and_view(asked(arguments))


def groups_and_view(options: Options) -> tuple[list[RunGroup], View]:
    """The runs, read and grouped, and how they are looked at. Raises: UserError."""
    runs = [read_run(folder) for folder in find_runs(options.runs)]
    groups = group_runs(started(runs), options.label)
    styles([group.label for group in groups])  # refused before anything is computed
    view = make_view(
        [run for group in groups for run in group.runs],
        until=options.until,
        final=options.final,
        window=options.smooth,
        band=options.band,
        reach=options.reach,
    )
    return groups, view


def started(runs: list[Run]) -> list[Run]:
    """The same runs. Raises: UserError for one that has logged no step yet."""
    for run in runs:
        if not run.rows or run.last_step < 1:
            raise UserError(f"{run.folder} has not logged a step of training yet. Wait for one, or leave it out.")
    return runs
