"""What is planned and measured of a run's memory, and the table of it."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Row:
    """Bytes."""

    what: str
    planned: float
    measured: float

    @property
    def ratio(self) -> float:
        return self.measured / self.planned


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = ["| GiB | planned | measured | measured / planned |", "|---|---|---|---|"]
    lines += [f"| {r.what} | {r.planned / GIB:.2f} | {r.measured / GIB:.2f} | {r.ratio:.2f} |" for r in rows]
    return "\n".join(lines)
