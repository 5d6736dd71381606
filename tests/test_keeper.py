"""Which checkpoints are written and stay, and what a run that ends early leaves and says."""

import json
import os
import signal
from dataclasses import replace

import pytest
from conftest import make_policy

from grpo.algorithm.kl_weight import KLCoefficient, OldKLCoefficient
from grpo.config import Config
from grpo.errors import RunError, UserError
from grpo.folders import remove_folder
from grpo.interrupts import Interrupted, interruptible
from grpo.keeper import Keeper, newest_whole, resume_command
from grpo.logs.logger import Logger
from grpo.model.checkpoint import STATE, Trained, checkpoints, damage
from grpo.problems.lengths import EarlierLengths
from grpo.resolve import resolve


@pytest.fixture
def keep(tmp_path, tied_folder, tokenizer):
    """(flags) -> (keeper, logger, do): `do` takes one step of a run, with a held-out accuracy where one is given."""
    policy = make_policy(tied_folder)
    trained = Trained(policy, KLCoefficient(0.0), OldKLCoefficient(0.0), EarlierLengths([], waiting=False))

    def make(done=0, name="a", **flags):
        config = resolve(Config(name=name, runs_dir=tmp_path / "runs", steps=100, resume=done > 0))
        config = replace(config, **flags)
        logger = Logger(
            config.run_folder, steps=100, first_step=done + 1, config=config.to_json(), wandb_mode="off", project="p"
        )
        keeper = Keeper(config, trained, tokenizer, logger, done=done)

        def do(step, accuracy=None):
            with keeper.whole_step(step):
                logger.log(
                    {"step": step} | ({} if accuracy is None else {"eval/accuracy": accuracy, "eval/length": 1.0})
                )
                keeper.save_if_due(step, accuracy)

        return keeper, logger, do

    return make


def kept(keeper):
    return list(checkpoints(keeper.config.run_folder))


def test_the_last_few_stay(keep):
    keeper, _, do = keep(save_every=2, keep=2)
    seen = []
    for step in range(1, 9):
        do(step)
        seen.append(kept(keeper))
    assert seen == [[], [2], [2], [2, 4], [2, 4], [4, 6], [4, 6], [6, 8]]


def test_the_best_by_held_out_accuracy_stays_and_is_saved_whenever_it_comes(keep):
    keeper, _, do = keep(save_every=4, keep=1)
    accuracies = {3: 0.4, 5: 0.7, 7: 0.7, 9: 0.6}  # equals: the earliest is the best
    seen = {}
    for step in range(1, 13):
        do(step, accuracies.get(step))
        seen[step] = kept(keeper)
    assert seen[3] == [3] and seen[4] == [3, 4] and seen[5] == [5] and seen[7] == [5]
    assert seen[8] == [5, 8] and seen[12] == [5, 12]


def test_the_last_step_is_saved_so_that_the_run_can_be_extended_and_none_without_save_every(keep):
    keeper, _, do = keep(save_every=30, steps=5)
    for step in range(1, 6):
        do(step)
    assert kept(keeper) == [5]
    keeper, _, do = keep(save_every=0, steps=5, name="b")
    for step in range(1, 6):
        do(step, 0.5)
    assert kept(keeper) == []


def notes(error):
    return "\n".join(error.value.__notes__)


def test_what_ends_a_run_saves_its_last_whole_step_once(keep):
    keeper, _, do = keep(save_every=0)
    with pytest.raises(ZeroDivisionError) as error, keeper.rescuing():
        do(1)
        do(2)
        raise ZeroDivisionError
    assert kept(keeper) == [2]
    assert "checkpoint-2, the run as it was after step 2" in notes(error)
    assert f"go on after step 2: {resume_command(keeper.config)}" in notes(error)
    with pytest.raises(ZeroDivisionError) as error, keeper.rescuing():
        raise ZeroDivisionError
    assert kept(keeper) == [2] and "saved:" not in notes(error)


def test_between_two_steps_nothing_is_saved(keep):
    """The weights have moved and the row is not written: the step before is no longer there to be saved."""
    keeper, _, do = keep(save_every=0)
    with pytest.raises(ZeroDivisionError) as error, keeper.rescuing():
        do(1)
        with keeper.whole_step(2):
            keeper.trained.policy.moves += 1
            raise ZeroDivisionError
    assert kept(keeper) == [] and "between two steps" in notes(error)
    assert "go on from the beginning: no step of it is saved" in notes(error)


def test_a_step_that_ends_before_the_weights_move_leaves_the_one_before_whole(keep):
    """As where memory runs out in the first backward pass."""
    keeper, _, do = keep(save_every=0)
    with pytest.raises(ZeroDivisionError) as error, keeper.rescuing():
        do(1)
        with keeper.whole_step(2):
            raise ZeroDivisionError
    assert kept(keeper) == [1] and "go on after step 1" in notes(error)


