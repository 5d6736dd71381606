"""How groups of runs are told apart in a picture: colour, dashes and marker, each of which is enough for a few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grpo.errors import UserError

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5a5a5a")
"""Okabe and Ito's palette, which the colour-blind can tell apart; grey for its black, to be seen in the dark too."""
DASHES = ((), (7, 3), (2, 2), (7, 2, 2, 2))
"""Lengths of dashes and gaps, in points; () is a solid line."""
MARKERS = ("o", "s", "^", "D", "v")
"""matplotlib's letters: circle, square, triangle, diamond, triangle that points down."""
MOST = len(COLOURS) * len(DASHES)


@dataclass(frozen=True)
class Style:
    """One group's."""

    colour: str
    dashes: tuple[int, ...]
    marker: str


def styles(labels: Sequence[str]) -> list[Style]:
    """A style each, no two with the same colour and dashes. Raises: UserError for more than there are."""
    if len(labels) > MOST:
        raise UserError(
            f"{len(labels)} groups of runs cannot be told apart in one picture; {MOST} can. Name fewer runs, or put "
            "several under one name by --label."
        )
    return [
        Style(COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)], MARKERS[i % len(MARKERS)]) for i in range(len(labels))
    ]
