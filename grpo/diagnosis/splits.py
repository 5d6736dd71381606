"""What is trained on and what is held out: how many problems, and whether some are both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from grpo.diagnosis.findings import Finding, ok, warning
from grpo.problems.rows import Row

CHECK = "data"


def split_findings(
    rows: Sequence[Row], held_out: Sequence[Row], *, data: str, problems_per_step: int, steps: int
) -> Iterator[Finding]:
    """`rows`: to train on; `data`: as on the command line."""
    passes = problems_per_step * steps / len(rows)
    yield ok(
        CHECK,
        f"{data}: {len(rows)} problems to train on, {len(held_out)} held out; {steps} steps of {problems_per_step} ask "
        f"each about {passes:.2g} times",
    )
    shared = {repr(row["problem"]) for row in rows} & {repr(row["problem"]) for row in held_out}
    if shared:
        yield warning(
            CHECK,
            f"{len(shared)} held-out problems are also trained on: the evaluation is contaminated",
            "Give other problems by --eval-data, or take them out of --data.",
        )
    if len(rows) < problems_per_step:
        yield warning(
            CHECK,
            f"a step asks {problems_per_step} problems, more than there are: some are asked twice in one step",
            f"Lower --problems-per-step to {len(rows)} or less, or give more data.",
        )
