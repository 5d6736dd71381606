"""The command: what it refuses, what it reads; and whole, with real vLLM."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from synthetic_evaluations import TINY, named

from grpo.errors import UserError
from grpo.evaluate import locked, main
from grpo.evaluation.options import Options
from grpo.evaluation.resolve import resolve
from grpo.evaluation.results import read_results, write_results


@pytest.fixture(autouse=True)
def inside_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


REFUSED = [
    (["--model", "./nowhere"], "There is no model folder nowhere"),
    (["--data", "mathx"], "'mathx' is neither a built-in of data/"),
    (["--template", "qwen"], "There is no template 'qwen'"),
    (["--reward", "nothing"], "'nothing' is neither a built-in of rewards/"),
    (["--reward", "countdown"], "requires 'nums', 'target'"),
    (["--data-dir", "nowhere"], "--data-dir nowhere is no folder"),
    (["--responses", "0", "--no-greedy"], "leave nothing to generate"),
    (["--responses", "-1"], "--responses -1 must not be negative"),
    (["--temperature", "0"], "--temperature 0.0 must be more than 0"),
    (["--temperature", "2.5"], "--temperature 2.5 must not be more than 2"),
    (["--head-dtype", "bfloat16", "--engine", "hf", "--device", "cpu"], "--head-dtype bfloat16 saves time"),
    (["--chunk-problems", "0"], "--chunk-problems 0 must be more than 0"),
    (["--memory-fraction", "2"], "--memory-fraction 2.0 is a share"),
    (["--k", "9"], "--k 9: with 8 responses a problem, k is from 1 to 8"),
    (["--max-response-tokens", "5000"], "more than the 512 positions"),
    (["--out", TINY + "/config.json"], "config.json is a file. Give a folder"),
    (["--results"], "--results is given without a value"),
    (["--model"], "--model is given without a value"),
    (["--template"], "--template is given without a value"),
    (["--data", "--model", TINY], "--data is given without a value"),
    (["--results", "a.jsonl"], "a.jsonl cannot be read: No such file"),
    (["--results", "a.jsonl", "--template", "chat"], "--template has no meaning beside --results"),
]


@pytest.mark.parametrize("flags,message", REFUSED)
def test_what_is_refused_before_a_model_is_loaded(capsys, monkeypatch, flags, message):
    monkeypatch.setattr("grpo.evaluate.in_own_process", lambda *_: pytest.fail("too late"))
    assert main(flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in " ".join(error.split())


@pytest.mark.parametrize("flag,value", [("engine", "sglang"), ("device", "gpu")])
def test_a_choice_that_does_not_exist_is_refused_by_the_command_line_and_by_the_check(capsys, flag, value):
    with pytest.raises(SystemExit) as stop:
        main([f"--{flag}", value])
    assert stop.value.code == 2 and f"invalid choice '{value}'" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(UserError, match=f"--{flag} takes: auto, "):
        resolve(Options(**{flag: value}))


def test_two_commands_do_not_share_a_folder(tmp_path):
    with (
        locked(tmp_path / "out"),
        pytest.raises(UserError, match="Another command is writing"),
        locked(tmp_path / "out"),
    ):
        pass
    with locked(tmp_path / "out"):
        pass


def test_result_files_are_read_without_a_model(tmp_path, capsys, monkeypatch):
    """Seven problems, of which the second file has one more correct: that is noise."""
    for name, correct in (("a", 3), ("b", 4)):
        one = named({}, [[i < correct] for i in range(7)])
        write_results(tmp_path / f"{name}.jsonl", one.results)
    monkeypatch.setattr("grpo.evaluate.in_own_process", lambda *_: pytest.fail("no model is needed"))
    assert main(["--results", "a.jsonl", "b.jsonl"]) == 0
    printed = capsys.readouterr().out
    assert "b.jsonl − a.jsonl" in printed and "+14.3" in printed and "within noise" in printed
    assert {path.name for path in tmp_path.iterdir()} == {"a.jsonl", "b.jsonl"}
    assert main(["--results", "a.jsonl", "b.jsonl", "--out", "report"]) == 0
    (less,) = json.loads((tmp_path / "report" / "summary.json").read_text())["comparisons"]
    assert less["p_value"] == 1.0 and less["difference"]["value"] == pytest.approx(1 / 7)


# Whole ------------------------------------------------------------------------------------------------------------


def command(*flags):
    return [sys.executable, "-m", "grpo.evaluate", *map(str, flags)]


@pytest.mark.slow
def test_ctrl_c_keeps_whole_chunks_and_says_how_to_go_on(tmp_path):
    flags = ["--engine", "hf", "--responses", "0", "--chunk-problems", "8", "--out", "out"]
    # A session of its own, whose processes all get the signal, as from a terminal.
    begun = subprocess.Popen(
        command(*flags), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    for line in begun.stdout:
        if "16/256" in line:
            break
    os.killpg(begun.pid, signal.SIGINT)
    _, error = begun.communicate()
    assert begun.returncode == 130
    assert error.strip().endswith("the same command with the same --out goes on") and "Traceback" not in error
    assert len(read_results(tmp_path / "out" / "tiny--arithmetic--auto--greedy.jsonl")) % 8 == 0


def other_model(folder: Path) -> Path:
    """The tiny model with slightly other weights."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(TINY, folder)
    weights = load_file(folder / "model.safetensors")
    noise = torch.Generator().manual_seed(0)
    moved = {k: v + 0.02 * torch.randn(v.shape, generator=noise).to(v.dtype) for k, v in weights.items()}
    save_file(moved, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.slow
@pytest.mark.vllm
def test_two_models_two_templates_killed_and_resumed(tmp_path, capsys):
    """The killed and resumed command ends with the very files and report of the uninterrupted one."""
    flags = [
        "--model", TINY, other_model(tmp_path / "other"), "--data", "arithmetic", "--template", "chat", "plain",
        "--problems", "24", "--chunk-problems", "8", "--responses", "4", "--max-response-tokens", "64",
    ]  # fmt: skip
    whole = subprocess.run(command(*flags, "--out", "whole"), capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    evaluations = [
        f"{m}--arithmetic--{t}--{d}"
        for m in ("tiny", "other")
        for t in ("chat", "plain")
        for d in ("greedy", "sampled")
    ]
    assert {path.stem for path in (tmp_path / "whole").glob("*.jsonl")} == set(evaluations)

    begun = subprocess.Popen(command(*flags, "--out", "part"), stdout=subprocess.PIPE, text=True)
    for line in begun.stdout:
        if "sampled: 8/24" in line:
            break
    begun.send_signal(signal.SIGKILL)  # the command alone: its model's process must die with it
    begun.wait()
    begun.stdout.read()  # ends when no process holds the pipe
    left = {path.name: path.read_bytes() for path in (tmp_path / "part").glob("*.jsonl")}
    assert 0 < len(left) < 8 and not (tmp_path / "part" / "report.md").exists()
    time.sleep(1)
    assert left == {path.name: path.read_bytes() for path in (tmp_path / "part").glob("*.jsonl")}

    arguments = list(map(str, flags))
    assert main([*arguments, "--out", "part", "--seed", "1"]) == 2
    assert "--seed 0, and now it is 1" in capsys.readouterr().err
    resumed = subprocess.run(command(*flags, "--out", "part"), capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert "tiny, arithmetic, chat, greedy: 24 problems, finished before" in resumed.stdout
    for name in (*(f"{evaluation}.jsonl" for evaluation in evaluations), "report.md", "summary.json"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name

    assert main([*arguments, "--out", "part"]) == 0  # nothing is left to do, and no model is loaded
    assert capsys.readouterr().out.count("finished before") == 8
    found = json.loads((tmp_path / "part" / "summary.json").read_text())
    accuracy = {
        tuple(e[n] for n in ("model", "template", "decoding")): e["accuracy"]["value"] for e in found["evaluations"]
    }
    assert accuracy["tiny", "chat", "greedy"] > 0.7 and accuracy["tiny", "plain", "greedy"] < 0.2
    chat = next(c for c in found["comparisons"] if c["where"] == "arithmetic, chat, greedy")
    difference = accuracy["other", "chat", "greedy"] - accuracy["tiny", "chat", "greedy"]
    assert chat["difference"]["value"] == pytest.approx(difference) and chat["problems"] == 24
