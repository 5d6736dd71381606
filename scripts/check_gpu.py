"""Try this project on the card of this machine, and write a report that can be pasted.

    python scripts/check_gpu.py                      about 12 minutes
    python scripts/check_gpu.py --quick              about 3: smaller shapes
    python scripts/check_gpu.py --device cpu         the same on the CPU with a tiny shape, to try the script itself

What is here, the tests that need a card, two steps of a real shape with random weights, the memory that --plan promises
against what is measured, what makes an update fast, and the benchmark. Nothing is downloaded. A part that fails or
takes too long ends no other one. Exit status: 0 all is well, 1 not. Report and logs go to the folder gpu-check.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from gpu_bench import Bench, Part
from gpu_parts import PARTS
from gpu_report import report

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Options:
    """Try this project on the card of this machine, and write a report that can be pasted."""

    device: Literal["cuda", "cpu"] = "cuda"
    """cpu: the same with a tiny shape, to try the script itself."""
    quick: bool = False
    """Smaller shapes."""
    out: Path = Path("gpu-check")
    """Folder for report.md and the logs; the one of an earlier check is replaced."""


def environment(device: str) -> dict[str, str]:
    """Of every process: this checkout before any other, and no card for a check on the CPU."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    found = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "WANDB_MODE": "offline"}
    return found | ({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {})


def attempt(name: str, part: Callable[[Bench], Part], bench: Bench) -> Part:
    """A part, whatever becomes of it."""
    print(f"{name} ...", flush=True)
    started = time.monotonic()
    try:
        found = part(bench)
    except Exception as error:  # a defect of the check, or a log that is not what it should be: the others go on
        found = Part(False, f"{type(error).__name__}: {error}")
    found.seconds = time.monotonic() - started
    print(f"{name}: {found.word}, {found.seconds:.0f} s", flush=True)
    return found


def main() -> int:
    options = tyro.cli(Options, description=__doc__)
    folder = options.out.resolve()
    if folder.exists() and not (folder / "report.md").exists() and any(folder.iterdir()):
        print(f"error: --out {options.out} holds something else. Give a new folder.", file=sys.stderr)
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "report.md").write_text("The check has not ended.\n")
    bench = Bench(folder, options.device, options.quick, environment(options.device))
    parts: dict[str, Part] = {}
    try:
        for name, part in PARTS.items():
            parts[name] = attempt(name, part, bench)
            if parts[name].final:
                break
    except KeyboardInterrupt:
        parts["interrupted"] = Part(False, "Ctrl-C: what would have come next was left out.")
    shutil.rmtree(folder / "model", ignore_errors=True)  # gibibytes of random numbers
    text = report(parts, bench.command)
    (folder / "report.md").write_text(text)
    print(f"\n{text}\nThe report is {options.out / 'report.md'}, and the logs are beside it.")
    return 0 if all(part.well for part in parts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
