"""Where a run is written: console, config.json, metrics.jsonl, samples.jsonl, and trackers. The loop never asks which.

with Logger(Path("runs/first"), steps=100, config={}, wandb_mode="off", project="grpo") as logger:
    logger.log({"step": 1, "reward/mean": 0.5})
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from grpo.errors import UserError
from grpo.files import append_jsonl, read_jsonl, write_json, write_jsonl
from grpo.logs.log_targets import Guarded, begin_all
from grpo.logs.metric_names import Metrics
from grpo.logs.run_versions import commit, versions
from grpo.logs.wandb_run import WandbRun, resolve_wandb_mode

SHOWN = {
    "reward/mean": "reward {:.2f}",
    "length/mean": "length {:5.1f}",
    "length/correct": "correct {:5.1f}",
    "length/incorrect": "incorrect {:5.1f}",
    "group/uniform": "uniform {:3.0%}",
    "policy/kl": "kl {:.4f}",
    "policy/entropy": "entropy {:.2f}",
    "policy/engine_gap": "gap {:.0e}",
    "tokens_per_second": "{:5.0f} tok/s",
    "time/step": "{:.1f}s",
}
"""The readable line of a step: metric -> how it is shown; absent values are left out."""


class Logger:
    """One run's folder, progress bar and wandb run."""

    def __init__(
        self,
        folder: Path,
        *,
        steps: int,
        first_step: int = 1,
        config: dict[str, Any],
        wandb_mode: str,
        project: str,
        group: str | None = None,
        wandb_id: str | None = None,
        log_to: Sequence[str] = (),
    ) -> None:
        wandb_mode = resolve_wandb_mode(wandb_mode)  # refused before the folder is made, which would then be in the way
        config = {**config, "versions": versions(), "commit": commit()}
        new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", config)  # first: what --resume needs to know
        again = first_step if first_step > 1 else 0  # step 0 is no update: a run that begins anew measures it anew
        rows, samples = (drop_rows_from(folder / name, again) for name in ("metrics.jsonl", "samples.jsonl"))
        self.console = Console(highlight=False, soft_wrap=True)
        self.wandb: WandbRun | None = None
        if wandb_mode != "off":
            place = dict(project=project, group=group, config=config, known=wandb_id, say=self.say)
            try:
                self.wandb = WandbRun(folder, wandb_mode, **place, rows=rows, samples=samples)
            except UserError:
                if new:
                    shutil.rmtree(folder)
                raise
        self.targets: list[Guarded] = begin_all(
            log_to,
            folder,
            project=project,
            group=group,
            config=config,
            rows=rows,
            resumed=first_step > 1,
            say=self.say,
        )
        self.folder = folder
        self.rows = rows
        """What a resumed run has logged before."""
        self.last_step: int | None = None
        self.accuracies: dict[int, float] = {}
        """Step -> held-out accuracy, where it was measured."""
        self.tokens_total = 0.0
        for row in rows:
            self._remember(row)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            refresh_per_second=2,
        )
        self.task = self.progress.add_task("steps", total=steps, completed=first_step - 1)

    def __enter__(self) -> Logger:
        self.progress.start()
        return self

    def __exit__(self, kind, error, trace) -> None:
        self.progress.stop()
        if self.wandb is not None:
            self.wandb.finish(exit_code=0 if kind is None else 1)
        for target in self.targets:
            target.finish()

    @property
    def wandb_id(self) -> str | None:
        """The id of the run in wandb; None where it is off."""
        return self.wandb and self.wandb.id

    def say(self, text: str) -> None:
        """One line on the console, above the progress bar."""
        self.console.print(text, markup=False)

    @contextmanager
    def row(self, metrics: Metrics, samples: Sequence[dict[str, Any]] = ()) -> Iterator[None]:
        """Log `metrics` with what the block has added to them, also where it raises: the step has been done."""
        try:
            yield
        finally:
            self.log(metrics, samples)

    def amend(self, metrics: Metrics) -> None:
        """Add to the last row of metrics.jsonl what the run ended too early to measure. Its row in wandb is closed."""
        rows = read_jsonl(self.folder / "metrics.jsonl")
        rows[-1] |= metrics
        write_jsonl(self.folder / "metrics.jsonl", rows)
        self.accuracies[self.last_step] = metrics["eval/accuracy"]
        self.say(step_line(rows[-1]))

    def log(self, metrics: Metrics, samples: Sequence[dict[str, Any]] = ()) -> None:
        """One step: a line on the console, a row of metrics.jsonl and of wandb, a few whole samples."""
        metrics = {**metrics, "tokens_total": self.tokens_total + generated(metrics)}
        if samples:
            append_jsonl(self.folder / "samples.jsonl", samples)
        append_jsonl(self.folder / "metrics.jsonl", [metrics])
        self._remember(metrics)
        if self.wandb is not None:
            self.wandb.log(metrics, samples)
        for target in self.targets:
            target.log(metrics)
        self.progress.update(self.task, completed=metrics["step"])
        self.say(step_line(metrics))

    def _remember(self, row: Metrics) -> None:
        self.last_step = int(row["step"])
        self.tokens_total += generated(row)
        if row.get("eval/accuracy") is not None:
            self.accuracies[self.last_step] = row["eval/accuracy"]


