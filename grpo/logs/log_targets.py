"""`--log-to`: TensorBoard and trackio, each through its own library, beside wandb and the run's own files.

A tracker is never a reason for the training to end or to wait: where it fails, that is said once, and it is left alone.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from grpo.errors import UserError
from grpo.logs.bounded_call import described, within
from grpo.logs.metric_names import Metrics

LOG_TARGETS = ("tensorboard", "trackio")
"""What `--log-to` takes; each is the name of its library."""

STEP_SECONDS = 30
"""What a tracker has for a step's row, and for its end twice as much."""


class Target(Protocol):
    """Takes rows. Its methods may raise, and hang."""

    def log(self, metrics: Metrics) -> None: ...

    def finish(self) -> None: ...


def check_log_targets(names: Sequence[str]) -> None:
    """Raises: UserError for a target whose library is not installed, or that is named twice."""
    if len(set(names)) < len(names):
        raise UserError(f"--log-to {' '.join(names)} names one twice.")
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"--log-to {name} needs the library {name}, which is not installed in this environment. Run `python -m "
                f"pip install {name}`, or leave it out: metrics.jsonl has every step in any case."
            )


class Guarded:
    """A target that neither raises nor holds up the run: `begin` makes it and sends it the earlier rows.

    say: takes what the user must know.
    """

    def __init__(self, name: str, begin: Callable[[], Target], rows: Sequence[Metrics], say: Callable[[str], None]):
        self.name, self.say = name, say
        self.target: Target | None = None

        def start() -> None:
            target = begin()
            for row in rows:
                target.log(row)
            self.target = target

        self._attempt(start, "did not start")

    def log(self, metrics: Metrics) -> None:
        if self.target is not None:
            self._attempt(lambda: self.target.log(metrics), f"stopped at step {metrics['step']}")

    def finish(self) -> None:
        if self.target is not None:
            self._attempt(self.target.finish, "did not finish", times=2)

    def _attempt(self, do: Callable[[], None], what: str, times: int = 1) -> None:
        if error := within(times * STEP_SECONDS, do):
            self.target = None
            self.say(f"{self.name} {what} ({described(error)}). The run goes on; metrics.jsonl has every step.")


class TensorBoard:
    """Event files in `folder`/tensorboard. A resumed run writes them anew, with every step once."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        self.writer = SummaryWriter(str(folder / "tensorboard"))

    def log(self, metrics: Metrics) -> None:
        for name, value in numbers(metrics).items():
            self.writer.add_scalar(name, value, int(metrics["step"]))
        self.writer.flush()  # a kill loses nothing

    def finish(self) -> None:
        self.writer.close()


class Trackio:
    """A run of trackio, in its own store (TRACKIO_DIR). A resumed run goes on: steps that are there stay."""

    def __init__(self, folder: Path, project: str, group: str | None, config: Mapping[str, Any], resumed: bool) -> None:
        import trackio

        self.known = last_step(project, folder.name) if resumed else -1
        self.run = trackio.init(
            project=project,
            name=folder.name,
            group=group,
            config=dict(config),
            resume="allow" if resumed else "never",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, metrics: Metrics) -> None:
        step = int(metrics["step"])
        if step > self.known:
            self.run.log(numbers(metrics), step=step)

    def finish(self) -> None:
        self.run.finish()


def last_step(project: str, name: str) -> int:
    """The last step that trackio has on this machine of the newest run of this name; -1 where there is none."""
    import trackio
    from trackio.sqlite_storage import SQLiteStorage  # its public interface does not say

    try:
        runs = [run for run in trackio.Api().runs(project) if run.name == name]
    except ValueError:  # there is no such project
        return -1
    found = SQLiteStorage.get_max_step_for_run(project, name, run_id=runs[-1].id) if runs else None
    return -1 if found is None else found


def numbers(metrics: Metrics) -> dict[str, float]:
    """The row without `step`, which is the axis, and without what is None."""
    return {name: float(value) for name, value in metrics.items() if value is not None and name != "step"}


def begin_all(
    names: Sequence[str],
    folder: Path,
    *,
    project: str,
    group: str | None,
    config: Mapping[str, Any],
    rows: Sequence[Metrics],
    resumed: bool,
    say: Callable[[str], None],
) -> list[Guarded]:
    """The targets of `--log-to`, with the rows that a resumed run has logged before."""
    begin = {
        "tensorboard": lambda: TensorBoard(folder),
        "trackio": lambda: Trackio(folder, project, group, config, resumed),
    }
    return [Guarded(name, begin[name], rows, say) for name in names]
