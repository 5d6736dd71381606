"""The command and the script: from run folders to a picture and a page, and what stops them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import pytest
from conftest import ROOT
from synthetic_runs import ramp, row, write_run

from grpo.compare import main

SCRIPT = ROOT / "scripts" / "compare_lengths.sh"


def two_groups(folder, steps=10):
    for seed in (0, 1):
        for algo, growth in (("grpo", 2.0), ("dr_grpo", 1.0)):
            write_run(folder / f"{algo}-seed{seed}", ramp(20.0 + seed, steps, growth))
    return folder


def test_picture_page_and_console(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    runs = two_groups(tmp_path / "runs")
    patterns = [str(runs / "grpo-*"), str(runs / "dr_grpo-*")]
    assert main([*patterns, "--out", str(tmp_path / "new" / "x"), "--title", "Lengths & more", "--reach", "0.8"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"growth of length, incorrect │ +\+18\.0 │ +\+9\.0 │ +−9\.0", printed)
    assert "Growth of length, incorrect (tokens; step 10 less step 1): grpo: +18.0 [+18.0, +18.0]; dr_grpo" in printed
    picture = matplotlib.image.imread(tmp_path / "new" / "x.png")
    assert picture.shape[:2] == (888, 1800)
    colours = (picture[..., :3] * 255).round().astype(int).reshape(-1, 3)
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert (colours == colour).all(axis=1).sum() > 1000  # pixels of each group's lines
    page = (tmp_path / "new" / "x.html").read_text()
    assert "<title>Lengths &amp; more</title>" in page and "grpo.compare" in page
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["x.html", "x.png"]


@pytest.mark.parametrize("out", ["", "x.png", "x.html"])
def test_where_it_is_written(tmp_path, out):
    assert main([str(two_groups(tmp_path / "runs")), "--out", str(tmp_path / out)]) == 0
    stem = tmp_path / (out.partition(".")[0] or "comparison")
    assert stem.with_suffix(".png").is_file() and stem.with_suffix(".html").is_file()


def test_every_label_counts(tmp_path, capsys):
    runs = str(two_groups(tmp_path / "runs"))
    assert (
        main([runs, "--label", "B=grpo*", "--label", "A=dr*", "--out", str(tmp_path / "x"), "--reach", "0.7", "0.8"])
        == 0
    )
    printed = capsys.readouterr().out
    assert "10 less step 1): B: +18.0" in printed and "; A: +9.0" in printed
    assert "tokens to 70%" in printed and "tokens to 80%" in printed


def test_twenty_runs_of_ten_groups(tmp_path, capsys):
    for i in range(20):
        write_run(tmp_path / f"group {i // 2} with a long name-seed{i}", ramp(20.0 + i, steps=5 + i))
    assert main([str(tmp_path), "--out", str(tmp_path / "x")]) == 0
    assert "The table is of the steps up to 5; 19 of 20 runs go further, up to step 24" in capsys.readouterr().out


def test_a_folder_name_that_is_no_unicode(tmp_path, capsys):
    folder = write_run(Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")), ramp(20.0))
    (folder / "samples.jsonl").write_text('{"step": 1, "prompt": "\\ud800", "response": "r"}\n')
    assert main([str(folder), "--out", str(tmp_path / "x")]) == 0
    assert "caf\ufffd: +9.0" in capsys.readouterr().out
    assert "caf\ufffd (1 seed)" in (tmp_path / "x.html").read_text("utf-8")


def test_a_run_in_progress_with_one_step(tmp_path, capsys):
    write_run(tmp_path / "a", [row(1, 0.5, (1, 1), (2, 1))], end='{"step": 2')
    assert main([str(tmp_path / "a"), "--out", str(tmp_path / "x"), "--band", "range"]) == 0
    assert "a: its last line is incomplete" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments,message",
    [
        ([], "Name the runs to compare"),
        (["nowhere"], "There is no run at nowhere"),
        (["{runs}", "--until", "99"], "--until 99 is not a step that every run has reached"),
        (["{runs}", "--label", "x"], "--label x is not LABEL=PATTERN"),
        (["{runs}", "{started}"], "has not logged a step of training yet"),
        (["{runs}", "--out", "{runs}/grpo-seed0/metrics.jsonl/x"], "metrics.jsonl cannot be made"),
        (["{many}"], "29 groups of runs cannot be told apart in one picture; 28 can."),
    ],
)
def test_what_cannot_be_compared_is_said(tmp_path, capsys, arguments, message):
    two_groups(tmp_path / "runs")
    write_run(tmp_path / "started", [{"step": 0, "eval/accuracy": 0.5}])
    for letter in range(29):
        write_run(tmp_path / "many" / f"run {chr(97 + letter)}", [row(1, 0.5, (1, 1), (2, 1))])
    places = {name: str(tmp_path / name) for name in ("runs", "started", "many")}
    assert main(["--out", str(tmp_path / "x")] + [argument.format(**places) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and not (tmp_path / "x.png").exists()


def test_it_loads_neither_torch_nor_vllm():
    code = "import sys, grpo.compare; print({'torch', 'vllm', 'transformers', 'wandb'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def run_script(folder, *arguments, **environment):
    """compare_lengths.sh as a person runs it, in a folder of its own."""
    env = os.environ | {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"} | environment
    return subprocess.run([SCRIPT, *arguments], cwd=folder, env=env, capture_output=True, text=True)


def test_the_script_skips_what_is_finished_and_ends_in_the_page(tmp_path):
    for seed in (0, 1):
        for algo in ("grpo", "dr_grpo"):
            (write_run(tmp_path / "runs" / "lengths" / f"{algo}-seed{seed}", ramp(20.0)) / "model").mkdir()
    (tmp_path / "runs" / "lengths" / "arguments").write_text("'--steps' '10'\n")
    run = run_script(tmp_path, "--steps", "10", SEEDS="0 1")
    assert run.returncode == 0 and run.stdout.count("finished earlier") == 4, run.stderr
    assert run.stdout.endswith("page     runs/lengths/comparison.html\n")
    assert (tmp_path / "runs" / "lengths" / "comparison.html").is_file()
    other = run_script(tmp_path, "--steps", "11")
    assert (
        other.returncode == 2
        and "was begun with other arguments: '--steps' '10' instead of '--steps' '11'" in other.stderr
    )


@pytest.mark.parametrize("argument", ["--seed", "--seed=5", "--runs_dir"])
def test_the_script_keeps_its_own_arguments(tmp_path, argument):
    """Three runs of one seed would pass for three seeds."""
    run = run_script(tmp_path, argument, "5")
    assert run.returncode == 2 and f"error: {argument} is this script's own to set" in run.stderr
    assert not (tmp_path / "runs").exists()


def test_a_failing_run_fails_the_script_with_the_end_of_its_log(tmp_path):
    run = run_script(tmp_path, "--temperature", "-1", SEEDS="0 1 2", JOBS="1")
    assert run.returncode not in (0, 2) and "--temperature -1.0" in run.stderr
    assert run.stdout == "runs/lengths/grpo-seed0: starts\n"  # and no further one
    assert not (tmp_path / "runs" / "lengths" / "comparison.html").exists()


@pytest.mark.slow
def test_the_script_trains_and_compares(tmp_path):
    small = ("--steps", "2", "--eval-problems", "8", "--problems-per-step", "4", "--wandb", "off")
    run = run_script(tmp_path, *small, SEEDS="0", NAME="small")
    assert run.returncode == 0, run.stderr
    assert run.stdout.count(": starts\n") == 2 and "grpo\n" not in run.stderr
    page = (tmp_path / "runs" / "small" / "comparison.html").read_text()
    assert "<title>Length curves: grpo, dr_grpo</title>" in page and "2 runs in 2 groups, compared at step 2" in page
