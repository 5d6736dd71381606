"""What of a run is kept: checkpoints when they are due, and one more, whatever ends the run, of the last whole step.

The weights and the row of metrics.jsonl belong together. A step is whole where it has both; only whole steps are saved,
so that a resumed run has neither a gap nor a step twice.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from grpo.config import Config
from grpo.errors import UserError
from grpo.folders import mend_all, remove_folder
from grpo.interrupts import DROPPED, Interrupted, held_back
from grpo.logs.logger import Logger
from grpo.model.checkpoint import Trained, checkpoints, damage, save_checkpoint
from grpo.model.ranks import agreed


class Keeper:
    """The checkpoints of one run: the last --keep, and the best by held-out accuracy."""

    def __init__(
        self, config: Config, trained: Trained, tokenizer: PreTrainedTokenizerBase, logger: Logger, done: int
    ) -> None:
        """done: the step that the run begins after, 0 where it begins anew."""
        self.config = config
        self.trained = trained
        self.ranks = trained.policy.ranks
        self.tokenizer = tokenizer
        self.logger = logger
        self.whole: int | None = done
        """The step that the weights are of; None while they move from one to the next."""
        self.saved = done
        """The last step that is on the disk, or that the run begins after."""

    @contextmanager
    def whole_step(self, step: int) -> Iterator[None]:
        """From the first change of the weights to the step's row: a Ctrl-C or SIGTERM waits for the end of it."""
        with held_back():
            before, moves, self.whole = self.whole, self.trained.moves, None
            try:
                yield
            finally:
                if self.logger.last_step == step:  # the row is written after the last update, even if the sync failed
                    self.whole = step
                elif self.trained.moves == moves:  # as where memory runs out in the first backward pass
                    self.whole = before

    def save_if_due(self, step: int, accuracy: float | None) -> None:
        """Within `whole_step`, after the row: every --save-every steps, after the last, and where none was better.

        Without --save-every only after the last step of a run that was resumed: else its last checkpoint would be that
        of an end that is no longer one.
        """
        saved, every = checkpoints(self.config.run_folder), self.config.save_every
        best = accuracy is not None and step == self._best([*saved, step])
        due = (every and (best or step % every == 0)) or (step == self.config.steps and (every or saved))
        if self.ranks.told(bool(due)):
            self.save(step)

    def save(self, step: int) -> Path:
        """Write the checkpoint of a step, and remove those that need not stay. Raises: RunError."""
        folder = self.config.run_folder / f"checkpoint-{step}"
        said = dict(config=self.config.to_json(), wandb_id=self.logger.wandb_id)
        self._remove_surplus()  # of a run that is resumed with a smaller --keep, for want of space
        save_checkpoint(folder, step, self.trained, self.tokenizer, **said)
        self.saved = step
        self._remove_surplus()
        return folder

    @contextmanager
    def rescuing(self) -> Iterator[None]:
        """Whatever ends this block early: the last whole step is saved, and how to go on is said, also by the error."""
        try:
            yield
        except BaseException as error:
            note = "not saved: it was interrupted once more"
            with suppress(Interrupted), held_back(DROPPED):  # a signal that comes now changes nothing: it ends anyway
                note = self._rescue(error)
            error.add_note(note)
            raise

    def _rescue(self, error: BaseException) -> str:
        said = []
        if isinstance(error, Interrupted) and error.at_once:
            said.append("not saved: it was interrupted twice")
        elif self.ranks.size > 1 and not agreed(error):
            said.append("not saved: the other ranks, of which each has a part, were elsewhere")
        elif self.whole is not None and self.whole > self.saved:
            try:
                said.append(f"saved: {self.save(self.whole)}, the run as it was after step {self.whole}")
            except Exception as failure:  # a GPU that is gone, a disk: what ended the run is what must be said
                said.append("not saved" if str(failure) == str(error) else f"not saved: {failure}")
        elif self.whole is None:
            said.append("not saved: the weights were between two steps")
        found = checkpoints(self.config.run_folder)
        place = f"after step {max(found)}" if found else "from the beginning: no step of it is saved"
        return "\n".join([*said, f"go on {place}: {resume_command(self.config)}"])

    def _remove_surplus(self) -> None:
        if not self.ranks.writes:
            return
        found = checkpoints(self.config.run_folder)
        stay = {*list(found)[-self.config.keep :], self._best(found)}
        for other in found.keys() - stay:
            remove_folder(found[other])

    def _best(self, steps) -> int | None:
        """Of these steps the one with the highest held-out accuracy, the earliest of equals; None without any."""
        measured = {step: self.logger.accuracies[step] for step in steps if step in self.logger.accuracies}
        return max(measured, key=measured.get) if measured else None


def newest_whole(run: Path) -> tuple[Path | None, list[str]]:
    """The checkpoint that a run goes on from, None for its beginning; and what is to be said of that, a line each.

    What a death has left half-written is cleared away; a damaged checkpoint is passed over, and renamed so that it is
    not met again. Raises: UserError where going on from the beginning would throw away what is there.
    """
    mend_all(run)
    found, faults = checkpoints(run), {}
    for folder in reversed(found.values()):
        if (fault := damage(folder)) is None:
            return folder, [set_aside(bad, why) for bad, why in faults.items()]
        faults[folder] = fault
    if found:
        what = "; ".join(f"{folder.name} {fault}" for folder, fault in faults.items())
        raise UserError(f"--resume: no checkpoint in {run} is whole: {what}. Begin a new run, by --name.")
    if (run / "model").is_dir():
        raise UserError(
            f"--resume: the run {run} is done, and saved no checkpoint to go on from (--save-every). Begin a new run "
            f"from its model: --model {run / 'model'}."
        )
    return None, ["no checkpoint was saved before the run ended: it begins anew"]


def set_aside(folder: Path, fault: str) -> str:
    """Rename a damaged checkpoint; returns what is to be said of it."""
    aside = folder.with_name(f"damaged-{folder.name}")
    if aside.exists():
        remove_folder(aside)
    folder.rename(aside)
    return f"passed over: {folder.name} {fault}; it is {aside.name} now"


def resume_command(config: Config) -> str:
    """The command that continues a run."""
    where = [] if config.runs_dir == Path("runs") else ["--runs-dir", str(config.runs_dir)]
    return shlex.join(["python", "-m", "grpo.train", "--name", config.name, *where, "--resume"])
