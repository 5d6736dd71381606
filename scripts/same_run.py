"""Are two finished runs the same in all but the clock? Exit status 1 where they are not.

    python scripts/same_run.py runs/whole runs/resumed

Compared are the rows of metrics.jsonl but for times and memory, samples and evaluations byte for byte, the model and
the checkpoints with the state of the optimizer bit for bit, and, where there are offline wandb runs, that they hold
each step once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from grpo.errors import UserError
from grpo.files import read_jsonl

ADVICE = "Give two folders of finished runs."
CLOCK = ("time/", "memory/", "tokens_per_second")
"""Keys of metrics.jsonl that begin so differ between equal runs."""
OWN = ("config", "wandb_id")
"""What a checkpoint's state says of its own run."""


@dataclass
class Options:
    """Compare two finished runs that should be the same."""

    first: tyro.conf.Positional[Path]
    """Folder of a run."""
    second: tyro.conf.Positional[Path]
    """Folder of the other."""


def differences(first: Path, second: Path) -> list[str]:
    """What differs between two runs, a line each; nothing where they are the same. Raises: UserError for no run."""
    return [*rows_differ(first, second), *files_differ(first, second), *left_over(second), *wandb_differs(second)]


def rows_differ(first: Path, second: Path) -> Iterator[str]:
    """The rows of metrics.jsonl: each step once and in order, and the same numbers."""
    one, other = (read_jsonl(run / "metrics.jsonl", advice=ADVICE) for run in (first, second))
    steps = [row["step"] for row in other]
    if steps != list(range(steps[0], steps[0] + len(steps))):
        yield f"metrics.jsonl of {second}: its steps are {steps}"
    if len(one) != len(other):
        yield f"metrics.jsonl: {len(one)} rows and {len(other)}"
    for row, same in zip(one, other, strict=False):
        for key in [key for key in {**row, **same} if not key.startswith(CLOCK)]:
            if row.get(key) != same.get(key):
                yield f"metrics.jsonl: step {row['step']} has {key} {row.get(key)} and {same.get(key)}"


def files_differ(first: Path, second: Path) -> Iterator[str]:
    """Samples, evaluations, model and checkpoints: the same files with the same content."""
    one, other = (set(written(run)) for run in (first, second))
    for name in sorted(one ^ other):
        yield f"{name} is only in {first if name in one else second}"
    for name in sorted(one & other):
        if name.endswith("trainer_state.pt"):
            if not same(state(first / name), state(second / name)):
                yield f"{name} holds another state of the optimizer, the schedule or the weight of the KL"
        elif (first / name).read_bytes() != (second / name).read_bytes():
            yield f"{name} differs"


def written(run: Path) -> Iterator[str]:
    """The names of the files whose content a run's numbers decide; a manifest has digests of others."""
    for pattern in ("samples.jsonl", "evaluations/*", "model/*", "critic/*", "checkpoint-*/**/*"):
        files = (path for path in run.glob(pattern) if path.is_file() and path.name != "manifest.json")
        yield from (str(path.relative_to(run)) for path in files)


def left_over(run: Path) -> Iterator[str]:
    """Hidden folders and torn files, which a death may leave and the end of a run may not."""
    for path in sorted([*run.glob(".*"), *run.rglob("*.part")]):
        yield f"{path} was left over"


def wandb_differs(run: Path) -> Iterator[str]:
    """The parts of an offline wandb run, but for those that a later part has superseded: each step once."""
    parts = sorted(run.glob("wandb/offline-run-*/run-*.wandb"))
    if not parts:
        return
    sent = sorted(step for part in parts for step in sent_steps(part))
    steps = [row["step"] for row in read_jsonl(run / "metrics.jsonl", advice=ADVICE)]
    if sent != steps:
        yield f"wandb: the steps sent are {sent}, those of metrics.jsonl {steps}"


def sent_steps(part: Path) -> Iterator[int]:
    """The steps whose rows of metrics are in a file of wandb's; rows of pictures alone are left out."""
    sys.path.append(str(Path(__file__).resolve().parent.parent / "tests" / "logs"))
    from wandb_file import records

    for record in records(part):
        if record.WhichOneof("record_type") == "history":
            row = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            if "tokens_total" in row or "eval/accuracy" in row:
                yield int(json.loads(row["step"]))


def state(path: Path) -> dict[str, Any]:
    """The trainer's state of a checkpoint, without what names its run."""
    return {name: value for name, value in torch.load(path, weights_only=True).items() if name not in OWN}


def same(one: Any, other: Any) -> bool:
    """Whether two values are the same, tensors in them bit for bit."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return one == other


def main(options: Options) -> int:
    """Exit status: 0 where the runs are the same, 1 where they are not, 2 where one is no run."""
    try:
        found = differences(options.first, options.second)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(found) if found else "the same, but for the clock")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
