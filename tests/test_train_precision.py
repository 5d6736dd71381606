"""Runs in bfloat16, and where the reference rests."""

from types import SimpleNamespace

import pytest
import torch
from conftest import make_policy
from safetensors.torch import load_file
from small_runs import rows, run, timeless

from grpo.config import Config
from grpo.engines.sync import TOLERANCE
from grpo.resolve import resolve
from grpo.setup import make_probe
from grpo.train import main


@pytest.fixture(autouse=True)
def inside_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_run_in_bfloat16_resumes_bit_for_bit_and_its_model_is_bfloat16(tmp_path):
    flags = ["--engine", "hf", "--device", "cpu", "--precision", "bfloat16", "--save-every", "1"]
    flags += ["--max-response-tokens", "16", "--eval-problems", "0", "--steps"]
    whole, part = run(tmp_path, *flags, "2", name="whole"), run(tmp_path, *flags, "1", name="part")
    assert main(["--name", "part", "--resume", "--steps", "2"]) == 0
    assert timeless(rows(whole)[-1]) == timeless(rows(part)[-1])
    one, two = (folder / "model" / "model.safetensors" for folder in (whole, part))
    assert one.read_bytes() == two.read_bytes()
    assert {tensor.dtype for tensor in load_file(one).values()} == {torch.bfloat16}
    assert all(0 < row["policy/sync_gap"] < TOLERANCE[torch.bfloat16] for row in rows(whole))


def test_where_the_reference_rests_changes_nothing_and_may_change_at_a_resume(tmp_path):
    flags = ["--engine", "hf", "--device", "cpu", "--algo", "grpo", "--save-every", "1", "--max-response-tokens", "16"]
    flags += ["--eval-problems", "0", "--steps"]
    whole, part = run(tmp_path, *flags, "2", name="whole"), run(tmp_path, *flags, "1", name="part")
    assert main(["--name", "part", "--resume", "--steps", "2", "--reference-device", "cpu"]) == 0
    assert timeless(rows(whole)[-1]) == timeless(rows(part)[-1]) and rows(whole)[-1]["policy/kl"] > 0
    assert (whole / "model" / "model.safetensors").read_bytes() == (part / "model" / "model.safetensors").read_bytes()


@pytest.mark.vllm
def test_a_bfloat16_policy_beside_a_float32_sampler_is_in_sync(tmp_path):
    found = rows(run(tmp_path, "--engine", "vllm", "--device", "cpu", "--precision", "bfloat16", "--steps", "1"))
    assert TOLERANCE[torch.float32] < found[-1]["policy/sync_gap"] < TOLERANCE[torch.bfloat16]


@pytest.mark.parametrize("policy", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("engine", [torch.float32, torch.bfloat16])
def test_the_probe_allows_for_the_coarser_precision_unless_the_flag_says_more(tokenizer, tied_folder, policy, engine):
    trained, sampler = make_policy(tied_folder, dtype=policy), SimpleNamespace(precision=engine)
    coarser = torch.bfloat16 if torch.bfloat16 in (policy, engine) else torch.float32
    assert make_probe(resolve(Config()), trained, sampler, tokenizer).tolerance == TOLERANCE[coarser]
    config = resolve(Config(sync_tolerance=0.3))
    assert make_probe(config, trained, sampler, tokenizer).tolerance == 0.3


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit"])
def test_bfloat16_learns_the_embedded_task(tmp_path, optimizer):
    if optimizer == "adamw_8bit":
        pytest.importorskip("torchao", reason="torchao is not installed: python -m pip install torchao==0.18.0")
    flags = ["--engine", "hf", "--device", "cpu", "--precision", "bfloat16", "--eval-problems", "0", "--wandb", "off"]
    assert main([*flags, "--optimizer", optimizer, "--steps", "30", "--name", "run"]) == 0
    rewards = [row["reward/mean"] for row in rows(tmp_path / "runs" / "run")]
    assert sum(rewards[-8:]) / 8 - sum(rewards[:8]) / 8 > 0.1
