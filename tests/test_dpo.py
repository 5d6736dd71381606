"""`python -m grpo.dpo`, on the embedded model: from text, and from rollouts that a run has saved."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from grpo.dpo import main
from grpo.files import write_jsonl
from grpo.train import main as train


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Wanted: the short answer, where the model writes its working."""
    folder = tmp_path_factory.mktemp("dpo")
    pairs = [(10 + i, 11 + i % 80) for i in range(30)]
    answers = [
        {"prompt": f"{a}+{b}=", "chosen": f"\\boxed{{{a + b}}}", "rejected": f"\\boxed{{{a}}}"} for a, b in pairs
    ]
    write_jsonl(folder / "pairs.jsonl", answers)
    write_jsonl(folder / "fewer.jsonl", answers[1:])
    return folder


def dpo(folder, name, *flags):
    flags = ["--data", str(folder / "pairs.jsonl"), "--runs-dir", str(folder), "--name", name, *flags]
    assert main([*flags, "--pairs-per-update", "9", "--epochs", "2"]) == 0
    return folder / name


def test_it_learns_and_says_what_it_learnt(folder, capsys):
    run = dpo(folder, "plain")
    logged = rows(run)
    assert len(logged) == 6 and logged[0]["train/loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert logged[0]["train/margin"] == pytest.approx(0, abs=1e-4)
    assert logged[-1]["held_out/margin"] > 0.3 and logged[-1]["held_out/accuracy"] == 1
    assert logged[-1]["held_out/chosen"] > logged[-1]["held_out/rejected"]
    assert logged[-1]["train/learning_rate"] == pytest.approx(1e-4 / 6)
    said = capsys.readouterr().out
    assert "27 pairs to train on, 3 held out" in said and "python -m grpo.evaluate --model" in said


def test_the_result_does_not_depend_on_micro_batches_nor_on_who_computed_the_reference(folder):
    run = dpo(folder, "whole")
    cut = dpo(folder, "cut", "--micro-batch-tokens", "40", "--reference", str(run / "reference.pt"))
    assert not (cut / "reference.pt").exists()
    one, other = (load_file(path / "model" / "model.safetensors") for path in (run, cut))
    for name, weight in one.items():
        torch.testing.assert_close(weight, other[name], atol=2e-5, rtol=1e-3)


def test_a_reference_of_other_pairs_is_refused(folder, capsys):
    run = dpo(folder, "for-reference")
    flags = ["--data", str(folder / "fewer.jsonl"), "--runs-dir", str(folder), "--name", "other"]
    assert main([*flags, "--reference", str(run / "reference.pt")]) == 2
    assert "is of other pairs than these" in capsys.readouterr().err


def test_chosen_responses_that_fall_are_said(folder, capsys):
    dpo(folder, "fast", "--learning-rate", "3e-3", "--beta", "0.05")
    assert "warning: the chosen responses have become" in capsys.readouterr().out


def test_from_rollouts_of_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    small = (
        "--problems-per-step 8 --responses-per-problem 4 --eval-problems 0 --wandb off --engine hf --steps 2".split()
    )
    assert train([*small, "--save-rollouts", "--name", "a"]) == 0
    assert main(["--data", "runs/a/rollouts", "--name", "b", "--sft-coef", "0.1"]) == 0
    (row,) = rows(tmp_path / "runs" / "b")
    assert row["train/chosen_tokens"] > 1 and row["train/grad_norm"] > 0.01
    assert "dropped whose scores do not tell" in capsys.readouterr().out
    assert main(["--data", "runs/a", "--name", "c"]) == 2
    assert "Its folder runs/a/rollouts holds some." in capsys.readouterr().err
