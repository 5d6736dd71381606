"""The rehearsal: as large as anything that follows, as many bytes as planned, and without a trace in the run."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from conftest import make_policy
from hypothesis import given
from hypothesis import strategies as st
from memory.measured_bytes import peak

import grpo.setup
from grpo.card import make_plan
from grpo.config import Config
from grpo.memory.model_shape import critic_shape, shape_of
from grpo.memory.stages import GIB, stages, total
from grpo.memory.widths import Widths
from grpo.memory_rehearsal import Rehearsed, large_batch, planned_tensors, rehearse, state_to_come, widest
from grpo.model.batching import micro_batches
from grpo.model.optimizers import OptimizerSettings, state_bytes
from grpo.model.policy import Policy
from grpo.model.scalar_model import ScalarModel
from grpo.out_of_memory import OutOfMemory
from grpo.resolve import resolve
from grpo.train import main

GRPO = Config(algo="grpo", updates_per_step=2, kl_coef=0.04, max_prompt_tokens=20, max_response_tokens=45)
"""64 responses an update, with a reference, and old log-probabilities."""


@pytest.fixture(autouse=True)
def inside_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def config():
    return resolve(replace(GRPO, name="x", device="cpu"))


# The largest ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tokens,longest,responses,expected",
    [
        (16384, 4023, 128, (8, 2048)),  # 16,384 positions; four of 4,023 are 16,092
        (1000, 4023, 128, (1, 4023)),  # a longer response goes alone
        (16384, 4023, 2, (2, 4023)),
        (8000, 4023, 128, (2, 4000)),
        (4023, 4023, 128, (1, 4023)),
    ],
)
def test_the_largest_micro_batch(tokens, longest, responses, expected):
    assert widest(tokens, longest, responses) == expected


@given(st.data(), st.integers(1, 300), st.integers(1, 60), st.integers(1, 40))
def test_no_batch_can_be_cut_into_a_larger_one(data, tokens, longest, responses):
    count, positions = widest(tokens, longest, responses)
    lengths = data.draw(st.lists(st.integers(1, longest), min_size=responses, max_size=responses))
    batch = large_batch(resolve(replace(GRPO, name="x")), 300, responses, longest)
    batch = replace(batch, lengths=torch.tensor(lengths))
    for rows in micro_batches(batch, tokens):
        assert len(rows) * int(batch.lengths[rows].max()) <= count * positions
    same = large_batch(resolve(replace(GRPO, name="x")), 300, min(2 * count, responses), positions)
    assert len(next(micro_batches(same, tokens))) == count  # and it is cut into the one that is meant


def test_its_rows_are_in_the_response_as_far_as_they_can_be(config):
    batch = large_batch(config, vocabulary=300, responses=3, positions=64)
    assert batch.mask.sum(1).tolist() == [45] * 3 and not batch.mask[:, : 64 - 45].any()
    assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1]) and batch.inputs.max() < 300
    assert large_batch(config, vocabulary=300, responses=1, positions=30).mask.all()
    alone = replace(config, updates_per_step=1, kl_coef=0.0, log_kl=False)
    bare = large_batch(alone, vocabulary=300, responses=1, positions=30)
    assert batch.old_logprobs is not None and bare.old_logprobs is None and bare.ref_logprobs is None


# Bytes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_as_many_bytes_as_the_state_has_are_set_aside_until_it_is_there(tied_folder, config, dtype):
    policy = make_policy(tied_folder, dtype=dtype)
    aside = sum(tensor.nbytes for tensor in state_to_come(policy, "adamw"))
    for parameter in policy.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    policy.optimizer.step()
    counts = 4 * len(list(policy.model.parameters()))
    assert aside == state_bytes(policy.optimizer) - counts
    assert state_to_come(policy, "adamw") == []


def test_eight_bits_and_a_state_on_the_host(tied_folder):
    policy = make_policy(tied_folder)
    parameters = sum(parameter.numel() for parameter in policy.model.parameters())
    assert sum(tensor.nbytes for tensor in state_to_come(policy, "adamw_8bit")) == 2 * parameters
    assert sum(tensor.nbytes for tensor in state_to_come(policy, "adamw_offload")) == 0


@pytest.mark.parametrize("recompute", [False, True], ids=["whole", "recomputed"])
def test_its_peak_is_that_of_the_plan_to_five_per_cent(config, recompute):
    """Measured by torch's profiler, with all that comes while it lasts: gradients, AdamW's state, activations, head."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from grpo.model.recompute import recompute_layers

    torch.manual_seed(0)
    shape = Qwen2Config(
        vocab_size=1000, hidden_size=448, intermediate_size=2048, num_hidden_layers=3, num_attention_heads=7,
        num_key_value_heads=1, tie_word_embeddings=True,
    )  # fmt: skip
    model = Qwen2ForCausalLM(shape)
    if recompute:
        recompute_layers(model)
    policy = Policy(model, temperature=1.0, micro_batch_tokens=512)
    config = replace(config, micro_batch_tokens=512, memory_fraction=0.4, gradient_checkpointing=recompute)
    load = make_plan(config, shape_of(shape), card=8 * GIB).load
    load = replace(load, widths=Widths(compute=4))
    measured = peak(lambda: rehearse(config, policy, None))
    assert measured == pytest.approx(
        planned_tensors(load) - 4 * load.shape.parameters, rel=0.05
    )  # the weights are there


