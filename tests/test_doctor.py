"""The command, whole: all is well, faults put in on purpose, exit status, and nothing written or trained."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from conftest import ROOT, make_model, make_tokenizer

from grpo import doctor
from grpo.diagnosis.memory import Place
from grpo.engines.hf_engine import HFEngine

SMALL = ["--engine", "hf", "--problems-per-step", "4", "--responses-per-problem", "4", "--eval-problems", "8"]


@pytest.fixture(autouse=True)
def inside_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def examine(capsys):
    """Run the command; returns its exit status and its words, on one line."""

    def run(*flags):
        status = doctor.main([*SMALL, *flags])
        return status, " ".join(capsys.readouterr().out.split())

    return run


def test_all_is_well_and_nothing_is_written_or_trained(tmp_path, examine, monkeypatch):
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *_: pytest.fail("a step of the optimizer"))
    status, text = examine()
    assert status == 0 and "0 faults, 0 not checked" in text and list(tmp_path.iterdir()) == []
    for check in ("versions", "data", "prompts", "ends", "gold answers", "memory", "sync", "responses", "cost"):
        assert f"{check} ok" in text
    assert "for 100 steps and their evaluations" in text


def test_the_name_of_a_run_that_exists_is_no_obstacle(tmp_path, examine):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    status, text = examine("--name", "mine")
    assert status == 0 and "exists already" not in text
    assert list((tmp_path / "runs").iterdir()) == [tmp_path / "runs" / "mine"]


@pytest.mark.parametrize(
    "flags,message",
    [
        (["--temperature", "0"], "--temperature 0.0 must be more than 0"),
        (["--data", "mathx"], "'mathx' is neither a built-in of data/"),
        (["--name", "none", "--resume"], "there is no run folder"),
    ],
)
def test_flags_that_a_run_refuses_end_with_status_2(capsys, flags, message):
    assert doctor.main([*SMALL, *flags]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_the_last_checkpoint_of_a_run_is_what_is_examined(tmp_path, examine):
    from grpo.train import main

    flags = ["--steps", "1", "--save-every", "1", "--wandb", "off", "--name", "mine"]
    assert main([*SMALL, *flags]) == 0
    before = sorted(tmp_path.rglob("*"))
    status, text = examine(*flags, "--resume")
    assert status == 0 and "0 faults, 0 not checked" in text and sorted(tmp_path.rglob("*")) == before


def test_a_verifier_that_takes_anything_is_a_fault(tmp_path, examine):
    (tmp_path / "any.py").write_text("def reward(response, answer):\n    return 1.0\n")
    status, text = examine("--reward", "./any.py")
    assert status == 1 and "fault any: 64 of 64 changed answers get full marks too" in text
    assert "warning 16 of 16 responses are correct; in 4 of 4 groups all rewards are equal" in text


def test_a_verifier_that_returns_no_reward_ends_no_other_check(tmp_path, examine):
    (tmp_path / "text.py").write_text("def reward(response, answer):\n    return 'yes'\n")
    status, text = examine("--reward", "./text.py")
    assert status == 1 and "gold answers fault" in text and "ends ok" in text


def test_a_base_model_whose_chat_template_ends_otherwise(tmp_path, examine):
    """Random weights: nothing is ever correct. The template's end is none of the model's, and ends a response too."""
    folder = make_model(tmp_path / "base", tied=True)
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] + '<end2>' }}{% endfor %}"
    tokenizer.save_pretrained(folder)
    for name in ("config.json", "generation_config.json"):
        config = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(config | {"eos_token_id": 1}))
    flags = ["--model", str(folder), "--data", "arithmetic", "--max-prompt-tokens", "32"]
    flags += ["--max-response-tokens", "64", "--updates-per-step", "2", "--responses-per-problem", "8"]
    status, text = examine(*flags)
    assert "a response ends at <end> (1), <end2> (2)" in text and "go on behind it" not in text
    assert "warning 0 of 32 responses are correct" in text
    assert status == 0 and "template chat ends a response by <end2> (2), which is one of them" in text


def test_an_engine_whose_log_probabilities_are_off_is_a_fault(examine, monkeypatch):
    real = HFEngine.generate

    def off(self, *arguments, **options):
        groups = real(self, *arguments, **options)
        return [
            replace(g, rollouts=tuple(replace(r, logprobs=tuple(v - 0.5 for v in r.logprobs)) for r in g.rollouts))
            for g in groups
        ]

    monkeypatch.setattr(HFEngine, "generate", off)
    status, text = examine()
    assert status == 1 and "engine against trainer fault" in text and "differ by 0.5 nats on average" in text
    assert " 4 faults, " in text  # each of the three syncs, too
    assert "cost ok" in text


def test_an_engine_that_fails_is_a_fault_with_its_error(capsys, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no such kernel \x1b[31m")

    monkeypatch.setattr(doctor, "make_engine", broken)
    assert doctor.main(SMALL) == 1
    printed = capsys.readouterr()
    assert r"fault RuntimeError: no such kernel \x1b[31m" in printed.out and "\x1b" not in printed.out
    assert "Traceback" in printed.err


def test_too_little_memory_and_the_model_is_not_loaded(examine, monkeypatch):
    monkeypatch.setattr(doctor, "place_of", lambda *_: Place(cuda=False, free=2**20))
    monkeypatch.setattr(doctor, "make_policy", lambda *_: pytest.fail("the model was loaded"))
    status, text = examine()
    assert status == 1 and "memory fault" in text and "gold answers ok" in text
    assert "not checked because of the fault above in: model or memory" in text


@pytest.mark.parametrize("where", ["make_policy", "make_engine", "rehearse"])
def test_memory_that_runs_out_is_a_fault_that_names_the_flags(capsys, monkeypatch, where):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(doctor, where, full)
    assert doctor.main(SMALL) == 1
    printed = capsys.readouterr()
    text = " ".join(printed.out.split())
    assert "memory fault Memory ran out in the rehearsal (CUDA out of memory. Tried to allocate 2.00 GiB)" in text
    assert "--micro-batch-tokens" in text and "Traceback" not in printed.err


def test_ctrl_c(capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "sync_findings", interrupted)
    assert doctor.main(SMALL) == 130
    assert "interrupted; nothing was written" in capsys.readouterr().err


@pytest.mark.vllm
def test_with_real_vllm(tmp_path):
    """In a process of its own: the embedded default, but for the KV cache."""
    command = [sys.executable, "-m", "grpo.doctor", "--engine", "vllm", "--kv-cache-gib", "0.1"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    text = " ".join(done.stdout.split())
    assert (
        "0 faults, 0 not checked" in text and "ok vllm: asked for" in text and "weights that were all changed" in text
    )
    assert list(tmp_path.iterdir()) == []
