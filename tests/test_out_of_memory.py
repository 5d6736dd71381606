"""What says that memory has run out, real errors among it, and the paragraph that it ends in."""

import errno
import json

import pytest
import torch

from grpo.engines.hf_engine import HFEngine
from grpo.errors import RunError, UserError
from grpo.model.policy import Policy
from grpo.out_of_memory import OutOfMemory, out_of_memory, ran_out, said
from grpo.train import main

CARD = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.64 GiB of which 1.2 GiB is free. "
    "Including non-PyTorch memory, this process has 22.4 GiB memory in use. See documentation for Memory Management."
)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(CARD),
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("CUDA Error: out of memory at csrc/cumem_allocator.cpp:62"),  # vLLM that wakes
        ValueError("Free memory on device cuda:0 (3.2/23.6 GiB) is less than desired GPU memory utilization"),
        ValueError("No available memory for the cache blocks. Try increasing `gpu_memory_utilization`"),
        OutOfMemory("said already"),
    ],
    ids=lambda error: f"{type(error).__name__}: {str(error)[:20]}",
)
def test_memory_that_has_run_out(error):
    assert ran_out(error)


def test_the_allocator_of_this_cpu_says_it():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert ran_out(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes do not fit"),
        OSError(errno.ENOSPC, "No space left on device"),
        UserError("It does not fit: out of memory"),  # these two say what is wrong already
        RunError("out of memory"),
        KeyError("out of memory"),  # of a column's name
    ],
    ids=lambda error: f"{type(error).__name__}: {str(error)[:20]}",
)
def test_every_other_error(error):
    assert not ran_out(error)
    with pytest.raises(type(error)) as caught, out_of_memory("a place", "patience"):
        raise error
    assert caught.value is error


def test_the_paragraph_names_the_stage_and_what_helps_and_keeps_the_notes():
    error = torch.OutOfMemoryError(CARD)
    error.add_note("saved: checkpoint-3")
    with pytest.raises(OutOfMemory) as caught, out_of_memory("starting the engine", "a lower --memory-fraction"):
        raise error
    text = str(caught.value)
    assert text.startswith("Memory ran out in starting the engine (CUDA out of memory. Tried to allocate 2.00 GiB.")
    assert "1.2 GiB is free). What helps: a lower --memory-fraction. " in text and "--plan" in text
    assert caught.value.__notes__ == ["saved: checkpoint-3"]


def test_the_innermost_name_stands():
    with pytest.raises(OutOfMemory, match="in the inner"), out_of_memory("the outer", "x"):
        with out_of_memory("the inner", "y"):
            raise MemoryError


def test_an_error_without_words_has_its_name():
    assert said(MemoryError()) == "MemoryError"
    assert said(RuntimeError("one\n  two")) == "one two"


# Runs in which it happens -----------------------------------------------------------------------------------------

SMALL = ["--problems-per-step", "4", "--responses-per-problem", "4", "--eval-problems", "8", "--wandb", "off"]
SMALL += ["--engine", "hf", "--steps", "3", "--algo", "grpo", "--updates-per-step", "2"]


@pytest.fixture
def inside_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_whose_micro_batches_are_halved_is_the_same_but_for_rounding(inside_an_empty_folder, monkeypatch, capsys):
    assert main([*SMALL, "--name", "whole"]) == 0
    real = Policy.outputs

    def outputs(self, micro_batch):
        if micro_batch.inputs.numel() > 100:
            raise torch.OutOfMemoryError(CARD)
        return real(self, micro_batch)

    monkeypatch.setattr(Policy, "outputs", outputs)
    capsys.readouterr()
    assert main([*SMALL, "--name", "halved"]) == 0
    printed = capsys.readouterr().out
    assert "memory ran out in a backward pass over 8 responses" in printed.replace("\n", " ")
    names = (
        "reward/mean",
        "length/mean",
        "policy/grad_norm",
        "policy/kl",
        "policy/entropy",
        "policy/clip_low",
        "tokens",
    )
    runs = inside_an_empty_folder / "runs"
    whole, halved = rows(runs / "whole"), rows(runs / "halved")
    assert len(whole) == len(halved) == 4 and halved[-1]["policy/kl"] > 1e-6
    for one, other in zip(whole[1:], halved[1:], strict=True):
        for name in names:
            assert other[name] == pytest.approx(one[name], rel=1e-3, abs=1e-6), name
    assert halved[-1]["eval/accuracy"] == whole[-1]["eval/accuracy"]


def test_an_engine_that_runs_out_twice_ends_the_run_in_a_paragraph_and_its_last_step_is_saved(
    inside_an_empty_folder, monkeypatch, capsys
):
    real, calls = HFEngine.generate, []

    def generate(self, problems, group_size, *, on_response=None, **settings):
        calls.append(on_response)
        if len([call for call in calls if call]) >= 3:  # the step's own, not the probe's: from the third on
            raise torch.OutOfMemoryError(CARD)
        return real(self, problems, group_size, on_response=on_response, **settings)

    monkeypatch.setattr(HFEngine, "generate", generate)
    assert main([*SMALL, "--name", "x"]) == 1
    printed = capsys.readouterr()
    assert "the engine died (OutOfMemoryError" in printed.out.replace("\n", " ")
    error = printed.err
    assert error.startswith("error: Memory ran out in generating (CUDA out of memory. Tried to allocate 2.00 GiB.")
    assert "Traceback" not in error and "--memory-fraction" in error
    assert "saved:" in error and "--resume" in error
    assert (inside_an_empty_folder / "runs" / "x" / "checkpoint-1").is_dir()


def test_a_model_that_cannot_be_loaded_for_want_of_memory(inside_an_empty_folder, monkeypatch, capsys):
    def full(*_, **__):
        raise torch.OutOfMemoryError(CARD)

    monkeypatch.setattr("grpo.policies.load_model", full)
    assert main([*SMALL, "--name", "x"]) == 1
    assert capsys.readouterr().err.startswith("error: Memory ran out in loading the model (CUDA out of memory.")


def test_memory_that_runs_out_in_no_named_stage_is_a_paragraph_too(inside_an_empty_folder, monkeypatch, capsys):
    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr("grpo.train.credit", full)
    assert main([*SMALL, "--name", "x"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: Memory ran out in the run (MemoryError)") and "go on from the beginning" in error
