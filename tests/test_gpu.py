"""What happens on a card, and on a CPU that computes as one: the loop in bfloat16, its gradient against float32, the
reference, recomputed layers and the optimizers' states.
"""

import json
import math

import pytest
import torch
from conftest import END, OTHER_END, make_policy
from devices import compute_as_a_card, peak, policy_on, same
from updates import PAD, gradient, uneven_groups, whole_batch

from grpo.algorithm.table import ALGORITHMS
from grpo.config import Config
from grpo.engines.hf_engine import HFEngine
from grpo.engines.sync import TOLERANCE, SyncProbe
from grpo.model.batching import collate
from grpo.model.learner import Learner
from grpo.model.optimizers import OptimizerSettings, state_bytes
from grpo.model.recompute import recompute_layers
from grpo.policies import make_policy as make_a_policy
from grpo.resolve import resolve
from grpo.train import main

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)
ON_EACH = [("grpo", "cpu"), *(pytest.param(algo, "cuda", marks=pytest.mark.gpu) for algo in ALGORITHMS)]
PROBE = dict(max_tokens=192, temperature=0.8, tolerance=TOLERANCE[torch.bfloat16])


@pytest.mark.parametrize("algo,device", ON_EACH, indirect=["device"])
def test_the_command(tmp_path, monkeypatch, algo, device):
    monkeypatch.chdir(tmp_path)
    flags = ["--algo", algo, "--engine", "hf", "--device", device, "--steps", "3", "--wandb", "off", "--name", "run"]
    assert main([*flags, "--problems-per-step", "4", "--eval-problems", "16"]) == 0
    _, *steps = [json.loads(line) for line in (tmp_path / "runs" / "run" / "metrics.jsonl").read_text().splitlines()]
    for row in steps:
        assert all(value is None or math.isfinite(value) for value in row.values())
        assert row["policy/sync_gap"] < TOLERANCE[torch.bfloat16] and row["policy/engine_gap"] < 0.1
        assert row.get("memory/device_gib", 0.0) > 0 or device == "cpu"


@pytest.mark.parametrize("algo", ALGORITHMS)
@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_the_bfloat16_gradient_points_where_the_float32_gradient_does(tied_folder, monkeypatch, device, algo):
    """Each with old log-probabilities of its own, as in training: with the other's, tokens near a limit of the clip
    would be clipped in the one and not in the other."""

    def gradient_of(policy):
        return gradient(policy, whole_batch(policy, uneven_groups(), ALGORITHMS[algo]), ALGORITHMS[algo])[0]

    exact = gradient_of(make_policy(tied_folder))
    if device == "cpu":
        compute_as_a_card(monkeypatch)
    policy = policy_on(device, tied_folder)
    found = gradient_of(policy)
    one, two = (torch.cat([grad.flatten().float().cpu() for grad in grads]) for grads in (exact, found))
    assert 0.99 < torch.nn.functional.cosine_similarity(one, two, dim=0) and not torch.equal(one, two)
    assert all(parameter.dtype == torch.float32 for parameter in policy.model.parameters())


def test_clean_syncs_pass_and_a_lost_one_is_caught_by_sampling(device, tied_folder, tokenizer):
    policy = policy_on(device, tied_folder, temperature=0.8)
    probe = SyncProbe(range(3, 250), **PROBE)
    engine = HFEngine(policy, tokenizer, end_ids=[END, OTHER_END])
    assert probe.check(engine, policy, 1) < 0.1
    other = HFEngine(policy_on(device, tied_folder, temperature=0.8), tokenizer, end_ids=[END, OTHER_END])
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    assert probe.scores(other, policy).gap > probe.tolerance


def test_a_seed_gives_the_same_responses_whatever_was_drawn_in_between(device, tied_folder, tokenizer, problems):
    engine = HFEngine(policy_on(device, tied_folder), tokenizer, end_ids=[END, OTHER_END])

    def generate(seed):
        torch.rand(3, device=device)  # the trainer's own draws
        return engine.generate(problems, 4, temperature=1.0, max_tokens=24, seed=seed)

    one, other, again = generate(5), generate(6), generate(5)
    assert same(one, again) > 0.9 and same(one, other) < 0.3
    for group in one:
        assert len({rollout.tokens for rollout in group.rollouts}) > 1
    torch.manual_seed(1)
    generate(5)
    after = torch.rand(3, device=device)
    torch.manual_seed(1)
    torch.rand(3, device=device)  # as in `generate`
    assert torch.equal(after, torch.rand(3, device=device))  # the trainer's generator is left alone


def test_recomputed_layers_take_less_and_give_the_same_gradient(device, tied_folder):
    row = ALGORITHMS["dr_grpo"]
    policy = policy_on(device, tied_folder)
    batch = whole_batch(policy, uneven_groups(), row, extra_padding=200)
    expected, _ = gradient(policy, batch, row)  # and the optimizer's state is there
    whole = peak(device, lambda: gradient(policy, batch, row))
    recompute_layers(policy.model)
    found, _ = gradient(policy, batch, row)
    less = peak(device, lambda: gradient(policy, batch, row))
    assert less < 0.8 * whole
    for one, two in zip(expected, found, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-6 + 0.01 * one.abs().max().item())


