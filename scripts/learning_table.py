"""Train every row of the algorithm table on a task over several seeds, and print what each has learnt as Markdown.

    python scripts/learning_table.py --data sorting                    # 45 runs; about 45 minutes on two cores
    python scripts/learning_table.py --data arithmetic --rows grpo dr_grpo --seeds 0 1 2 3 4

A run that is already there is not repeated, so an interrupted table goes on where it stopped; one that was made with
other arguments stops it. Everything after `--` is passed on to `grpo.train`.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import tyro

from grpo.algorithm.table import ALGORITHMS


@dataclass
class Options:
    """Train every row over several seeds, and print a table."""

    data: str = "arithmetic"
    """Task of the embedded model: arithmetic, sorting, parity."""
    rows: tuple[str, ...] = tuple(ALGORITHMS)
    """Rows of the algorithm table."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of each row."""
    steps: int = 60
    """Steps of a run."""
    jobs: int = 2
    """Runs at a time, of one thread each."""
    runs_dir: Path = Path("runs/learning")
    """Folder of the runs."""


@dataclass(frozen=True)
class Run:
    """One run of the table."""

    folder: Path
    command: list[str]
    extra: str
    """What was passed on to grpo.train, which its name does not tell: the first line of its log."""

    def rows(self) -> list[dict]:
        """Its metrics; none where it has not been finished."""
        if not (self.folder / "model").is_dir():
            return []
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text("utf-8").splitlines()]


def planned(options: Options, row: str, seed: int, extra: list[str]) -> Run:
    """The run of a row with a seed."""
    name = f"{options.data}-{row}-{options.steps}-seed{seed}"
    flags = {
        "--algo": row,
        "--data": options.data,
        "--steps": options.steps,
        "--seed": seed,
        "--eval-every": 0,
        "--name": name,
        "--runs-dir": options.runs_dir,
        "--wandb-group": f"learning-{options.data}",
    }
    command = [sys.executable, "-m", "grpo.train", *(str(part) for flag in flags.items() for part in flag), *extra]
    return Run(options.runs_dir / name, command, f"passed on: {shlex.join(extra) or 'nothing'}")


def finish(run: Run) -> None:
    """Run it unless it is done, without what an interrupted attempt has left. Raises: SystemExit where it fails, or was
    done with other arguments."""
    log = run.folder.with_suffix(".log")
    if run.rows():
        made = log.read_text("utf-8", "replace").partition("\n")[0] if log.is_file() else ""
        if made.startswith("passed on: ") and made != run.extra:
            raise SystemExit(f"{run.folder} had {made}; now {run.extra}. Remove it, or give another --runs-dir.")
        return
    if run.folder.exists():
        shutil.rmtree(run.folder)
    print(f"running {run.folder.name}", file=sys.stderr, flush=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as output:
        print(run.extra, file=output, flush=True)
        # One thread each: two runs share two cores better than one run uses them.
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        result = subprocess.run(run.command, stdout=output, stderr=subprocess.STDOUT, env=environment, check=False)
    if result.returncode:
        raise SystemExit(f"{run.folder.name} failed with status {result.returncode}; its output is {log}")


def spread(values: list[float], style: str) -> str:
    """`95.6% (94.9% to 96.5%)`: the mean over seeds, and the least and greatest of them."""
    mean, low, high = (format(value, style) for value in (fmean(values), min(values), max(values)))
    return mean if len(values) == 1 else f"{mean} ({low} to {high})"


def table_row(row: str, runs: list[Run]) -> str:
    """One line of the table: means over seeds, and how far they spread."""
    ends = [[r for r in run.rows() if r.get("eval/accuracy") is not None] for run in runs]
    cells = [
        f"{fmean(first['eval/accuracy'] for first, *_ in ends):.1%}",
        spread([last["eval/accuracy"] for *_, last in ends], ".1%"),
        f"{fmean(first['eval/length'] for first, *_ in ends):.1f}",
        spread([last["eval/length"] for *_, last in ends], ".1f"),
    ]
    return f"| `{row}` | {cells[0]} → {cells[1]} | {cells[2]} → {cells[3]} |"


def main() -> None:
    arguments = sys.argv[1:]
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    options = tyro.cli(Options, args=arguments[:cut], description=__doc__)
    runs = {row: [planned(options, row, seed, arguments[cut + 1 :]) for seed in options.seeds] for row in options.rows}
    with ThreadPoolExecutor(options.jobs) as pool:
        # Seed by seed, so that an interrupted table has all rows of the first seeds.
        for _ in pool.map(finish, [run for same_seed in zip(*runs.values(), strict=True) for run in same_seed]):
            pass
    print(f"| row | accuracy, step 0 → {options.steps} | length |\n|---|---|---|")
    for row, its_runs in runs.items():
        print(table_row(row, its_runs))


if __name__ == "__main__":
    main()
