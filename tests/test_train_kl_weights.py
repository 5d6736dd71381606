"""Weights of the KL that follow a target, in runs: adapted, resumed, and settled."""

from statistics import median

import pytest
from small_runs import SMALL, rows, run

from grpo.train import main


@pytest.fixture(autouse=True)
def inside_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_kls_weight_is_adapted_and_resumed(tmp_path):
    flags = ["--algo", "grpo", "--kl-target", "1e-9", "--kl-coef", "0.01", "--engine", "hf", "--save-every", "2"]
    folder = run(tmp_path, *flags, "--steps", "2", "--eval-problems", "0")
    # KL 0 at step 1 is below any target, from step 2 on it is above this one; 16 responses are a 625th of the horizon.
    falls, rises = 1 - 0.2 / 625, 1 + 0.2 / 625
    assert [row["policy/kl_coef"] for row in rows(folder)] == pytest.approx([0.01, 0.01 * falls], rel=1e-12)
    more = [*SMALL, "--name", "run", *flags, "--steps", "3", "--eval-problems", "0", "--resume"]
    assert main(more) == 0
    assert rows(folder)[-1]["policy/kl_coef"] == pytest.approx(0.01 * falls * rises, rel=1e-12)


def test_ppos_penalty_weighs_the_kl_to_the_old_policy_and_its_weight_is_resumed(tmp_path):
    flags = ["--old-kl-target", "1e-12", "--old-kl-coef", "0.5", "--updates-per-step", "4", "--engine", "hf"]
    flags += ["--eval-problems", "0", "--save-every", "2", "--learning-rate", "1e-3"]
    folder = run(tmp_path, *flags, "--steps", "2")
    for row in rows(folder):
        assert row["policy/old_kl"] > 1e-6 and row["policy/kl"] != row["policy/old_kl"]
    assert main([*SMALL, "--name", "run", *flags, "--steps", "3", "--resume"]) == 0
    assert [row["policy/old_kl_coef"] for row in rows(folder)] == [0.5, 1.0, 2.0]


@pytest.mark.slow
@pytest.mark.parametrize("weight", [0.3, 100.0])
def test_the_kl_settles_at_its_target_from_below_and_from_above(tmp_path, weight):
    """A run from KL 0, whose weight comes from far below and from far above. A step moves it by 2% at most, however far
    off its KL is: so it is the median that settles. The mean is that of a few steps with a hundred times as much."""
    flags = ["--engine", "hf", "--eval-problems", "0", "--steps", "280", "--learning-rate", "3e-4"]
    flags += ["--max-response-tokens", "40", "--kl-coef", str(weight), "--kl-target", "0.02", "--kl-horizon", "160"]
    found = rows(run(tmp_path, *flags))
    late = median(row["policy/kl"] for row in found[-100:])
    assert 0.02 / 1.75 < late < 0.02 * 1.75  # by seed: 0.031, 0.029, 0.028 from below; 0.021, 0.018 from above
    weights = [row["policy/kl_coef"] for row in found]
    if weight == 0.3:
        assert weights[-1] > 2 * weight  # 0.89, 0.96, 0.96
    else:
        assert min(weights) < 0.8 * weight and weights[-1] < 0.9 * weight  # at the end 59, 42
