"""Read the arms of sanity.sh, and say whether each did what it must. Exit status 1 where one did not.

    python scripts/sanity.py runs/sanity

Held-out accuracy is that of the true verifier in every arm. An arm has learnt where its accuracy rose by more than the
margin, and unlearnt where it fell by more: with the whole of the 95% interval, over problems, beyond it. The interval
is that of the measurement; how far another seed would end elsewhere is what the margin leaves room for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

from grpo.errors import UserError
from grpo.evaluation.results import read_results
from grpo.files import read_json
from grpo.intervals import Estimate, paired_difference

ADVICE = "Run the arms by scripts/sanity.sh."


@dataclass(frozen=True)
class Measured:
    """What an arm came to."""

    before: float
    """Held-out accuracy of the untrained model."""
    after: float
    """Held-out accuracy at the end."""
    change: Estimate
    """The second less the first, paired by problem. Where no problem differs, its ends are its value."""
    moved: bool
    """Whether any weight of the final model differs from the starting model's."""


@dataclass(frozen=True)
class Arm:
    """What an arm is rewarded for, and what must come of it."""

    reward: str
    must: str
    holds: Callable[[Measured, float], bool]
    """(measured, margin) -> whether it did what it must."""


def learns(found: Measured, margin: float) -> bool:
    return found.change.low > margin


def does_not_learn(found: Measured, margin: float) -> bool:
    """It may fall: AdamW's steps are about as long whatever the gradient, so noise is a random walk that wears the
    model down. But chance does not lead it uphill."""
    return found.change.high < margin


def does_not_move(found: Measured, margin: float) -> bool:
    """Equal rewards make every advantage 0, and so every gradient and every step of AdamW: exactly nothing changes."""
    return not found.moved and found.change.low <= 0 <= found.change.high


def unlearns(found: Measured, margin: float) -> bool:
    return found.change.high < -margin


ARMS = {
    "control": Arm("the true one", "learn", learns),
    "random": Arm("a coin", "not learn", does_not_learn),
    "constant": Arm("1 for all", "not move", does_not_move),
    "flipped": Arm("the true one, negative", "unlearn", unlearns),
}


@dataclass
class Options:
    """Say whether each arm of a sanity check did what it must."""

    folder: tyro.conf.Positional[Path]
    """Folder of the arms' runs."""
    arms: tuple[Literal[tuple(ARMS)], ...] = tuple(ARMS)
    """The arms to look at."""
    margin: float = 0.10
    """Accuracy by which an arm must rise or fall to have learnt or unlearnt."""


def measure(run: Path) -> Measured:
    """A finished run's accuracy, first and last, and whether its weights moved. Raises: UserError for any other run."""
    evaluations = sorted((run / "evaluations").glob("step-*.jsonl"))
    if len(evaluations) < 2 or not (run / "model").is_dir():
        raise UserError(f"{run} is no finished run with a first and a last evaluation. {ADVICE}")
    first, last = (read_results(path) for path in (evaluations[0], evaluations[-1]))
    if [result.key for result in first] != [result.key for result in last]:
        raise UserError(f"{evaluations[0]} and {evaluations[-1]} are not of the same problems. {ADVICE}")
    before, after = ([result.accuracy for result in results] for results in (first, last))
    value, low, high = paired_difference(before, after, [result.key for result in first]).estimate
    start = Path(read_json(run / "config.json", ADVICE)["model"])
    return Measured(
        sum(before) / len(before),
        sum(after) / len(after),
        Estimate(value, value if low is None else low, value if high is None else high),
        moved=not same_weights(start, run / "model"),
    )


def same_weights(first: Path, second: Path) -> bool:
    """Whether two model folders hold the same numbers, in whatever precision they are written."""
    one, other = (load_file(folder / "model.safetensors") for folder in (first, second))
    return one.keys() == other.keys() and all(torch.equal(one[name].double(), other[name].double()) for name in one)


def main(options: Options) -> int:
    """Exit status: 0 where every arm did what it must, 1 where one did not, 2 where there is no such run."""
    table = Table(
        "arm",
        "it must",
        "accuracy",
        "change, points",
        "weights",
        "did it?",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    failed = []
    try:
        for name in options.arms:
            arm, found = ARMS[name], measure(options.folder / name)
            holds = arm.holds(found, options.margin)
            failed += [] if holds else [name]
            value, low, high = (100 * end for end in found.change)
            table.add_row(
                name,
                arm.must,
                f"{found.before:.1%} → {found.after:.1%}",
                f"{value:+.1f} [{low:+.1f}, {high:+.1f}]",
                "moved" if found.moved else "the same",
                "yes" if holds else "NO",
            )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    Console(highlight=False).print(table)
    for name in failed:
        print(f"{name}: with a reward that is {ARMS[name].reward}, it must {ARMS[name].must}, and did not")
    if not failed:
        print("every arm did what it must")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
