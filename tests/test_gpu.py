"""On a CUDA device: the loop in bfloat16, its gradient against float32, and vLLM's sleep and wake on a shared card."""

import json
import math

import pytest
import torch
from conftest import END, OTHER_END, make_policy
from updates import PAD, gradient, uneven_groups, whole_batch

from grpo.algorithm.table import ALGORITHMS
from grpo.config import Config
from grpo.engines.hf_engine import HFEngine
from grpo.engines.sync import TOLERANCE, SyncProbe
from grpo.model.batching import collate
from grpo.model.learner import Learner
from grpo.model.optimizers import OptimizerSettings, state_bytes
from grpo.resolve import resolve
from grpo.setup import make_policy as make_a_policy
from grpo.train import main

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and torch sees none"),
]


def on_cuda(folder, **kwargs):
    policy = make_policy(folder, **kwargs)
    policy.model.to("cuda")
    return policy


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_the_command_on_cuda(tmp_path, monkeypatch, algo):
    monkeypatch.chdir(tmp_path)
    flags = ["--algo", algo, "--engine", "hf", "--device", "cuda", "--steps", "3", "--wandb", "off", "--name", "run"]
    assert main([*flags, "--eval-problems", "64"]) == 0
    _, *steps = [json.loads(line) for line in (tmp_path / "runs" / "run" / "metrics.jsonl").read_text().splitlines()]
    for row in steps:
        assert all(value is None or math.isfinite(value) for value in row.values())
        assert row["policy/sync_gap"] < TOLERANCE[torch.bfloat16] and row["policy/engine_gap"] < 0.05
        assert row["memory/device_gib"] > 0


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_the_bfloat16_gradient_points_where_the_float32_gradient_does(tied_folder, algo):
    exact_policy, policy = make_policy(tied_folder), on_cuda(tied_folder)
    batch = whole_batch(exact_policy, uneven_groups(), ALGORITHMS[algo])
    exact, _ = gradient(exact_policy, batch, ALGORITHMS[algo])
    found, _ = gradient(policy, batch, ALGORITHMS[algo])
    one, two = (torch.cat([grad.flatten().float().cpu() for grad in grads]) for grads in (exact, found))
    assert torch.nn.functional.cosine_similarity(one, two, dim=0) > 0.99
    assert all(parameter.dtype == torch.float32 for parameter in policy.model.parameters())


def test_clean_syncs_pass_and_a_lost_one_is_caught_by_sampling(tied_folder, tokenizer):
    policy = on_cuda(tied_folder, temperature=0.8)
    probe = SyncProbe(range(3, 250), max_tokens=192, temperature=0.8, tolerance=TOLERANCE[torch.bfloat16])
    engine = HFEngine(policy, tokenizer, end_ids=[END, OTHER_END])
    assert probe.check(engine, policy, 1) < 0.02
    other = HFEngine(on_cuda(tied_folder, temperature=0.8), tokenizer, end_ids=[END, OTHER_END])
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    assert probe.scores(other, policy).gap > probe.tolerance


def test_vllm_sleeps_and_wakes_with_the_new_weights(tied_folder, tokenizer, problems):
    pytest.importorskip("vllm", reason="vllm is not installed here")
    from grpo.engines.vllm_engine import VLLMEngine

    policy = on_cuda(tied_folder, temperature=0.8)
    engine = VLLMEngine(
        str(tied_folder), tokenizer, end_ids=[END, OTHER_END], max_tokens=192, max_sequences=16, memory_fraction=0.1
    )
    probe = SyncProbe(range(3, 250), max_tokens=192, temperature=0.8, tolerance=TOLERANCE[torch.bfloat16])
    for step in range(3):
        engine.sync(policy)
        assert probe.check(engine, policy, step) < probe.tolerance
        engine.generate(problems, 4, temperature=0.8, max_tokens=16, seed=step)
        assert engine.asleep
        with torch.no_grad():
            for parameter in policy.model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))


@pytest.mark.parametrize("on_host", [False, True])
def test_the_reference_takes_two_bytes_a_parameter_or_none_and_scores_as_the_policy(tied_folder, on_host):
    policy = make_policy(tied_folder)
    for parameter in policy.model.parameters():
        parameter.data = parameter.data.bfloat16().float()  # numbers that bfloat16 has too, as most published models
    policy.model.to("cuda")
    batch = collate(uneven_groups(), PAD)
    expected = policy.logprobs(batch)
    before = torch.cuda.memory_allocated()
    reference = policy.frozen_copy()
    reference.keep_in_bfloat16()
    if on_host:
        reference.rest_on_host()
    weights = 2 * sum(parameter.numel() for parameter in policy.model.parameters())
    taken = torch.cuda.memory_allocated() - before
    assert taken <= 4096 if on_host else weights <= taken < 1.5 * weights  # blocks of 512 bytes
    for _ in range(2):
        assert torch.equal(reference.logprobs(batch), expected)
        assert torch.cuda.memory_allocated() - before == taken
    assert all(p.device.type == ("cpu" if on_host else "cuda") for p in reference.model.parameters())
    assert all(p.is_pinned() for p in reference.model.parameters()) or not on_host