@pytest.mark.parametrize("on_host", [False, True])
def test_the_reference_takes_two_bytes_a_parameter_or_none_and_scores_as_the_policy(device, tied_folder, on_host):
    policy = make_policy(tied_folder)
    for parameter in policy.model.parameters():
        parameter.data = parameter.data.bfloat16().float()  # numbers that bfloat16 has too, as most published models
    policy.model.to(device)
    batch = collate(uneven_groups(), PAD)
    expected = policy.logprobs(batch)
    before = torch.cuda.memory_allocated()  # 0 on a CPU
    reference = policy.frozen_copy()
    reference.keep_in_bfloat16()
    if on_host:
        reference.rest_on_host()
    weights = 2 * sum(parameter.numel() for parameter in policy.model.parameters())
    assert sum(parameter.nbytes for parameter in reference.model.parameters()) == weights
    taken = torch.cuda.memory_allocated() - before
    assert (taken <= 4096 if on_host else weights <= taken < 1.5 * weights) or device == "cpu"  # blocks of 512 bytes
    for _ in range(2):
        assert torch.equal(reference.logprobs(batch), expected)
        assert torch.cuda.memory_allocated() - before == taken
    rests = "cpu" if on_host else device
    assert all(parameter.device.type == rests for parameter in reference.model.parameters())
    pinned = on_host and device == "cuda"
    assert all(parameter.is_pinned() for parameter in reference.model.parameters()) or not pinned


def large_module(device):
    """4M parameters: a layer whose state is easily told from all else there."""
    torch.manual_seed(0)
    return torch.nn.Linear(2048, 2048).to(device)


def updated(device, name, updates=3):
    """A learner after some updates on gradients of one seed."""
    settings = OptimizerSettings(name=name, learning_rate=1e-3)
    learner = Learner(large_module(device), settings, micro_batch_tokens=1)
    generator = torch.Generator(device).manual_seed(1)
    for _ in range(updates):
        for parameter in learner.model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator, device=device)
        learner.optimizer.step()
        learner.optimizer.zero_grad(set_to_none=True)
    return learner


def test_an_offloaded_state_leaves_the_card_and_the_update_stays_adamws(device):
    plain = updated(device, "adamw")
    before = torch.cuda.memory_allocated()
    offloaded = updated(device, "adamw_offload")
    weights = sum(parameter.nbytes for parameter in offloaded.model.parameters())
    assert torch.cuda.memory_allocated() - before < 1.1 * weights  # no state beside them
    assert state_bytes(offloaded.optimizer) == pytest.approx(2 * weights, rel=0.01)
    for one, two in zip(plain.model.parameters(), offloaded.model.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-7)  # kernels that round otherwise
    moments = [slot[name] for slot in offloaded.optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
    assert all(moment.device.type == "cpu" for moment in moments)
    assert all(moment.is_pinned() for moment in moments) or device == "cpu"


def test_an_8_bit_state_takes_a_quarter_and_the_update_is_near(device):
    pytest.importorskip("torchao", reason="torchao is not installed: python -m pip install torchao==0.18.0")
    plain, small = updated(device, "adamw"), updated(device, "adamw_8bit")
    assert state_bytes(small.optimizer) < 0.26 * state_bytes(plain.optimizer)
    start = large_module(device)
    for first, one, two in zip(*(m.parameters() for m in (start, plain.model, small.model)), strict=True):
        assert (two - one).abs().mean() < 0.05 * (one - first).abs().mean()


@pytest.mark.parametrize("name", ["adamw", "adamw_offload", "adamw_8bit"])
def test_tiny_updates_of_bfloat16_weights_arrive_on_average_and_again_with_the_same_seed(device, name):
    """Updates of 1e-4, where numbers are 0.0078 apart: one weight in 78 moves, and again the same one."""
    if name == "adamw_8bit":
        pytest.importorskip("torchao", reason="torchao is not installed: python -m pip install torchao==0.18.0")

    def updated_once():
        module = torch.nn.Linear(512, 512, bias=False, device=device, dtype=torch.bfloat16)
        torch.nn.init.constant_(module.weight, 1.5)
        learner = Learner(module, OptimizerSettings(name=name, learning_rate=1e-4), micro_batch_tokens=1)
        module.weight.grad = torch.ones_like(module.weight)
        learner.optimizer.step()
        return module.weight.detach()

    one, two = updated_once(), updated_once()
    assert torch.equal(one, two)
    assert (1.5 - one.double()).mean().item() == pytest.approx(1e-4, rel=0.1)


@pytest.mark.gpu
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
