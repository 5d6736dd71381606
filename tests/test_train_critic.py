"""PPO with a critic in runs: one response a problem, resumed, started from a reward model, and refused."""

import json
import shutil

import pytest
import torch
from conftest import make_model
from safetensors.torch import load_file
from small_runs import SMALL, finite, rows, run, same_end

from grpo.model.scalar_model import load_scalar_model, make_scalar_model
from grpo.presets import EMBEDDED_MODEL
from grpo.train import main

FLAGS = ["--algo", "ppo", "--engine", "hf", "--eval-problems", "0", "--save-every", "2"]
ONE = ["--problems-per-step", "16", "--responses-per-problem", "1"]


@pytest.fixture(autouse=True)
def inside_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_resumed_run_is_the_same_bit_for_bit_with_its_critic(tmp_path):
    flags = [*FLAGS, *ONE, "--updates-per-step", "2", "--critic-warmup", "1"]
    whole = run(tmp_path, *flags, "--steps", "3", name="whole")
    part = run(tmp_path, *flags, "--steps", "2", name="part")
    assert main(["--name", "part", "--resume", "--steps", "3"]) == 0
    same_end(whole, part)
    one, other = (load_file(folder / "critic" / "model.safetensors") for folder in (whole, part))
    assert all(torch.equal(one[name], other[name]) for name in one)
    steps = rows(whole)
    assert all(finite(row) and row["group/uniform"] is None for row in steps)
    assert [row["policy/learning_rate"] for row in steps] == [0.0, 2e-4, 2e-4]  # the first warms the critic up
    assert [row["critic/learning_rate"] for row in steps] == [5e-4] * 3
    assert 0 < abs(steps[1]["critic/value"]) and steps[2]["critic/loss"] > 0


def test_a_critic_that_was_trained_keeps_its_head(tmp_path):
    made = make_scalar_model(str(EMBEDDED_MODEL), pad_id=0)
    made.save_pretrained(tmp_path / "rm")
    for path in EMBEDDED_MODEL.glob("tokenizer*"):
        (tmp_path / "rm" / path.name).write_bytes(path.read_bytes())
    flags = [*FLAGS, *ONE, "--steps", "1", "--save-every", "1", "--critic-learning-rate", "0"]
    folder = run(tmp_path, *flags, "--critic", "rm")
    assert torch.equal(load_scalar_model(str(folder / "critic")).score.weight, made.score.weight)
    shutil.rmtree(tmp_path / "rm")
    assert main(["--name", "run", "--resume", "--steps", "2"]) == 0  # from its own
    assert torch.equal(load_scalar_model(str(folder / "critic")).score.weight, made.score.weight)
    fresh = run(tmp_path, *flags, name="fresh")
    assert not load_scalar_model(str(fresh / "critic")).score.weight.any()
    first = rows(fresh)[0]
    assert first["critic/value"] == 0 and first["critic/explained_variance"] == 0


def test_what_is_no_critic_is_refused_before_a_model_is_loaded(tmp_path, capsys, monkeypatch):
    other = make_model(tmp_path / "other", tied=True)
    assert main([*SMALL, *FLAGS, "--critic", str(other), "--name", "a"]) == 2
    assert "is no model of one number: it is Qwen2ForCausalLM" in capsys.readouterr().err
    made = make_scalar_model(str(other), pad_id=0)
    made.save_pretrained(tmp_path / "small")
    for path in other.glob("tokenizer*"):
        (tmp_path / "small" / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr("grpo.setup.make_policy", None)
    assert main([*SMALL, *FLAGS, "--critic", "small", "--name", "b"]) == 2
    size = json.loads((EMBEDDED_MODEL / "config.json").read_text())["vocab_size"]
    assert f"--critic small knows 320 tokens, and --model {EMBEDDED_MODEL} {size}" in capsys.readouterr().err


def test_a_step_that_fails_after_the_critic_has_moved_is_not_taken_for_the_last_whole_one(tmp_path, monkeypatch):
    """In the warm-up the policy's weights stay, and the critic's are between two steps."""
    from grpo import train

    real, calls = train.step_metrics, []

    def failing(*arguments, **settings):
        calls.append(1)
        if len(calls) == 3:
            raise ZeroDivisionError("the injected fault")
        return real(*arguments, **settings)

    monkeypatch.setattr(train, "step_metrics", failing)
    flags = [*SMALL, *FLAGS, *ONE, "--steps", "4", "--critic-warmup", "3", "--name", "run"]
    with pytest.raises(ZeroDivisionError) as error:
        main(flags)
    assert "not saved: the weights were between two steps" in "\n".join(error.value.__notes__)
    assert {path.name for path in (tmp_path / "runs" / "run").glob("checkpoint-*")} == {"checkpoint-2"}
