"""Runs of the command that take a second or two: the embedded model, in this process; and how two of them compare."""

import json
import math

import torch
from safetensors.torch import load_file

from grpo.train import main

SMALL = ["--problems-per-step", "4", "--responses-per-problem", "4", "--eval-problems", "8", "--wandb", "off"]
SMALL += ["--verifier-workers", "1"]  # their start is a good part of so short a run
HF = ["--engine", "hf", "--algo", "grpo", "--updates-per-step", "2"]


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def run(tmp_path, *flags, name="run"):
    assert main([*SMALL, "--name", name, *flags]) == 0
    return tmp_path / "runs" / name


def timeless(row):
    return {k: v for k, v in row.items() if not k.startswith(("time/", "memory/")) and k != "tokens_per_second"}


def finite(row):
    return all(value is None or math.isfinite(value) for value in row.values())


def same_end(one, other):
    """Two runs have the same weights to the last bit, and the same rows but for the clock's."""
    expected, found = (load_file(folder / "model" / "model.safetensors") for folder in (one, other))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert [timeless(row) for row in rows(one)] == [timeless(row) for row in rows(other)]
    assert (one / "samples.jsonl").read_text() == (other / "samples.jsonl").read_text()
