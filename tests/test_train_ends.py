"""Whatever ends a run early: it is said, the last whole step is saved, and the run goes on."""

import errno
import math
import os
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from small_runs import HF, SMALL, finite, rows, run, same_end

from grpo.presets import EMBEDDED_MODEL
from grpo.train import main

ENDED = [*HF, "--steps", "4", "--save-every", "3", "--eval-every", "2", "--keep", "1", "--verifier-workers", "2"]
"""The run of the tests that end one early, which goes on to be the same as one that was not."""


@pytest.fixture(autouse=True)
def inside_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.vllm
def test_a_sync_that_does_not_arrive_stops_the_run(tmp_path, capsys, monkeypatch):
    from grpo.engines.vllm_engine import VLLMEngine

    real, calls = VLLMEngine.sync, []

    def second_is_lost(self, policy):
        calls.append(1)
        if len(calls) != 2:
            real(self, policy)

    monkeypatch.setattr(VLLMEngine, "sync", second_is_lost)
    assert main([*SMALL, "--name", "run", "--steps", "3", "--learning-rate", "1e-6", "--engine", "vllm"]) == 1
    said = capsys.readouterr().err
    assert "error: step 1: the update has changed the policy's log-probabilities" in said
    assert "checkpoint-1, the run as it was after step 1" in said and "--name run --resume" in said
    _, row = rows(tmp_path / "runs" / "run")  # the step was done: it has its row, but for what the sync would say
    assert row["step"] == 1 and row["policy/grad_norm"] > 0 and "policy/sync_gap" not in row
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert main(["--name", "run", "--resume"]) == 0
    assert [row["step"] for row in rows(tmp_path / "runs" / "run")] == [0, 1, 2, 3]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    assert main([*SMALL, "--name", "whole", "--runs-dir", str(folder), *ENDED]) == 0
    return folder / "whole"


INT, TERM = (signal.SIGINT, 130), (signal.SIGTERM, 143)


@pytest.mark.parametrize(
    "place,number,status",
    [
        ("verifiers", *TERM),
        ("credit", *INT),
        ("update", *TERM),
        ("sync", *INT),
        ("held_out_metrics", *TERM),
        ("save_checkpoint", *INT),
    ],
)
def test_a_signal_anywhere_saves_the_last_whole_step_and_the_run_goes_on_bit_for_bit(
    tmp_path, capsys, monkeypatch, uninterrupted, place, number, status
):
    from grpo import keeper, train
    from grpo.engines.hf_engine import HFEngine
    from grpo.model.policy import Policy
    from grpo.verifiers.verify import Verifiers

    owner, name = {
        "verifiers": (Verifiers, "__call__"),
        "credit": (train, "credit"),
        "update": (Policy, "update"),
        "sync": (HFEngine, "sync"),
        "held_out_metrics": (train, "held_out_metrics"),
        "save_checkpoint": (keeper, "save_checkpoint"),
    }[place]
    real, calls = getattr(owner, name), []
    at = {"update": 3, "sync": 4, "held_out_metrics": 3, "save_checkpoint": 1}.get(place, 3)  # in step 2 or 3

    def signalled(*arguments, **settings):
        calls.append(1)
        if len(calls) == at:
            os.kill(os.getpid(), number)
        return real(*arguments, **settings)

    monkeypatch.setattr(owner, name, signalled)
    assert main([*SMALL, "--name", "run", *ENDED]) == status
    said = capsys.readouterr().err
    folder = tmp_path / "runs" / "run"
    steps = [row["step"] for row in rows(folder)]
    assert f"interrupted by {signal.Signals(number).name}" in said and f"go on after step {steps[-1]}: " in said
    assert (folder / f"checkpoint-{steps[-1]}").is_dir() and not list(folder.glob(".*")) and 1 < len(steps) < 5
    monkeypatch.setattr(owner, name, real)
    assert main(["--name", "run", "--resume"]) == 0
    same_end(uninterrupted, folder)


def test_an_exception_is_raised_with_what_to_do(tmp_path, monkeypatch, uninterrupted):
    from grpo import train

    def broken(*_):
        raise ZeroDivisionError("a bug")

    real = train.credit
    monkeypatch.setattr(train, "credit", lambda *a: real(*a) if not (tmp_path / "now").exists() else broken())
    real_row = train.step_metrics
    monkeypatch.setattr(train, "step_metrics", lambda *a: ((tmp_path / "now").touch(), real_row(*a))[1])
    with pytest.raises(ZeroDivisionError) as error:
        main([*SMALL, "--name", "run", *ENDED])
    assert "go on after step 1: python -m grpo.train --name run --resume" in "\n".join(error.value.__notes__)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert main(["--name", "run", "--resume"]) == 0
    same_end(uninterrupted, tmp_path / "runs" / "run")


