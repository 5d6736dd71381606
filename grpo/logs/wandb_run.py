"""A run in wandb: each step once, through deaths and resumes, and one table of samples that stays small.

A section of the run's page is what stands before a key's slash: reward, length, group, policy, eval, time, memory.
wandb is never a reason for the training to end or to wait: where it fails, that is said once, and wandb is left alone.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from grpo.errors import UserError
from grpo.logs.bounded_call import described, within
from grpo.logs.metric_names import Metrics
from grpo.logs.pictures import Thinned, length_chart, sample_table
from grpo.logs.wandb_start import FINISH_SECONDS, Superseded, define_metrics, id_to_continue, parts, start

WANDB_MODES = ("auto", "online", "offline", "off")
"""What `--wandb` accepts; `auto` is online where an account is configured and offline elsewhere."""

ENVIRONMENT_MODES = {"online": "online", "run": "online", "offline": "offline", "dryrun": "offline", "disabled": "off"}
"""What WANDB_MODE may say -> what `--wandb` calls it."""

PICTURE_GROWTH = 1.25
"""A picture is uploaded at the first step, and whenever the run is this many times as long: 28 times in 1,000 steps."""

STEP_SECONDS = 30
"""What wandb has for taking a step's row, which it takes in a thousandth of a second where it is well."""


