"""Runs under a trust region: its promise in every step, and resumed."""

import pytest
from small_runs import SMALL, rows, run, same_end

from grpo.train import main


@pytest.fixture(autouse=True)
def inside_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_every_step_keeps_its_limit_and_a_resumed_run_is_the_same_bit_for_bit(tmp_path):
    flags = ["--algo", "trpo", "--engine", "hf", "--eval-problems", "0", "--save-every", "2"]
    whole = run(tmp_path, *flags, "--steps", "3", name="whole")
    moved = [row for row in rows(whole) if row["group/uniform"] < 1]
    assert moved and all(0 < row["policy/trust_kl"] <= 0.003 and row["policy/trust_gain"] > 0 for row in moved)
    part = run(tmp_path, *flags, "--steps", "2", name="part")
    assert main(["--name", "part", "--resume", "--steps", "3"]) == 0
    same_end(whole, part)


def test_a_large_model_is_refused_before_it_is_loaded(monkeypatch, capsys):
    monkeypatch.setattr("grpo.model.trust_region.MAX_PARAMETERS", 1000)
    monkeypatch.setattr("grpo.setup.make_policy", None)
    assert main([*SMALL, "--algo", "trpo", "--engine", "hf", "--name", "run"]) == 2
    assert "for models of at most 1,000 parameters; this one has 551,040" in capsys.readouterr().err
