"""Compare runs: `python -m grpo.compare runs/grpo-* runs/dr_grpo-*` writes comparison.png and comparison.html.

Seeds are grouped, curves have bands, and the page's tables give final values, growth of lengths, tokens to an accuracy,
and differences between groups with intervals. It reads metrics.jsonl and needs no network, no model and no torch.
"""

from __future__ import annotations

from grpo.compare_flags import Options, asked, check_command, groups_and_view
from grpo.early import refuse_early

if __name__ == "__main__":  # --help and refusals are there at once, before the imports below
    refuse_early(check_command)

import sys
from pathlib import Path

from rich.console import Console

from grpo.comparison.comparison import Comparison, compare
from grpo.comparison.figure import draw
from grpo.comparison.page import page
from grpo.comparison.summary import findings, notes, summary_table
from grpo.errors import UserError
from grpo.files import written_whole


def run_comparison(options: Options) -> Comparison:
    """Read, group and compare. Raises: UserError."""
    return compare(*groups_and_view(options), options.title)


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
    options = asked(arguments)
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