class WandbRun:
    """One training run in wandb: `log` adds a step, `finish` ends it. Neither raises what comes from wandb.

    Online, wandb's server tells at a resume which steps it has: earlier rows that it lacks are sent, and steps that it
    has are not sent again. Offline, a resumed run begins a new folder that holds every row; older ones are renamed.

    Args:
        folder: the run's folder; wandb writes to `folder/wandb`.
        mode: online or offline.
        rows, samples: what a resumed run has logged before. Where wandb was off or in the other mode then, a new
            wandb run begins with these rows.
        known: the id of the wandb run that is continued; None: the newest in wandb's folder.
        say: takes what the user must know.

    Raises: UserError where wandb does not start, such as without a network.
    """

    def __init__(
        self,
        folder: Path,
        mode: str,
        *,
        project: str,
        group: str | None,
        config: Mapping[str, Any],
        rows: Sequence[Metrics] = (),
        samples: Sequence[dict[str, Any]] = (),
        known: str | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.say = say or (lambda text: print(text, file=sys.stderr))
        self.mode = mode
        self.uploaded = self.step = 0
        self.best_accuracy: float | None = None
        self.stopped = False
        self.samples, self.lengths = Thinned(), Thinned()
        known = id_to_continue(folder, mode, known)
        older = [path for path, id_ in parts(folder, mode).items() if id_ == known] if mode == "offline" else []
        self.run = start(folder, mode, known, project=project, group=group, config=config)
        self.id: str = self.run.id
        self.folder = Path(self.run.dir).parent
        self.first_step = self.run.starting_step
        """The first that the server does not have; 0 where there is none to ask."""
        self.superseded = Superseded(older, self.folder / f"run-{self.id}.wandb")
        self._attempt(lambda: define_metrics(self.run))
        for row in rows:
            self._remember(row)
            self._send(row)
        for sample in samples:
            self.samples.add(sample)

    def log(self, metrics: Metrics, samples: Sequence[dict[str, Any]] = ()) -> None:
        """One step's row, and the pictures where they are due. What is None is left out."""
        self._attempt(self.superseded.look)
        self._remember(metrics)
        for sample in samples:
            self.samples.add(sample)
        self._send(metrics, pictures=self.step >= PICTURE_GROWTH * self.uploaded)

    def finish(self, exit_code: int) -> None:
        """The pictures of the whole run, and its end: wandb shows exit code 0 as finished and any other as failed."""
        if self.step > self.uploaded:
            self._attempt(self._finish_pictures)
        # wandb keeps to FINISH_SECONDS by itself, unless it is its own process that hangs.
        error = within(STEP_SECONDS + (0 if self.stopped else FINISH_SECONDS), lambda: self.run.finish(exit_code))
        if error is None:
            self._attempt(lambda: self.superseded.look(finished=True))
            return
        self._stop(f"wandb did not finish ({described(error)}). metrics.jsonl has every step. {self._rest()}")
        import wandb

        within(STEP_SECONDS, wandb.teardown)  # else the interpreter waits at its exit for wandb's process

    def _remember(self, row: Metrics) -> None:
        """What later rows are compared with and drawn beside; wandb's own maxima begin anew at a resume."""
        self.step = int(row["step"])
        self.lengths.add(row)
        if row.get("eval/accuracy") is not None:
            self.best_accuracy = max(row["eval/accuracy"], self.best_accuracy or 0.0)

    def _send(self, row: Metrics, pictures: bool = False) -> None:
        """The row as wandb's own step of that number, closed at once: a row held open would be lost at a kill."""
        if self.step < self.first_step:
            return

        def send() -> None:
            values = {name: value for name, value in row.items() if value is not None}
            self.run.log(values | (self._pictures() if pictures else {}), step=self.step, commit=True)
            if row.get("eval/accuracy") is not None:
                self.run.summary["eval/accuracy"] = {"last": row["eval/accuracy"], "max": self.best_accuracy}

        self._attempt(send)

    def _pictures(self) -> dict[str, Any]:
        self.uploaded = self.step
        return sample_table(self.samples.rows) | length_chart(self.lengths.rows)

    def _finish_pictures(self) -> None:
        """Into the summary, which wandb's page shows: the last row is closed, and another would be a step too many."""
        for key, picture in self._pictures().items():
            if hasattr(picture, "spec"):  # a chart, of which wandb keeps the table
                picture.set_key(key)
                key, picture = picture.spec.table_key, picture.table
            self.run.summary[key] = picture

    def _attempt(self, do: Callable[[], None]) -> None:
        if self.stopped:
            return
        if error := within(STEP_SECONDS, do):
            self._stop(
                f"wandb stopped at step {self.step} ({described(error)}). Training goes on without it; metrics.jsonl "
                "has every step, and a run that --resume continues sends wandb what is missing."
            )

    def _rest(self) -> str:
        """How what wandb did not take gets there. wandb's upload of a resumed part repeats what had arrived of it."""
        if self.run.resumed:
            return "To send wandb what is missing, continue this run by --resume."
        online = "--include-online " if self.mode == "online" else ""
        return f"`wandb sync {online}{shlex.quote(str(self.folder))}` uploads what wandb has on the disk."

    def _stop(self, text: str) -> None:
        if not self.stopped:
            self.stopped = True
            self.say(text)


# The mode --------------------------------------------------------------------------------------------------------


def resolve_wandb_mode(mode: str) -> str:
    """`--wandb`, and WANDB_MODE where that is `auto` -> online, offline or off.

    Raises: UserError for another word, for online without an account, and for an account that cannot be reached.
    """
    if mode not in WANDB_MODES:
        raise UserError(f"--wandb {mode} is not one of {', '.join(WANDB_MODES)}.")
    asked = f"--wandb {mode}"
    if mode == "auto" and (said := os.environ.get("WANDB_MODE")):
        if said not in ENVIRONMENT_MODES:
            raise UserError(f"WANDB_MODE={said} is not one of {', '.join(ENVIRONMENT_MODES)}.")
        mode, asked = ENVIRONMENT_MODES[said], f"WANDB_MODE={said}"
    if mode in ("off", "offline"):
        return mode
    import wandb

    try:
        account = wandb.login(prompt=False)
    except wandb.Error as error:
        raise UserError(f"wandb did not log in ({error}). Where there is no network, use --wandb offline.") from error
    if account:
        return "online"
    if mode == "auto":
        return "offline"
    raise UserError(f"{asked}, but no wandb account is configured. Run `wandb login`, or use --wandb offline.")
