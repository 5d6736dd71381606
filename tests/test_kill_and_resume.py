"""scripts/kill_and_resume.py: when a run dies, and real runs that die and are resumed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from random import Random

import pytest
from conftest import ROOT

sys.path.append(str(ROOT / "scripts"))
from kill_and_resume import Life, how_to_begin, moments, verdict
from trainer_process import Death, Lost, Moment, Trainer, last_row, saving

LIFE = Life(rows={0: 10.0, 1: 12.0, 2: 13.0, 3: 14.5, 4: 15.0}, saves=[0.1, 0.3, 0.2])


@pytest.mark.parametrize("seed", range(5))
def test_moments_cover_the_life_and_come_in_its_order(seed):
    plan = moments(LIFE, 4, 2, 400, Random(seed))
    assert plan == moments(LIFE, 4, 2, 400, Random(seed)) != moments(LIFE, 4, 2, 400, Random(seed + 9))
    steps = [moment.step for moment in plan if moment.step is not None]
    assert steps == sorted(steps)
    saves = [moment for moment in plan if moment.in_save]
    assert len(saves) == 200 and {moment.step for moment in saves} == {2, 4}
    assert all(0 <= moment.delay <= 0.1 for moment in saves) and max(moment.delay for moment in saves) > 0.09
    others = [moment for moment in plan if not moment.in_save]
    early = [moment for moment in others if moment.step is None]
    assert 0.55 < len(early) / 200 < 0.8  # two thirds of this life are start-up
    assert all(0 <= moment.delay < 10 for moment in early) and max(moment.delay for moment in early) > 9
    for moment in set(others) - set(early):
        assert 0 <= moment.delay <= LIFE.rows[moment.step + 1] - LIFE.rows[moment.step]
    assert {moment.step for moment in others} == {None, 0, 1, 2, 3}
    assert plan[:20] != early[:20] and any(moment.step is None for moment in plan[-100:])


def test_what_is_seen_of_a_run(tmp_path):
    assert last_row(tmp_path) is None and saving(tmp_path) == {}
    for name in (".checkpoint-12.part", ".model.part", ".checkpoint-10.gone", "checkpoint-10"):
        (tmp_path / name).mkdir()
    (tmp_path / ".config.json.part").touch()
    assert saving(tmp_path) == {".checkpoint-12.part": 12.0, ".model.part": float("inf")}
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n{"step": 1}\n{"step": 2, "rew')
    assert last_row(tmp_path) == 1


def test_a_run_that_has_not_begun_is_started_anew(tmp_path):
    flags = ["--steps", "3"]
    assert how_to_begin(tmp_path / "run", flags) == flags
    (tmp_path / "run").mkdir()
    assert how_to_begin(tmp_path / "run", flags) == flags and not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").touch()
    assert how_to_begin(tmp_path / "run", flags) == ["--resume"]


def death(half_saved=(), orphans=()):
    return Death(Moment(2, True, 0.1), 2, list(half_saved), list(orphans))


def test_the_verdict():
    hit, missed = death([".checkpoint-2.part"]), death()
    assert verdict([hit, missed, missed, missed], []) == []
    assert verdict([hit, *[missed] * 4], []) == ["only 1 of 5 deaths hit a save: another --seed may"]
    assert verdict([hit], ["samples.jsonl differs"]) == ["samples.jsonl differs"]
    assert verdict([hit, death(orphans=["worker", "worker"])], []) == ["2 children outlived the trainer by 10 s"]


@pytest.fixture
def own_code(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_a_run_that_ends_before_its_moment_is_lost(tmp_path, own_code):
    with (
        Trainer(tmp_path / "run", ["--steps", "0"], tmp_path / "log") as trainer,
        pytest.raises(Lost, match="ended with status 2 before the row of step 1; its log is"),
    ):
        trainer.die_at(Moment(1, False, 0.0))
    assert "--steps 0 must be more than 0" in (tmp_path / "log").read_text()


def test_only_the_trainer_is_killed_and_its_workers_notice(tmp_path, own_code):
    with Trainer(tmp_path / "run", ["--engine", "hf", "--wandb", "off"], tmp_path / "log") as trainer:
        found = trainer.die_at(Moment(0, False, 0.0))
    assert trainer.process.returncode == -9 and found.last_row == 0
    assert len(trainer.children) >= 2 and found.orphans == [] and trainer.alive() == []


def test_a_run_that_is_over_before_its_moment_dies_as_it_saves_its_model(tmp_path, own_code):
    flags = ["--engine", "hf", "--wandb", "off", "--steps", "1", "--eval-problems", "0"]
    with Trainer(tmp_path / "run", flags, tmp_path / "log") as trainer:
        trainer.die_at(Moment(None, False, 250.0))
    assert trainer.process.returncode == -9 and last_row(tmp_path / "run") == 1


def test_a_folder_that_is_there_is_not_overwritten(tmp_path):
    done = kill_and_resume("--folder", str(tmp_path))
    assert done.returncode == 2 and "exists already" in done.stderr


def kill_and_resume(*arguments):
    command = [sys.executable, ROOT / "scripts" / "kill_and_resume.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


SMALL = "--problems-per-step 4 --responses-per-problem 4 --eval-problems 16 --eval-every 4".split()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kills", "flags"),
    [
        pytest.param("3", ["--engine", "hf", "--steps", "8"], id="hf"),
        pytest.param(
            "2", ["--engine", "vllm", "--steps", "4", "--wandb", "offline"], id="vllm", marks=pytest.mark.vllm
        ),
    ],
)
def test_a_run_that_died_is_the_run_that_nobody_killed(tmp_path, kills, flags):
    done = kill_and_resume("--folder", str(tmp_path / "runs"), "--kills", kills, "--", *SMALL, *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"after (\d) deaths, (\d) in a save, it is the same run", done.stdout)
    assert int(found[1]) >= int(kills) and int(found[2]) >= 1
    assert len(list((tmp_path / "runs" / "logs").iterdir())) == int(found[1]) + 2