@pytest.mark.parametrize("layers", [3, 9])
def test_a_critic_is_rehearsed_with_all_that_it_takes(config, layers):
    """Of nine layers its own update is the fullest moment; of three that of the policy, beside the critic's state."""
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2ForSequenceClassification

    torch.manual_seed(0)
    sizes = dict(
        vocab_size=1000, hidden_size=448, intermediate_size=2048, num_attention_heads=7, num_key_value_heads=1,
        tie_word_embeddings=True,
    )  # fmt: skip
    shape, of_critic = (Qwen2Config(**sizes, num_hidden_layers=count) for count in (3, layers))
    policy = Policy(Qwen2ForCausalLM(shape), temperature=1.0, micro_batch_tokens=512)
    of_critic.num_labels, of_critic.pad_token_id = 1, 0
    critic = ScalarModel(Qwen2ForSequenceClassification(of_critic), OptimizerSettings(), micro_batch_tokens=512)
    before = copy.deepcopy(critic.model.state_dict())
    config = replace(config, micro_batch_tokens=512, memory_fraction=0.4, gradient_checkpointing=False)
    load = make_plan(config, shape_of(shape), card=8 * GIB).load
    load = replace(load, widths=Widths(compute=4), critic=critic_shape(shape_of(of_critic)))
    measured = peak(lambda: rehearse(config, policy, None, critic))
    there = 4 * (load.shape.parameters + load.critic.parameters)
    with pytest.MonkeyPatch.context() as patch:  # a critic's arithmetic on a CPU
        patch.setattr("grpo.memory.stages.CRITIC", Widths(compute=4))
        planned, held = planned_tensors(load), stages(load)
    assert measured == pytest.approx(planned - there, rel=0.05)
    assert (total(held["critic's update"]) > total(held["update"])) == (layers == 9)
    assert all(torch.equal(tensor, before[name]) for name, tensor in critic.model.state_dict().items())
    assert not critic.optimizer.state and all(parameter.grad is None for parameter in critic.model.parameters())


# Without a trace --------------------------------------------------------------------------------------------------


def test_weights_gradients_optimizer_and_generator_stay(tied_folder, config):
    policy = make_policy(tied_folder, micro_batch_tokens=200)
    reference = policy.frozen_copy()
    before, drawn = copy.deepcopy(policy.model.state_dict()), torch.random.get_rng_state()
    found = rehearse(config, policy, reference)
    assert found == Rehearsed(responses=4, positions=50, peak=None)
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.model.state_dict().items())
    assert all(parameter.grad is None for parameter in policy.model.parameters())
    assert not policy.optimizer.state and policy.schedule.last_epoch == 0 and policy.moves == 0
    assert torch.equal(torch.random.get_rng_state(), drawn) and policy.micro_batch_tokens == 200


SMALL = ["--problems-per-step", "4", "--responses-per-problem", "4", "--eval-problems", "8", "--wandb", "off"]
SMALL += ["--engine", "hf", "--steps", "2", "--algo", "grpo", "--updates-per-step", "2", "--save-every", "2"]