def spoiled(monkeypatch, steps):
    """NaN among the sampler's log-probabilities of the first response of these steps: the injected fault."""
    from grpo import train

    real, calls = train.collate, []

    def collate(groups, *arguments, **settings):
        batch = real(groups, *arguments, **settings)
        calls.append(1)
        if len(calls) in steps:
            batch.sampler_logprobs[0, batch.mask[0]] = math.nan
        return batch

    monkeypatch.setattr(train, "collate", collate)


def test_an_update_with_nan_is_skipped_counted_and_kept_for_replay(tmp_path, capsys, monkeypatch):
    from grpo.replay import main as replay

    spoiled(monkeypatch, {2})
    folder = run(tmp_path, "--engine", "hf", "--steps", "3", "--eval-problems", "0")
    said = capsys.readouterr().out
    assert [row["policy/skipped"] for row in rows(folder)] == [0, 1, 0]
    assert [row["policy/skipped_in_a_row"] for row in rows(folder)] == [0, 1, 0]
    assert all(finite(row) for row in rows(folder)) and rows(folder)[1]["policy/loss"] is None
    assert "step 2: 1 of 1 updates skipped. NaN or infinite: loss" in said
    assert [path.name for path in (folder / "rollouts").iterdir()] == ["step-000002.pt"]
    assert replay([str(folder / "rollouts" / "step-000002.pt")]) == 0


def test_three_skipped_updates_in_a_row_end_the_run_and_a_resumed_one_counts_on(tmp_path, capsys, monkeypatch):
    spoiled(monkeypatch, {1, 2, 3, 4})
    flags = ["--engine", "hf", "--steps", "5", "--eval-problems", "0", "--save-every", "2"]
    assert main([*SMALL, "--name", "run", *flags]) == 1
    said = capsys.readouterr().err
    assert "error: 3 updates in a row had a NaN or infinite number" in said and "go on after step 3" in said
    folder = tmp_path / "runs" / "run"
    assert [row["policy/skipped_in_a_row"] for row in rows(folder)] == [1, 2, 3]
    before = load_file(folder / "checkpoint-3" / "model.safetensors")
    start = load_file(EMBEDDED_MODEL / "model.safetensors")
    assert all(torch.equal(before[name], start[name]) for name in start)
    assert main(["--name", "run", "--resume"]) == 1 and rows(folder)[-1]["policy/skipped_in_a_row"] == 4


def test_a_warning_of_stop_on_ends_the_run(tmp_path, capsys):
    (tmp_path / "one.py").write_text("def reward(response): return 1.0\n")
    flags = ["--engine", "hf", "--steps", "60", "--eval-problems", "0", "--reward", "./one.py"]
    flags += ["--max-response-tokens", "4"]
    assert main([*SMALL, "--name", "run", *flags, "--stop-on", "uniform_groups"]) == 1
    said = capsys.readouterr()
    assert "warning: " in said.out and "error: --stop-on uniform_groups: " in said.err
    assert len(rows(tmp_path / "runs" / "run")) < 60 and "go on after step" in said.err


def test_a_full_disk_ends_the_run_in_words_with_the_last_checkpoint_whole(tmp_path, capsys, monkeypatch, uninterrupted):
    """The disk fills up while the second checkpoint is written, and once there is room the run goes on."""
    real, calls = torch.save, []

    def full(state, path):
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(state, path)

    monkeypatch.setattr("torch.save", full)
    assert main([*SMALL, "--name", "run", *ENDED]) == 1
    said = capsys.readouterr().err
    folder = tmp_path / "runs" / "run"
    assert "checkpoint-3 could not be saved" in said and "No space left" in said
    assert "saved: " in said and (folder / "checkpoint-3").is_dir()  # there was room again for the rescue
    assert main(["--name", "run", "--resume"]) == 0
    same_end(uninterrupted, folder)


def test_a_disk_that_takes_no_more_rows_ends_the_run_in_words(tmp_path, capsys, monkeypatch):
    from grpo.logs import logger

    real, calls = logger.append_jsonl, []

    def read_only(path, lines):
        calls.append(path)
        if len(calls) > 4:
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        real(path, lines)

    monkeypatch.setattr(logger, "append_jsonl", read_only)
    assert main([*SMALL, "--name", "run", *HF, "--steps", "4", "--save-every", "1"]) == 1
    said = capsys.readouterr().err
    assert "Read-only file system" in said and "go on after step 1: " in said
    monkeypatch.setattr(logger, "append_jsonl", real)
    assert main(["--name", "run", "--resume"]) == 0
    assert [row["step"] for row in rows(tmp_path / "runs" / "run")] == [0, 1, 2, 3, 4]


@pytest.mark.vllm
def test_the_command_leaves_no_word_of_a_library_at_its_end(tmp_path):
    """At the exit triton and torch look for what was not freed, and print hundreds of lines where they find some."""
    command = [sys.executable, "-m", "grpo.train", *SMALL, "--eval-problems", "0", "--steps", "1", "--name", "run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "leak" not in done.stderr and "nanobind" not in done.stdout + done.stderr
