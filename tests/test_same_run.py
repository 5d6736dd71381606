"""scripts/same_run.py on folders that differ in one thing."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from wandb.proto import wandb_internal_pb2

from grpo.files import write_jsonl


def compared(first, second):
    command = [sys.executable, ROOT / "scripts" / "same_run.py", first, second]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def row(step, seconds, **more):
    clock = {"time/step": seconds, "tokens_per_second": 100 / seconds, "memory/host_gib": seconds}
    return {"step": step, "reward/mean": step / 4, "tokens_total": 100.0 * step, **clock, **more}


def wandb_part(folder, name, rows):
    """A file as wandb writes it offline, of these rows; one more holds a picture alone."""
    (folder / "wandb" / name).mkdir(parents=True)
    content = b":W&B" + bytes(3)
    for each in [*rows, {"step": 2, "samples": {"_type": "table-file"}}]:
        record = wandb_internal_pb2.Record()
        for key, value in each.items():
            record.history.item.add(key=key, value_json=json.dumps(value))
        data = record.SerializeToString()
        content += struct.pack("<IHB", 0, len(data), 1) + data
    (folder / "wandb" / name / "run-a.wandb").write_bytes(content)


def make_run(folder, seconds):
    """A run of two steps that took so long."""
    for part in ("evaluations", "model", "critic", "checkpoint-2/critic"):
        (folder / part).mkdir(parents=True)
    rows = [{"step": 0, "eval/accuracy": 0.5, "tokens_total": 0.0}, row(1, seconds), row(2, seconds)]
    write_jsonl(folder / "metrics.jsonl", rows)
    write_jsonl(folder / "samples.jsonl", [{"step": 1, "response": "a"}, {"step": 2, "response": "b"}])
    write_jsonl(folder / "evaluations" / "step-000000.jsonl", [{"index": 0}])
    for part in ("model", "critic", "checkpoint-2", "checkpoint-2/critic"):
        (folder / part / "model.safetensors").write_bytes(b"weights")
    save_state(folder, seconds)
    (folder / "checkpoint-2" / "manifest.json").write_text(f'{{"trainer_state.pt": "digest {seconds}"}}')
    wandb_part(folder, "superseded-offline-run-1-a", rows[:2])
    wandb_part(folder, "offline-run-2-a", rows)
    return folder


def save_state(folder, seconds, moment=0.5):
    state = {"step": 2, "optimizer": {"state": {0: {"exp_avg": torch.tensor([moment, 1.0])}}, "lr": [0.1]}}
    torch.save(state | {"config": {"name": f"run-{seconds}"}}, folder / "checkpoint-2" / "trainer_state.pt")


@pytest.fixture
def runs(tmp_path):
    return make_run(tmp_path / "whole", 1.0), make_run(tmp_path / "resumed", 2.0)


def test_runs_that_differ_in_clock_and_name_are_the_same(runs):
    done = compared(*runs)
    assert done.returncode == 0 and done.stdout == "the same, but for the clock\n"


def metrics(run, rows):
    write_jsonl(run / "metrics.jsonl", [{"step": 0, "eval/accuracy": 0.5, "tokens_total": 0.0}, *rows])


SPOILT = {
    "a number": (
        lambda run: metrics(run, [row(1, 1.0), row(2, 1.0, **{"reward/mean": 0.5000001})]),
        "step 2 has reward/mean 0.5 and 0.5000001",
    ),
    "a key": (lambda run: metrics(run, [row(1, 1.0), row(2, 1.0, extra=3)]), "step 2 has extra None and 3"),
    "a step twice": (lambda run: metrics(run, [row(1, 1.0), row(1, 1.0), row(2, 1.0)]), "its steps are [0, 1, 1, 2]"),
    "a step missing": (lambda run: metrics(run, [row(2, 1.0)]), "its steps are [0, 2]"),
    "the end missing": (lambda run: metrics(run, [row(1, 1.0)]), "3 rows and 2"),
    "a sample": (lambda run: write_jsonl(run / "samples.jsonl", [{"step": 1}]), "samples.jsonl differs"),
    "the model": (lambda run: (run / "model" / "model.safetensors").write_bytes(b"w"), "model/model.safetensors diff"),
    "a checkpoint": (
        lambda run: (run / "checkpoint-2" / "model.safetensors").write_bytes(b"w"),
        "checkpoint-2/model.safetensors differs",
    ),
    "the critic": (
        lambda run: (run / "critic" / "model.safetensors").write_bytes(b"w"),
        "critic/model.safetensors diff",
    ),
    "a checkpoint's critic": (
        lambda run: (run / "checkpoint-2" / "critic" / "model.safetensors").write_bytes(b"w"),
        "checkpoint-2/critic/model.safetensors differs",
    ),
    "the optimizer": (lambda run: save_state(run, 2.0, moment=0.25), "holds another state of the optimizer"),
    "another checkpoint kept": (
        lambda run: (run / "checkpoint-2").rename(run / "checkpoint-1"),
        "checkpoint-1/model.safetensors is only in",
    ),
    "no evaluation": (lambda run: shutil.rmtree(run / "evaluations"), "evaluations/step-000000.jsonl is only in"),
    "half a folder": (lambda run: (run / ".checkpoint-2.part").mkdir(), ".checkpoint-2.part was left over"),
    "half a file": (lambda run: (run / "config.json.part").touch(), "config.json.part was left over"),
    "wandb has steps twice": (
        lambda run: wandb_part(run, "offline-run-1-a", [row(1, 1.0)]),
        "wandb: the steps sent are [0, 1, 1, 2], those of metrics.jsonl [0, 1, 2]",
    ),
}


@pytest.mark.parametrize("what", SPOILT)
def test_what_differs_is_said(runs, what):
    spoil, said = SPOILT[what]
    spoil(runs[1])
    done = compared(*runs)
    assert done.returncode == 1 and said in done.stdout and "the same" not in done.stdout


def test_a_folder_that_is_no_run(tmp_path):
    done = compared(tmp_path, tmp_path)
    assert done.returncode == 2 and "metrics.jsonl cannot be read" in done.stderr
