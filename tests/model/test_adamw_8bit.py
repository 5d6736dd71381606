"""torchao's 8-bit AdamW as it is used here: how far from 32 bits it may be by its own map, its bytes, and a run."""

import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from torch import nn

pytest.importorskip("torchao", reason="torchao is not installed: python -m pip install torchao==0.18.0")

from torchao.optim.quant_utils import create_dynamic_map

from grpo.model.adamw_8bit import AdamW8bit
from grpo.model.optimizers import state_bytes

RATE, BETA1, BETA2, EPSILON = 1e-2, 0.9, 0.95, 1e-8
BLOCK = 256
SHAPE = (64, 128)  # 32 blocks; torchao quantises tensors of 4,096 numbers and more


def half_step(*, signed):
    """The largest distance of a number in [-1, 1] (in [0, 1]) from the map's nearest value."""
    return torch.tensor(create_dynamic_map(signed)).diff().max().item() / 2


def block_errors(tensor, *, signed):
    """[...] -> [...]: how far quantisation may move each number: half a step of its block's largest."""
    largest = tensor.view(-1, BLOCK).abs().amax(1, keepdim=True)
    return (half_step(signed=signed) * largest).expand(-1, BLOCK).reshape(tensor.shape)


def after(optimizer_class, gradients):
    """A weight of zeros after an update for each gradient, and the optimizer."""
    weight = nn.Parameter(torch.zeros(SHAPE))
    optimizer = optimizer_class([weight], lr=RATE, betas=(BETA1, BETA2), eps=EPSILON, weight_decay=0.0)
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    return weight.detach(), optimizer


def gradients(count, power=3):
    """Normal numbers; to the third power, those of a block differ by many orders of magnitude."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(SHAPE, generator=generator) ** power for _ in range(count)]


def test_the_first_update_is_that_of_32_bits():
    """The moments are quantised after they have been used."""
    (exact, _), (found, _) = after(torch.optim.AdamW, gradients(1)), after(AdamW8bit, gradients(1))
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-7)


def test_the_moments_are_off_by_half_a_step_of_the_map_at_most():
    (_, exact), (_, optimizer) = after(torch.optim.AdamW, gradients(1)), after(AdamW8bit, gradients(1))
    (slot,), (true,) = optimizer.state.values(), exact.state.values()
    for name, signed in (("exp_avg", True), ("exp_avg_sq", False)):
        off = (slot[name].dequantize() - true[name]).abs()
        allowed = block_errors(true[name], signed=signed)
        assert (off <= 1.001 * allowed).all() and off.max() > 0.3 * allowed.max()  # the bound is not idle


@pytest.mark.parametrize("power", [1, 3])
def test_the_second_update_is_within_the_bound_that_follows(power):
    """From moments that are off by e, the update is off by no more than at the worst corner of m +- e and v +- e."""
    first, second = gradients(2, power)
    m, v = (1 - BETA1) * first, (1 - BETA2) * first.square()
    errors = BETA1 * block_errors(m, signed=True), BETA2 * block_errors(v, signed=False)
    m, v = torch.lerp(m, second, 1 - BETA1), torch.lerp(v, second.square(), 1 - BETA2)

    def moved(m, v):
        return RATE * (m / (1 - BETA1**2)) / ((v / (1 - BETA2**2)).sqrt() + EPSILON)

    smallest = (1 - BETA2) * second.square()  # a second moment that is quantised to 0 still gets the new gradient
    corners = [moved(m + a * errors[0], (v + b * errors[1]).maximum(smallest)) for a in (-1, 1) for b in (-1, 1)]
    allowed = torch.stack([(corner - moved(m, v)).abs() for corner in corners]).amax(0)
    (exact, _), (found, _) = (after(kind, [first, second]) for kind in (torch.optim.AdamW, AdamW8bit))
    off = (found - exact).abs()
    assert (off <= 1.001 * allowed + 1e-7).all() and off.max() > 1e-6
    assert off.median() < 0.02 * exact.abs().median()
    if power == 1:
        assert off.max() < 0.1 * RATE
    else:  # what the docstring of the file warns of: second moments that round to 0 beside first ones that do not
        assert off.max() > RATE and (off > RATE).float().mean() < 0.02


def test_the_state_takes_two_bytes_a_parameter_and_a_little():
    """A byte for each moment, a float32 scale for each block of 256, and the map, 1 KiB, of each moment."""
    _, optimizer = after(AdamW8bit, gradients(1))
    size = SHAPE[0] * SHAPE[1]
    assert state_bytes(optimizer) == 2 * (size + 4 * size // BLOCK + 4 * 256) + 4
    small = nn.Parameter(torch.zeros(100))
    small.grad = torch.ones(100)
    optimizer = AdamW8bit([small], lr=RATE)
    optimizer.step()
    assert state_bytes(optimizer) == 2 * 4 * 100 + 4


def command(tmp_path, *flags):
    line = [sys.executable, "-W", "default", "-m", "grpo.train", "--engine", "hf", "--device", "cpu", "--wandb", "off"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*line, *flags], capture_output=True, text=True, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return done


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_says_nothing_of_the_library_and_resumes_bit_for_bit(tmp_path):
    small = ["--eval-problems", "0", "--problems-per-step", "2", "--responses-per-problem", "4", "--save-every", "1"]
    small += ["--max-response-tokens", "8", "--optimizer", "adamw_8bit", "--steps", "2"]
    done = command(tmp_path, *small, "--name", "whole")
    assert "torchao" not in done.stdout + done.stderr and "register_constant" not in done.stderr
    command(tmp_path, *small[:-1], "1", "--name", "cut")
    command(tmp_path, "--name", "cut", "--resume", "--steps", "2")
    whole, cut = (
        {key: value for key, value in rows(tmp_path / "runs" / name)[-1].items() if key.split("/")[0] == "policy"}
        for name in ("whole", "cut")
    )
    assert whole == cut
    one, two = ((tmp_path / "runs" / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "cut"))
    assert one == two


@pytest.mark.slow
def test_it_learns_the_embedded_task_as_adamw_does(tmp_path):
    gains = {}
    for name in ("adamw", "adamw_8bit"):
        command(tmp_path, "--optimizer", name, "--steps", "30", "--eval-problems", "0", "--name", name)
        rewards = [row["reward/mean"] for row in rows(tmp_path / "runs" / name)]
        gains[name] = sum(rewards[-8:]) / 8 - sum(rewards[:8]) / 8
    assert gains["adamw"] > 0.1 and gains["adamw_8bit"] > 0.6 * gains["adamw"]
