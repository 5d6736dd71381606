"""scripts/sanity.sh and sanity.py: the verdict on runs whose numbers are known, and real arms, healthy and broken."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import pytest
import torch
import tyro
from conftest import ROOT
from safetensors.torch import load_file, save_file
from synthetic_evaluations import problem, response

from grpo.evaluation.results import write_results
from grpo.plugins import load
from grpo.presets import EMBEDDED_MODEL

sys.path.append(str(ROOT / "scripts"))
from sanity import Options, main

REWARDS = str(ROOT / "scripts" / "sanity_rewards.py")


def judged(folder, *flags):
    """The command, in this process: its exit status, and what it printed."""
    with redirect_stdout(StringIO()) as printed, redirect_stderr(StringIO()) as errors:
        status = main(tyro.cli(Options, args=[str(folder), *map(str, flags)]))
    return subprocess.CompletedProcess(flags, status, printed.getvalue(), errors.getvalue())


def make_run(folder, before, after, nudge=0.0, problems=200):
    """A finished run whose first `before` problems were solved at the start and whose first `after` were at the end."""
    for step, solved in ((0, before), (40, after)):
        results = [problem(i, response(i < solved)) for i in range(problems)]
        write_results(folder / "evaluations" / f"step-{step:06d}.jsonl", results)
    (folder / "config.json").write_text(json.dumps({"model": str(EMBEDDED_MODEL)}))
    (folder / "model").mkdir()
    weights = {name: weight.float() for name, weight in load_file(EMBEDDED_MODEL / "model.safetensors").items()}
    weights[min(weights)].view(-1)[0] += nudge
    save_file(weights, folder / "model" / "model.safetensors")


AS_THEY_MUST = {
    "control": (120, 180, 1.0),
    "random": (120, 70, 1.0),
    "constant": (120, 120, 0.0),
    "flipped": (120, 5, 1.0),
}
"""Arm -> problems of 200 solved before and after, and how far a weight moved."""


def make_arms(folder, **others):
    for arm, numbers in (AS_THEY_MUST | others).items():
        make_run(folder / arm, *numbers)


def test_all_arms_as_they_must_be(tmp_path):
    make_arms(tmp_path)
    done = judged(tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert "every arm did what it must" in done.stdout and "NO" not in done.stdout
    control = next(line for line in done.stdout.splitlines() if "control" in line)
    assert "60.0% → 90.0%" in control and "+30.0 [+24.0, +36.5]" in control and "moved" in control
    assert re.search(r"constant .* \+0\.0 \[\+0\.0, \+0\.0\] +the same +yes", done.stdout)


@pytest.mark.parametrize(
    ("arm", "numbers"),
    [
        ("control", (120, 120, 0.0)),  # advantages of 0
        ("control", (120, 145, 1.0)),  # +12.5 points: its interval reaches down to 8
        ("random", (120, 135, 1.0)),  # +7.5 points: its interval reaches up to 11.5
        ("constant", (120, 120, 1e-6)),  # a weight that moved where no response shows it
        ("constant", (120, 60, 0.0)),  # the same weights, but the sampler has others
        ("flipped", (120, 115, 1.0)),
        ("flipped", (120, 180, 1.0)),
    ],
)
def test_an_arm_that_did_not_is_named(tmp_path, arm, numbers):
    make_arms(tmp_path, **{arm: numbers})
    done = judged(tmp_path)
    assert done.returncode == 1
    named = [line.partition(":")[0] for line in done.stdout.splitlines() if line.endswith("and did not")]
    assert named == [arm]


def test_a_random_reward_may_fall_and_rise_a_little(tmp_path):
    make_arms(tmp_path, random=(120, 124, 1.0))
    assert judged(tmp_path).returncode == 0
    assert judged(tmp_path, "--margin", 0.01).returncode == 1


def test_a_run_that_is_not_finished_or_not_there(tmp_path):
    make_arms(tmp_path)
    shutil.rmtree(tmp_path / "flipped" / "model")
    done = judged(tmp_path)
    assert done.returncode == 2 and "flipped is no finished run" in done.stderr and "sanity.sh" in done.stderr
    assert judged(tmp_path, "--arms", "control", "random").returncode == 0


def test_evaluations_of_other_problems_are_not_paired(tmp_path):
    make_arms(tmp_path)
    write_results(tmp_path / "control" / "evaluations" / "step-000040.jsonl", [problem(7, response(True))])
    done = judged(tmp_path)
    assert done.returncode == 2 and "not of the same problems" in done.stderr


def test_the_coin_is_fair_and_falls_the_same_way_again():
    coin = load(f"{REWARDS}:coin", "rewards")
    torch.manual_seed(0)
    responses = torch.randint(300, (4000, 5)).tolist()
    thrown = [coin(tokens, "12+34=") for tokens in responses]
    assert thrown == [coin(tuple(tokens), "12+34=") for tokens in responses] and set(thrown) == {0.0, 1.0}
    assert abs(sum(thrown) / 4000 - 0.5) < 4 * 0.5 / 4000**0.5
    assert thrown != [coin(tokens, "12+35=") for tokens in responses]


# The shell, with real runs -------------------------------------------------------------------------------------------

BROKEN = """
import torch

