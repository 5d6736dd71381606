"""The flags of `python -m grpo.explain`, and what is refused before torch is imported."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from grpo.algorithm.row import Algorithm
from grpo.algorithm.table import ALGORITHMS
from grpo.cells import check_cells
from grpo.errors import UserError
from grpo.flags import check_choices
from grpo.run_flags import CellFlags


@dataclass(frozen=True, kw_only=True)
class Options(CellFlags):
    """Weight by length, advantage by accuracy, clip region, importance and KL of one or two algorithms.

    A cell that is given, such as --dual-clip 3, is that of both.
    """

    algorithms: Annotated[tuple[str, ...], tyro.conf.Positional] = ("grpo", "dr_grpo")
    """One or two rows of the algorithm table."""
    responses: int = 8
    """G: responses to a made-up problem."""
    correct: Annotated[int, tyro.conf.arg(aliases=["--right"])] = 2
    """How many of them are correct where weight is shown against length."""
    max_response_tokens: int = 3000
    """The longest response, and the constant C of the constant aggregation."""
    out: Path = Path("explain.png")
    """Picture to write."""


def asked(arguments: list[str] | None = None) -> Options:
    """The command line. An unknown flag ends the program with what exists."""
    return tyro.cli(Options, args=arguments, prog="python -m grpo.explain")


def check_command(arguments: list[str] | None = None) -> None:
    """What is refused by flags and names. Raises: UserError."""
    check(asked(arguments))


def check(options: Options) -> dict[str, Algorithm]:
    """The rows that were asked for. Raises: UserError."""
    for name in options.algorithms:
        if name not in ALGORITHMS:
            raise UserError(f"There is no algorithm '{name}'. Name one or two of: {', '.join(ALGORITHMS)}.")
    if len(set(options.algorithms)) not in (1, 2):
        raise UserError(
            f"{len(set(options.algorithms))} algorithms were named, and a picture shows one or two. "
            f"There are: {', '.join(ALGORITHMS)}."
        )
    if not 0 < options.correct < options.responses:
        raise UserError(
            f"--correct {options.correct} of --responses {options.responses}: a group with both kinds of answers has "
            "at least one of each."
        )
    if options.max_response_tokens < 200:
        raise UserError(f"--max-response-tokens {options.max_response_tokens} is too short a range: give 200 or more.")
    check_choices(options)
    rows = {name: replace(ALGORITHMS[name], **options.given()) for name in options.algorithms}
    for row in rows.values():
        check_cells(row, options.given())
    return rows
