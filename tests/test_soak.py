"""scripts/soak.py and soak.sh: slopes of samples whose growth is known, and a short real run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from random import Random

import psutil
import pytest
from conftest import ROOT

from grpo.errors import UserError
from grpo.files import write_jsonl

sys.path.append(str(ROOT / "scripts"))
from soak import QUANTITIES, Options, Quantity, main, sample, series, slope, stretches, verdict

STEPS = 2000
FLAT = {"trainer_mib": 900.0, "children_mib": 160.0, "handles": 110, "threads": 60, "processes": 6}
DISK = {"checkpoints_mib": 18.0, "metrics_mib": 0.0, "samples_mib": 0.0, "evaluations_mib": 0.0, "wandb_mib": 0.0}


def make_samples(growth=(), noise=0.0, warm_up=0.0, seed=0):
    """A sample every fourth step: `growth` in 1,000 steps by quantity, noise of this deviation in memory, and memory
    that comes in the first tenth and stays."""
    rng = Random(seed)
    growth = dict(growth)
    cpu = 10.0
    for step in range(0, STEPS + 1, 4):
        row = {"step": step, "cpu_s": cpu} | FLAT | DISK
        cpu += 4 * (1.0 + growth.get("step_cpu_s", 0.0) * step / 1000)
        for name in FLAT | DISK:
            row[name] += growth.get(name, 0.0) * step / 1000
        row["trainer_mib"] += rng.gauss(0, noise) + min(step, 200) / 200 * warm_up
        row["metrics_mib"] += 1.5 * step / 1000
        yield row


def make_rows(slower=0.0, jitter=0.1, seed=1):
    rng = Random(seed)
    for step in range(1, STEPS + 1):
        seconds = 1.0 + slower * step / 1000 + rng.expovariate(1 / jitter)
        yield {"step": step, "time/step": seconds, "tokens": 3000.0 + rng.randint(-300, 300)}


def reported(folder, samples, rows=None):
    write_jsonl(folder / "soak.jsonl", samples)
    write_jsonl(folder / "metrics.jsonl", make_rows() if rows is None else rows)
    with redirect_stdout(StringIO()) as printed, redirect_stderr(StringIO()) as errors:
        status = main(Options(folder))
    done = subprocess.CompletedProcess([], status, printed.getvalue(), errors.getvalue())
    lines = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    assert [line[0][2:] for line in lines] == [quantity.words for quantity in QUANTITIES.values()] or not lines
    return done, dict(zip(QUANTITIES, lines, strict=False))


def not_flat(table):
    return [name for name, cells in table.items() if cells[4].strip(" |") not in ("flat", "")]


def test_a_run_that_does_not_grow_is_flat(tmp_path):
    done, table = reported(tmp_path, make_samples(noise=15.0, warm_up=300.0))
    assert done.returncode == 0 and not_flat(table) == [], done.stdout
    assert done.stdout.startswith("2000 steps, 501 samples\n")
    assert table["handles"][1:4] == ["110.00 → 110.00", "+0.00 [+0.00, +0.00]", "1"]
    assert table["metrics_mib"][2:] == ["+1.50 [+1.50, +1.50]", "", " |"]  # meant to grow, and only reported


@pytest.mark.parametrize("seed", range(10))
def test_noise_is_no_growth(tmp_path, seed):
    done, _ = reported(tmp_path, make_samples(noise=25.0, seed=seed), make_rows(jitter=0.3, seed=seed))
    assert done.returncode == 0, done.stdout


GROWTH = {
    "trainer_mib": 50.0,
    "children_mib": 50.0,
    "handles": 3.0,
    "threads": 3.0,
    "processes": 1.0,
    "checkpoints_mib": 120.0,
    "step_cpu_s": 0.15,
}


@pytest.mark.parametrize("name", GROWTH)
def test_a_leak_is_found_and_named(tmp_path, name):
    done, table = reported(tmp_path, make_samples({name: GROWTH[name]}, noise=15.0, warm_up=300.0))
    assert done.returncode == 1 and not_flat(table) == [name]
    assert table[name][4] == "GROWS |"


def test_steps_that_take_longer_and_longer_are_found(tmp_path):
    done, table = reported(tmp_path, make_samples(), make_rows(slower=0.15))
    assert done.returncode == 1 and not_flat(table) == ["token_ms"]


def test_longer_responses_are_not_slower_ones(tmp_path):
    rows = [row | {"tokens": row["tokens"] * row["time/step"]} for row in make_rows(slower=0.5)]
    done, _ = reported(tmp_path, make_samples(), rows)
    assert done.returncode == 0, done.stdout


def test_a_slope_by_hand():
    found = slope([(0.0, 10.0), (1000.0, 12.0), (2000.0, 11.0)])
    # Sxx = 2e6, Sxy = 1000: 0.5 in 1,000 steps; residuals -0.5, 1, -0.5: s = sqrt(1.5), stderr s/sqrt(2e6), t(1) 12.706
    assert found.value == pytest.approx(0.5) and found.high - found.value == pytest.approx(12.7062 * 1.5**0.5 / 2**0.5)
    assert slope([(0.0, 10.0), (1000.0, 12.0), (2000.0, 11.0)], relative=True).value == pytest.approx(0.05)


def test_stretches_leave_out_the_first_tenth_and_peaks():
    values = [(float(step), 5.0 if step >= 100 else 99.0) for step in range(1001)]
    values[500] = (500.0, 1e6)
    points = stretches(values)
    assert len(points) == 20 and {value for _, value in points} == {5.0}
    assert points[0][0] == pytest.approx(122, abs=1) and points[-1][0] == pytest.approx(977.5, abs=1)


def test_too_few_samples_are_refused(tmp_path):
    with pytest.raises(UserError, match="3 values up to step 3 are too few"):
        stretches([(1.0, 1.0), (1.0, 2.0), (3.0, 1.0)])
    done, _ = reported(tmp_path, list(make_samples())[:2], [])
    assert done.returncode == 2 and "too few for a slope" in done.stderr


def test_the_end_of_a_run_is_left_out():
    """After the last row the processes end one by one."""
    samples = [{**row, "processes": 1} if row["step"] == STEPS else row for row in make_samples()]
    assert {value for _, value in series(samples, [])["processes"]} == {6}


@pytest.mark.parametrize(
    ("low", "high", "said"), [(-5, 9, "flat"), (-50, -20, "flat"), (2, 11, "UNCLEAR"), (11, 30, "GROWS")]
)
def test_verdict(low, high, said):
    from grpo.intervals import Estimate

    assert verdict(Quantity("memory", 10.0), Estimate((low + high) / 2, low, high)) == said
    assert verdict(Quantity("metrics", None), Estimate((low + high) / 2, low, high)) == ""


def test_a_sample_counts_children_files_and_memory(tmp_path):
    assert sample(psutil.Process(), tmp_path) is None  # no row yet
    (tmp_path / "metrics.jsonl").write_text('{"step": 7}\n')
    (tmp_path / "checkpoint-5").mkdir()
    (tmp_path / "checkpoint-5" / "weights").write_bytes(bytes(2**20))
    before = sample(psutil.Process(), tmp_path)
    hold = "import sys; held = bytearray(50 * 2**20); print(flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", hold], **pipes) as child, open(tmp_path / "metrics.jsonl"):
        child.stdout.readline()
        after = sample(psutil.Process(), tmp_path)
        child.stdin.close()
    assert before["step"] == after["step"] == 7 and after["checkpoints_mib"] == 1.0
    assert after["processes"] - before["processes"] == 1 and after["threads"] > before["threads"]
    assert 50 < after["children_mib"] - before["children_mib"] < 100
    assert after["handles"] - before["handles"] >= 3 + 3  # the child's own, the file and two pipes here


# The shell, with a real run ------------------------------------------------------------------------------------------


def soak(folder, *flags, **environment):
    environment = {"PYTHONPATH": str(ROOT), "PYTHON": sys.executable, "NAME": "short", **environment}
    command = ["bash", ROOT / "scripts" / "soak.sh", *flags]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env={**os.environ, **environment})


def test_a_short_real_run_is_sampled_and_reported(tmp_path):
    flags = "--engine hf --wandb off --steps 12 --save-every 3 --problems-per-step 4 --eval-problems 0".split()
    done = soak(tmp_path, *flags, SECONDS_BETWEEN="0.1")
    assert done.returncode in (0, 1), done.stderr  # so short a run may well grow
    run = tmp_path / "runs" / "short"
    samples = [json.loads(line) for line in (run / "soak.jsonl").read_text().splitlines()]
    assert len(samples) > 6 and samples[-1]["step"] == 12
    steps = [row["step"] for row in samples]
    assert steps == sorted(steps)
    middle = samples[len(samples) // 2]
    assert 200 < middle["trainer_mib"] < 4000 and middle["processes"] >= 3 and middle["children_mib"] > 10
    assert max(row["checkpoints_mib"] for row in samples) > 5
    assert "12 steps" in done.stdout and done.stdout.count("\n| ") == 1 + len(QUANTITIES)


def test_a_run_that_fails_is_said(tmp_path):
    done = soak(tmp_path, "--steps", "0", SECONDS_BETWEEN="0.1")
    assert done.returncode == 2 and "--steps 0 must be more than 0" in done.stderr and done.stdout == ""


def test_a_name_that_is_there_or_a_flag_of_its_own_is_refused(tmp_path):
    (tmp_path / "runs" / "short").mkdir(parents=True)
    assert "runs/short exists already" in soak(tmp_path).stderr
    done = soak(tmp_path, "--resume", NAME="other")
    assert done.returncode == 2 and "--resume is this script's own" in done.stderr