def flipped(rewards):
    return rewards.mean(dim=1, keepdim=True) - rewards

def deaf(rewards):
    return torch.zeros_like(rewards)

def no_baseline(rewards):
    return rewards

def leak(rewards, by_verifier):
    true = by_verifier["math_answer"]
    return true - true.mean(dim=1, keepdim=True)
"""
LEARNS = "--steps 24 --learning-rate 3e-4 --eval-problems 256"
SHORT = "--steps 8 --learning-rate 3e-4 --eval-problems 256"
TWO = "--steps 2 --eval-problems 64"


def sanity(folder, arms, flags, **environment):
    (folder / "broken.py").write_text(BROKEN)
    command = ["bash", ROOT / "scripts" / "sanity.sh", *flags.split()]
    environment = {"PYTHONPATH": str(ROOT), "PYTHON": sys.executable, "ARMS": arms, "NAME": "s", **environment}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env={**os.environ, **environment})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arms", "flags", "failed"),
    [
        ("control random", LEARNS, []),
        ("flipped", SHORT, []),
        ("constant", TWO, []),
        ("flipped", f"{SHORT} --advantage ./broken.py:flipped", ["flipped"]),
        ("control", f"{TWO} --advantage ./broken.py:deaf", ["control"]),
        ("constant", f"{TWO} --advantage ./broken.py:no_baseline", ["constant"]),
        ("random", f"{LEARNS} --advantage ./broken.py:leak", ["random"]),
    ],
    ids=["healthy", "healthy-flipped", "healthy-constant", "flipped", "deaf", "no-baseline", "leak"],
)
def test_the_update_is_healthy_or_the_arms_that_show_it_fail(tmp_path, arms, flags, failed):
    done = sanity(tmp_path, arms, f"--engine hf {flags}")
    assert done.returncode == bool(failed), done.stdout + done.stderr
    assert [line.partition(":")[0] for line in done.stdout.splitlines() if line.endswith("and did not")] == failed


def test_a_run_that_fails_ends_it_with_the_end_of_its_log(tmp_path):
    done = sanity(tmp_path, "control flipped", "--engine hf --steps 0")
    assert done.returncode == 2 and "--steps 0 must be more than 0" in done.stderr
    assert "flipped starts" not in done.stdout


@pytest.mark.parametrize("flag", ["--reward=exact", "--model", "--runs-dir"])
def test_the_arms_own_flags_are_refused(tmp_path, flag):
    done = sanity(tmp_path, "control", f"{flag} x")
    assert done.returncode == 2 and f"error: {flag} is this script's own" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_an_unknown_arm_is_refused(tmp_path):
    done = sanity(tmp_path, "control nosuch", "")
    assert done.returncode == 2 and "there is no arm 'nosuch'" in done.stderr and not (tmp_path / "runs").exists()