def large_module():
    """4M parameters, on the card: a layer whose state is easily told from all else there."""
    torch.manual_seed(0)
    return torch.nn.Linear(2048, 2048).to("cuda")


def updated(name, updates=3):
    """A learner after some updates on gradients of one seed."""
    learner = Learner(large_module(), OptimizerSettings(name=name, learning_rate=1e-3), micro_batch_tokens=1)
    generator = torch.Generator("cuda").manual_seed(1)
    for _ in range(updates):
        for parameter in learner.model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator, device="cuda")
        learner.optimizer.step()
        learner.optimizer.zero_grad(set_to_none=True)
    return learner


def test_an_offloaded_state_leaves_the_card_and_the_update_stays_adamws():
    plain = updated("adamw")
    before = torch.cuda.memory_allocated()
    offloaded = updated("adamw_offload")
    weights = sum(parameter.nbytes for parameter in offloaded.model.parameters())
    assert torch.cuda.memory_allocated() - before < 1.1 * weights  # no state beside them
    assert state_bytes(offloaded.optimizer) == pytest.approx(2 * weights, rel=0.01)
    for one, two in zip(plain.model.parameters(), offloaded.model.parameters(), strict=True):
        assert torch.equal(one, two)
    for slot in offloaded.optimizer.state.values():
        assert slot["exp_avg"].is_pinned() and slot["exp_avg_sq"].is_pinned()


def test_an_8_bit_state_takes_a_quarter_and_the_update_is_near():
    pytest.importorskip("torchao", reason="torchao is not installed: python -m pip install torchao==0.18.0")
    plain, small = updated("adamw"), updated("adamw_8bit")
    assert state_bytes(small.optimizer) < 0.26 * state_bytes(plain.optimizer)
    start = large_module()
    for first, one, two in zip(*(m.parameters() for m in (start, plain.model, small.model)), strict=True):
        assert (two - one).abs().mean() < 0.05 * (one - first).abs().mean()


@pytest.mark.parametrize("name", ["adamw", "adamw_offload", "adamw_8bit"])
def test_tiny_updates_of_bfloat16_weights_arrive_on_average_and_again_with_the_same_seed(name):
    """Updates of 1e-4, where numbers are 0.0078 apart: one weight in 78 moves, and again the same one."""
    if name == "adamw_8bit":
        pytest.importorskip("torchao", reason="torchao is not installed: python -m pip install torchao==0.18.0")

    def updated_once():
        module = torch.nn.Linear(512, 512, bias=False, device="cuda", dtype=torch.bfloat16)
        torch.nn.init.constant_(module.weight, 1.5)
        learner = Learner(module, OptimizerSettings(name=name, learning_rate=1e-4), micro_batch_tokens=1)
        module.weight.grad = torch.ones_like(module.weight)
        learner.optimizer.step()
        return module.weight.detach()

    one, two = updated_once(), updated_once()
    assert torch.equal(one, two)
    assert (1.5 - one.double()).mean().item() == pytest.approx(1e-4, rel=0.1)


def test_lora_on_cuda_takes_two_bytes_a_frozen_parameter_and_learns(tmp_path, monkeypatch):
    """The command with an adapter, its checkpoint resumed, and the reference, which is the same model."""
    monkeypatch.chdir(tmp_path)
    flags = ["--algo", "grpo", "--lora-rank", "8", "--engine", "hf", "--device", "cuda", "--wandb", "off"]
    flags += ["--eval-problems", "0", "--save-every", "2", "--name", "run", "--steps"]
    assert main([*flags, "2"]) == 0
    assert main(["--name", "run", "--resume", "--steps", "4"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "runs" / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4] and abs(rows[0]["policy/kl"]) < 1e-3
    assert all(row["policy/sync_gap"] < TOLERANCE[torch.bfloat16] and row["policy/grad_norm"] > 0 for row in rows)
    config = resolve(Config(lora_rank=8, device="cuda"))
    policy = make_a_policy(config.model, config)
    dtypes = {(p.requires_grad, p.dtype) for p in policy.model.parameters()}
    assert dtypes == {(False, torch.bfloat16), (True, torch.float32)}