def kept(folder):
    """All that a run has computed: rows without times, samples, weights and the trainer's state."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timed = ("time/", "memory/", "tokens_per_second")
    rows = [{key: value for key, value in row.items() if not key.startswith(timed)} for row in lines]
    state = torch.load(folder / "checkpoint-2" / "trainer_state.pt", weights_only=True)
    moments = [slot[name] for slot in state["optimizer"]["state"].values() for name in ("exp_avg", "exp_avg_sq")]
    weights = (folder / "checkpoint-2" / "model.safetensors").read_bytes()
    return rows, (folder / "samples.jsonl").read_text(), weights, [moment.tolist() for moment in moments]


@pytest.fixture
def rehearsing(monkeypatch):
    """As on a card."""
    monkeypatch.setattr(grpo.setup, "on_card", lambda policy: True)


def test_a_run_with_a_rehearsal_is_bit_for_bit_one_without(tmp_path, monkeypatch, capsys):
    assert main([*SMALL, "--name", "without"]) == 0
    assert "rehearsed" not in capsys.readouterr().out
    monkeypatch.setattr(grpo.setup, "on_card", lambda policy: True)
    assert main([*SMALL, "--name", "with"]) == 0
    assert "rehearsed: it fits" in capsys.readouterr().out
    assert kept(tmp_path / "runs" / "with") == kept(tmp_path / "runs" / "without")


# Memory that runs out ---------------------------------------------------------------------------------------------


@pytest.fixture
def fault(monkeypatch):
    """Memory runs out in the forward pass of an update with more positions than so many."""
    real = Policy.outputs

    def above(positions):
        def outputs(self, micro_batch):
            if micro_batch.inputs.numel() > positions:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return real(self, micro_batch)

        monkeypatch.setattr(Policy, "outputs", outputs)

    return above


def test_a_micro_batch_that_does_not_fit_is_halved_before_the_first_step(tied_folder, config, fault):
    policy, said = make_policy(tied_folder, micro_batch_tokens=400), []
    policy.say = said.append
    fault(150)
    found = rehearse(config, policy, None)
    assert found.responses * found.positions <= 150 and len(said) == 2 and policy.micro_batch_tokens <= 150


def test_a_response_that_does_not_fit_alone_ends_the_run_in_a_paragraph(tmp_path, fault, rehearsing, capsys):
    fault(126)  # the preset's 32 + 96 tokens have 127 positions
    assert main([*SMALL, "--name", "x", "--micro-batch-tokens", "500"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: Memory ran out in a backward pass over one response of 127 positions")
    assert error.count("\n") == 1 and "Traceback" not in error
    assert not (tmp_path / "runs" / "x" / "metrics.jsonl").exists()


def test_no_room_for_the_optimizers_state(tied_folder, config, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("grpo.memory_rehearsal.state_to_come", full)
    with pytest.raises(OutOfMemory, match=r"making room for the optimizer's state.*--optimizer adamw_8bit"):
        rehearse(config, make_policy(tied_folder), None)


def test_what_is_said_has_the_plans_figure_for_the_same_micro_batch(config):
    config = resolve(Config(model="some/model", name="y", plan_for=79, device="cpu"))
    from memory.real_shapes import qwen_config

    plan = make_plan(config, shape_of(qwen_config("Qwen2.5-1.5B")), 79 * GIB)
    found = Rehearsed(responses=5, positions=3276, peak=30 * GIB)
    planned = planned_tensors(replace(plan.load, micro_batch_tokens=5 * 3276)) / GIB
    assert 28 < planned < 31
    assert found.line(plan).startswith(
        f"rehearsed: 30.0 GiB at the peak, planned {planned:.1f} (largest micro-batch, 5 x"
    )
    assert found.line(None).startswith("rehearsed: 30.0 GiB at the peak (largest")


# On a card --------------------------------------------------------------------------------------------------------

CARD = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and torch sees none")


def on_a_card(tokens):
    """(policy, config, plan) of a model of 112M parameters, under autocast, its layers recomputed."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from grpo.model.recompute import recompute_layers

    torch.manual_seed(0)
    shape = Qwen2Config(
        vocab_size=50000, hidden_size=896, intermediate_size=4864, num_hidden_layers=4, num_attention_heads=14,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    model = Qwen2ForCausalLM(shape).to("cuda")
    recompute_layers(model)
    flags = dict(max_prompt_tokens=2, max_response_tokens=2000, micro_batch_tokens=tokens, memory_fraction=0.4)
    config = resolve(Config(name="x", device="cuda", gradient_checkpointing=True, log_kl=False, **flags))
    plan = make_plan(config, shape_of(shape), torch.cuda.mem_get_info()[1])
    return Policy(model, temperature=1.0, micro_batch_tokens=tokens), config, plan


@pytest.mark.gpu
@CARD
def test_on_a_card_the_peak_is_that_of_the_plan_and_nothing_is_left():
    policy, config, plan = on_a_card(16384)
    before = torch.cuda.memory_allocated()
    found = rehearse(config, policy, None, asleep=GIB)
    assert found.peak == pytest.approx(planned_tensors(plan.load), rel=0.1)
    assert torch.cuda.memory_allocated() == pytest.approx(before, abs=64 * 2**20)  # workspaces of matrix products


@pytest.mark.gpu
@CARD
def test_on_a_card_that_is_too_small_micro_batches_are_halved_until_they_fit():
    """A real want of memory: torch may take three quarters of what the whole micro-batch needs."""
    policy, config, plan = on_a_card(16384)
    said = []
    policy.say = said.append
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.empty_cache()
    try:
        torch.cuda.set_per_process_memory_fraction(0.75 * planned_tensors(plan.load) / total)
        found = rehearse(config, policy, None)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert said and found.responses * found.positions < 16000 and policy.micro_batch_tokens <= 8192
