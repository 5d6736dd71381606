"""A model's own process: how it ends reaches the command."""

import multiprocessing
import signal
import sys

import pytest

from grpo.evaluate import main
from grpo.evaluation.model_process import ProcessFailed, _child, in_own_process
from grpo.evaluation.options import Options


@pytest.fixture(autouse=True)
def inside_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_verifier_that_always_fails_ends_the_command_with_its_message(tmp_path, capfd):
    """In the model's own process; its message and its exit status reach the console."""
    (tmp_path / "bad.py").write_text("def reward(response): raise RuntimeError('never works')\n")
    flags = ["--engine", "hf", "--problems", "2", "--responses", "0", "--reward", "./bad.py", "--out", "out"]
    assert main(flags) == 2
    error = capfd.readouterr().err
    assert "error: verifier 'bad' failed on at least" in error and "never works" in error
    assert not list((tmp_path / "out").glob("*.jsonl"))


@pytest.mark.vllm
def test_memory_that_runs_out_ends_in_one_paragraph(capfd):
    """Real vllm, whose cache is too small for one response."""
    assert main(["--problems", "2", "--responses", "0", "--kv-cache-gib", "0.0001", "--out", "out"]) == 1
    error = capfd.readouterr().err
    said = error.splitlines()[-1]  # after vllm's own notes of its start
    assert said.startswith("error: Memory ran out in evaluating ") and "Traceback" not in error
    assert "--kv-cache-gib on a CPU" in said and said.endswith("What was finished is kept in --out.")


class Ends:
    """What ends the process that unpickles it."""

    def __init__(self, how, value):
        self.how = how, (value,)

    def __reduce__(self):
        return self.how


def test_a_process_that_is_killed_is_told_of(capfd):
    with pytest.raises(ProcessFailed) as failed:
        in_own_process("some/model", [Ends(signal.raise_signal, signal.SIGKILL)], Options())
    assert failed.value.status == 1
    assert "error: the process that evaluated some/model was killed (SIGKILL)" in capfd.readouterr().err


def test_its_exit_status_is_kept(capfd):
    with pytest.raises(ProcessFailed) as failed:
        in_own_process("some/model", [Ends(sys.exit, 7)], Options())
    assert failed.value.status == 7 and capfd.readouterr().err == ""


def test_it_ends_where_its_command_is_gone():
    """Its parent is another process than the one that has started it."""
    process = multiprocessing.get_context("spawn").Process(target=_child, args=(0, "some/model", [], Options()))
    process.start()
    process.join()
    assert process.exitcode == 1