def test_a_second_signal_is_taken_at_its_word_and_one_during_the_rescue_changes_nothing(keep, monkeypatch, capfd):
    keeper, _, do = keep(save_every=0)
    with pytest.raises(Interrupted) as error, interruptible(), keeper.rescuing():
        do(1)
        with keeper.whole_step(2):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
    assert kept(keeper) == [] and "interrupted twice" in notes(error)
    real = keeper._rescue

    def signalled(error):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(error)

    monkeypatch.setattr(keeper, "_rescue", signalled)
    keeper.whole = 1
    with pytest.raises(RunError, match="the reason") as error, interruptible(), keeper.rescuing():
        raise RunError("the reason")
    assert kept(keeper) == [1] and "saved: " in notes(error) and "the run is ending" in capfd.readouterr().err


def test_a_step_whose_row_is_written_is_whole_whatever_comes_after(keep):
    keeper, logger, _ = keep(save_every=0)
    with pytest.raises(RunError), keeper.rescuing(), keeper.whole_step(1), logger.row({"step": 1}):
        raise RunError("the sync failed")
    assert kept(keeper) == [1]
    assert json.loads((keeper.config.run_folder / "metrics.jsonl").read_text())["step"] == 1


def test_a_signal_waits_for_the_end_of_the_step_and_the_step_is_saved(keep):
    keeper, _, do = keep(save_every=0)
    with pytest.raises(Interrupted), interruptible(), keeper.rescuing():
        do(1)
        with keeper.whole_step(2):
            os.kill(os.getpid(), signal.SIGTERM)
            keeper.logger.log({"step": 2})
        raise AssertionError("not reached")
    assert kept(keeper) == [2]


def test_a_rescue_that_fails_does_not_hide_what_ended_the_run(keep, monkeypatch):
    keeper, _, do = keep(save_every=1)

    def full(*_, **__):
        raise RunError("no space left")

    with pytest.raises(ZeroDivisionError) as error, keeper.rescuing():
        do(1)
        monkeypatch.setattr("grpo.keeper.save_checkpoint", full)
        with pytest.raises(RunError):
            do(2)
        raise ZeroDivisionError
    assert "not saved: no space left" in notes(error) and "go on after step 1" in notes(error)
    assert damage(keeper.config.run_folder / "checkpoint-1") is None


def test_a_resumed_run_knows_the_best_of_before(keep):
    _, _, do = keep(save_every=2, keep=1)
    for step, accuracy in ((1, None), (2, 0.9), (3, None), (4, 0.5)):
        do(step, accuracy)
    keeper, _, do = keep(save_every=2, keep=1, done=4)
    for step, accuracy in ((5, 0.8), (6, None)):
        do(step, accuracy)
    assert kept(keeper) == [2, 6]


def test_the_newest_whole_checkpoint_is_found_and_damaged_ones_are_set_aside(keep):
    keeper, _, do = keep(save_every=1, keep=3)
    for step in (1, 2, 3):
        do(step)
    run = keeper.config.run_folder
    (run / ".checkpoint-4.part").mkdir()
    (run / "checkpoint-3" / STATE).write_bytes(b"half")
    (run / "checkpoint-2" / "model.safetensors").unlink()
    found, said = newest_whole(run)
    assert found == run / "checkpoint-1" and damage(found) is None
    assert said == [
        f"passed over: checkpoint-3 {STATE} is not what was written; it is damaged-checkpoint-3 now",
        "passed over: checkpoint-2 has no model.safetensors; it is damaged-checkpoint-2 now",
    ]
    assert not (run / ".checkpoint-4.part").exists() and kept(keeper) == [1]
    assert newest_whole(run) == (found, [])


def test_without_a_checkpoint_a_run_begins_anew_but_not_over_what_it_has_done(keep):
    keeper, _, do = keep(save_every=1)
    run = keeper.config.run_folder
    assert newest_whole(run) == (None, ["no checkpoint was saved before the run ended: it begins anew"])
    do(1)
    (run / "checkpoint-1" / STATE).write_bytes(b"half")
    for _ in range(2):  # it stays so: nothing is renamed where nothing whole is left
        with pytest.raises(UserError, match=r"no checkpoint in .* is whole"):
            newest_whole(run)
    remove_folder(run / "checkpoint-1")
    (run / "model").mkdir()
    with pytest.raises(UserError, match="is done, and saved no checkpoint"):
        newest_whole(run)


def test_the_command_that_goes_on(tmp_path):
    config = resolve(Config(name="my run", runs_dir=tmp_path))
    assert resume_command(config) == f"python -m grpo.train --name 'my run' --runs-dir {tmp_path} --resume"
    assert resume_command(resolve(Config(name="a"))) == "python -m grpo.train --name a --resume"
