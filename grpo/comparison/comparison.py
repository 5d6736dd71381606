"""Groups of runs -> all that picture, page and console show of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grpo.comparison.groups import RunGroup
from grpo.comparison.panels import Panel, make_panels
from grpo.comparison.quantities import Quantity, make_quantities
from grpo.comparison.view import View


@dataclass(frozen=True)
class Comparison:
    """What the picture, the page and the console show."""

    title: str
    groups: tuple[RunGroup, ...]
    view: View
    panels: tuple[Panel, ...]
    quantities: tuple[Quantity, ...]


def compare(groups: Sequence[RunGroup], view: View, title: str) -> Comparison:
    """Every number there is, from the runs alone."""
    return Comparison(
        title, tuple(groups), view, tuple(make_panels(groups, view)), tuple(make_quantities(groups, view))
    )
