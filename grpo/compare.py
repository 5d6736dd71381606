"""Compare runs: `python -m grpo.compare runs/grpo-* runs/dr_grpo-*` writes comparison.png and comparison.html.

Seeds are grouped, curves have bands, and the page's tables give final values, growth of lengths, tokens to an accuracy,
and differences between groups with intervals. It reads metrics.jsonl and needs no network, no model and no torch.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from grpo.comparison.comparison import Comparison, compare
from grpo.comparison.figure import draw
from grpo.comparison.groups import group_runs
from grpo.comparison.page import page
from grpo.comparison.runs import Run, find_runs, read_run
from grpo.comparison.styles import styles
from grpo.comparison.summary import findings, notes, summary_table
from grpo.comparison.view import make_view
from grpo.errors import UserError
from grpo.files import written_whole


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


def run_comparison(options: Options) -> Comparison:
    """Read, group and compare. Raises: UserError."""
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
    return compare(groups, view, options.title)


def started(runs: list[Run]) -> list[Run]:
    """The same runs. Raises: UserError for one that has logged no step yet."""
    for run in runs:
        if not run.rows or run.last_step < 1:
            raise UserError(f"{run.folder} has not logged a step of training yet. Wait for one, or leave it out.")
    return runs


def outputs(out: Path) -> tuple[Path, Path]:
    """The picture's and the page's path; the folder is made. Raises: UserError where it cannot be."""
    if out.is_dir():
        out = out / "comparison"
    stem = out.with_suffix("") if out.suffix in (".png", ".html") else out
    try:
        stem.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: the folder {stem.parent} cannot be made ({error.strerror}).") from None
    return stem.with_name(stem.name + ".png"), stem.with_name(stem.name + ".html")


def write(comparison: Comparison, out: Path, command: list[str]) -> tuple[Path, Path]:
    """The picture and the page, each whole or not at all."""
    picture, html = outputs(out)
    draw(comparison, picture)
    with written_whole(html) as part:
        part.write_text(page(comparison, picture.read_bytes(), command), encoding="utf-8", errors="replace")
    return picture, html


def main(arguments: list[str] | None = None) -> int:
    """The command. Exit status: 0 done, 2 bad input."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = tyro.cli(Options, args=arguments, prog="python -m grpo.compare")
    console = Console(highlight=False)
    try:
        comparison = run_comparison(options)
        picture, html = write(comparison, options.out, ["python", "-m", "grpo.compare", *arguments])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    console.print(summary_table(comparison, console.width))
    for text in (*findings(comparison), *notes(comparison)):
        console.print(str(text), markup=False, soft_wrap=True)
    console.print(f"picture  {picture}\npage     {html}", markup=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