class SilentLogger(Logger):
    """Of a rank that does not write: it remembers what was logged, and says nothing."""

    def __init__(self, folder: Path, *, first_step: int) -> None:
        self.folder = folder
        self.wandb = None
        self.rows = rows_before(folder / "metrics.jsonl", first_step if first_step > 1 else 0)
        self.last_step = None
        self.accuracies = {}
        self.tokens_total = 0.0
        for row in self.rows:
            self._remember(row)

    def __enter__(self) -> SilentLogger:
        return self

    def __exit__(self, kind, error, trace) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def amend(self, metrics: Metrics) -> None:
        self.accuracies[self.last_step] = metrics["eval/accuracy"]

    def log(self, metrics: Metrics, samples: Sequence[dict[str, Any]] = ()) -> None:
        self._remember(metrics)


def generated(metrics: Metrics) -> float:
    """Response tokens generated in a step: those it trains on, and those that dynamic sampling dropped."""
    return (metrics.get("tokens") or 0.0) + (metrics.get("tokens_dropped") or 0.0)


def step_line(metrics: Metrics) -> str:
    """The readable line of one step."""
    shown = [text.format(metrics[name]) for name, text in SHOWN.items() if metrics.get(name) is not None]
    if metrics.get("eval/accuracy") is not None:
        shown.append(f"| held-out accuracy {accuracy_text(metrics)}, length {metrics['eval/length']:.1f}")
        shown += [f"| {name} {accuracy_text(metrics, f'{name}/')}" for name in sets_of(metrics)]
    return f"step {int(metrics['step']):4d}  " + "  ".join(shown)


def accuracy_text(metrics: Metrics, of_set: str = "") -> str:
    """`91.5% [88.2, 94.5]`: held-out accuracy with its 95% interval, where one problem does not leave it without.
    of_set: `NAME/` for one of several sets."""
    accuracy, low, high = (metrics.get(f"eval/{of_set}accuracy{end}") for end in ("", "_low", "_high"))
    interval = "" if low is None or high is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{accuracy:.1%}{interval}"


def sets_of(metrics: Metrics) -> list[str]:
    """The held-out sets of a row, where there are several."""
    found = (re.fullmatch("eval/(.+)/accuracy", name) for name in metrics)
    return [match[1] for match in found if match]


def summary(folder: Path) -> str:
    """The end of a run: accuracy and lengths before and after, and where everything was written."""
    rows = read_jsonl(folder / "metrics.jsonl")
    evaluated = [row for row in rows if row.get("eval/accuracy") is not None]
    lines = []
    if evaluated:
        first, last = evaluated[0], evaluated[-1]
        texts = {
            "accuracy": accuracy_text,
            "length": lambda row: f"{row['eval/length']:.1f} tokens",
            "truncated": lambda row: f"{row['eval/truncated']:.1%}",
        }
        for name in [name for name in sets_of(last) if name in sets_of(first)]:
            texts[name] = partial(accuracy_text, of_set=f"{name}/")
        for name, text in texts.items():
            lines.append(
                f"held-out {name:9s} {text(first):>19s} at step {first['step']}  ->  "
                f"{text(last):>19s} at step {last['step']}"
            )
    lines.append(f"model    {folder / 'model'} (a Hugging Face folder)")
    if (folder / "adapter").is_dir():
        lines.append(f"adapter  {folder / 'adapter'} (the LoRA adapter alone, which peft loads)")
    if (folder / "tensorboard").is_dir():
        lines.append(f"tensorboard --logdir {folder / 'tensorboard'} shows the curves")
    lines.append(f"metrics  {folder / 'metrics.jsonl'}, samples.jsonl and config.json beside it")
    if (folder / "wandb").is_dir():
        lines.append(f"wandb    {folder / 'wandb'} (offline runs: `wandb sync` uploads them)")
    return "\n".join(lines)


# Files -----------------------------------------------------------------------------------------------------------


def drop_rows_from(path: Path, step: int) -> list[dict[str, Any]]:
    """Remove rows of this step and later ones, which a run resumed at a checkpoint makes anew, and return the others.

    A torn last line goes, too. Raises: UserError for any other line that is no row.
    """
    kept = rows_before(path, step)
    if path.is_file():
        write_jsonl(path, kept)
    return kept


def rows_before(path: Path, step: int) -> list[dict[str, Any]]:
    """The rows of earlier steps. Raises: as above."""
    if not path.is_file():
        return []
    rows = read_jsonl(
        path,
        lambda row: (int(row["step"]), row),
        what="a row with its `step`",
        advice="Mend or remove the line.",
        errors="surrogatepass",
        torn=[],
    )
    return [row for at, row in rows if at < step]
