"""scripts/learning_table.py on runs that are there already, and on one that fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def table(*arguments):
    command = [sys.executable, ROOT / "scripts" / "learning_table.py", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)


def make_run(folder, before, after):
    """A finished run, with (accuracy, length) before and after."""
    (folder / "model").mkdir(parents=True)
    ends = [
        {"step": step, "eval/accuracy": accuracy, "eval/length": length}
        for step, (accuracy, length) in ((0, before), (60, after))
    ]
    rows = [ends[0], {"step": 1, "reward/mean": 0.5}, ends[1]]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_means_and_spread_over_seeds(tmp_path):
    make_run(tmp_path / "sorting-grpo-60-seed0", (0.50, 10.0), (0.90, 20.0))
    make_run(tmp_path / "sorting-grpo-60-seed1", (0.54, 12.0), (0.80, 30.0))
    make_run(tmp_path / "sorting-rloo-60-seed0", (0.50, 10.0), (0.75, 11.0))
    make_run(tmp_path / "sorting-rloo-60-seed1", (0.50, 10.0), (0.75, 11.0))
    done = table("--data", "sorting", "--rows", "grpo", "rloo", "--seeds", 0, 1, "--runs-dir", tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.splitlines() == [
        "| row | accuracy, step 0 → 60 | length |",
        "|---|---|---|",
        "| `grpo` | 52.0% → 85.0% (80.0% to 90.0%) | 11.0 → 25.0 (20.0 to 30.0) |",
        "| `rloo` | 50.0% → 75.0% (75.0% to 75.0%) | 10.0 → 11.0 (11.0 to 11.0) |",
    ]


def test_a_run_that_fails_ends_the_table_and_names_its_log(tmp_path):
    (tmp_path / "sorting-grpo-60-seed0").mkdir()  # of an interrupted attempt: made anew
    failed = table(
        "--data", "sorting", "--rows", "grpo", "--seeds", 0, "--runs-dir", tmp_path, "--", "--reward", "nowhere"
    )
    assert failed.returncode == 1 and failed.stdout == ""
    log = tmp_path / "sorting-grpo-60-seed0.log"
    assert str(log) in failed.stderr and "failed with status 2" in failed.stderr
    assert log.read_text().startswith("passed on: --reward nowhere\n") and "'nowhere' is neither" in log.read_text()


def test_a_run_made_with_other_arguments_is_not_taken_for_this_one(tmp_path):
    make_run(tmp_path / "sorting-grpo-60-seed0", (0.50, 10.0), (0.90, 20.0))
    (tmp_path / "sorting-grpo-60-seed0.log").write_text("passed on: --kl-coef 0\n...")
    asked = ("--data", "sorting", "--rows", "grpo", "--seeds", 0, "--runs-dir", tmp_path)
    assert table(*asked, "--", "--kl-coef", "0").returncode == 0
    other = table(*asked)
    assert other.returncode == 1 and other.stdout == ""
    assert "sorting-grpo-60-seed0 had passed on: --kl-coef 0; now passed on: nothing." in other.stderr
