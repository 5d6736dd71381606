"""What of a run is kept: checkpoints when they are due, and one more, whatever ends the run, of the last whole step.

The weights and the row of metrics.jsonl belong together. A step is whole where it has both; only whole steps are saved,
so that a resumed run has neither a gap nor a step twice.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from grpo.config import Config
from grpo.errors import RunError, UserError
from grpo.folders import mend_all, remove_folder
from grpo.interrupts import held_back
from grpo.logs.logger import Logger
from grpo.model.checkpoint import Trained, checkpoints, damage, save_checkpoint


class Keeper:
    """The checkpoints of one run: the last --keep, and the best by held-out accuracy."""

    def __init__(
        self, config: Config, trained: Trained, tokenizer: PreTrainedTokenizerBase, logger: Logger, done: int
    ) -> None:
        """done: the step that the run begins after, 0 where it begins anew."""
        self.config = config
        self.trained = trained
        self.tokenizer = tokenizer
        self.logger = logger
        self.whole: int | None = done
        """The step that the weights are of; None while they move from one to the next."""
        self.saved = done
        """The last step that is on the disk, or that the run begins after."""

    @contextmanager
    def whole_step(self, step: int) -> Iterator[None]:
        """From the first change of the weights to the step's row: a Ctrl-C or SIGTERM waits for the end of it."""
        self.whole = None
        with held_back():
            try:
                yield
            finally:
                if self.logger.last_step == step:  # the row is written after the last update, even if the sync failed
                    self.whole = step

    def save_if_due(self, step: int, accuracy: float | None) -> None:
        """Within `whole_step`, after the row: every --save-every steps, after the last, and where none was better."""
        if not self.config.save_every:
            return
        best = accuracy is not None and step == self._best([*checkpoints(self.config.run_folder), step])
        if best or step == self.config.steps or step % self.config.save_every == 0:
            self.save(step)

    def save(self, step: int) -> Path:
        """Write the checkpoint of a step, and remove those that need not stay. Raises: RunError."""
        run = self.config.run_folder
        folder = run / f"checkpoint-{step}"
        said = dict(config=self.config.to_json(), wandb_id=self.logger.wandb_id)
        save_checkpoint(folder, step, self.trained, self.tokenizer, **said)
        self.saved = step
        found = checkpoints(run)
        stay = {*list(found)[-self.config.keep :], self._best(found)}
        for other in found.keys() - stay:
            remove_folder(found[other])
        return folder

    @contextmanager
    def rescuing(self) -> Iterator[None]:
        """Whatever ends this block early: the last whole step is saved, and the error gets a note of how to go on."""
        try:
            yield
        except BaseException as error:
            with held_back():
                error.add_note(self._rescue(error))
            raise

    def _rescue(self, error: BaseException) -> str:
        said = []
        if self.whole is not None and self.whole > self.saved:
            try:
                said.append(f"saved: {self.save(self.whole)}, the run as it was after step {self.whole}")
            except RunError as failure:
                said.append("not saved" if str(failure) == str(error) else f"not saved: {failure}")
        elif self.whole is None:
            said.append("not saved: the weights were between two steps")
        found = checkpoints(self.config.run_folder)
        place = f"after step {max(found)}" if found else "from the beginning: no step of it is saved"
        return "\n".join([*said, f"go on {place}: {resume_command(self.config)}"])

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
    found, said = checkpoints(run), []
    for folder in reversed(found.values()):
        if (fault := damage(folder)) is None:
            return folder, said
        aside = folder.with_name(f"damaged-{folder.name}")
        if aside.exists():
            remove_folder(aside)
        folder.rename(aside)
        said.append(f"passed over: {folder.name} {fault}; it is {aside.name} now")
    if found:
        raise UserError(f"--resume: no checkpoint in {run} is whole: {'; '.join(said)}. Begin a new run, by --name.")
    if (run / "model").is_dir():
        raise UserError(
            f"--resume: the run {run} is done, and saved no checkpoint to go on from (--save-every). Begin a new run "
            f"from its model: --model {run / 'model'}."
        )
    return None, ["no checkpoint was saved before the run ended: it begins anew"]


def resume_command(config: Config) -> str:
    """The command that continues a run."""
    where = [] if config.runs_dir == Path("runs") else ["--runs-dir", str(config.runs_dir)]
    return shlex.join(["python", "-m", "grpo.train", "--name", config.name, *where, "--resume"])
