"""The probe passes clean syncs and catches every fault that is known to be silent."""

import itertools
import math
import subprocess
import sys

import pytest
import torch
from conftest import END, OTHER_END, PAD, ROOT, VOCABULARY, make_model, make_policy

from grpo.engines.hf_engine import HFEngine
from grpo.engines.sync import Scores, SyncError, SyncProbe, stood_still

TEMPERATURE = 0.8


@pytest.fixture
def policy(tied_folder):
    return make_policy(tied_folder, temperature=TEMPERATURE)


def make_probe():
    return SyncProbe(range(3, 250), max_tokens=192, temperature=TEMPERATURE, tolerance=1e-4)


@pytest.fixture
def probe():
    return make_probe()


@pytest.fixture
def engine(vllm_engine, policy, probe):
    """vLLM in sync with the policy, its prefix cache warm with the probe's own prompts."""
    vllm_engine.sync(policy)
    probe.check(vllm_engine, policy, step=0)
    return vllm_engine


def move(policy, seed=0, scale=0.01):
    """A step of the size that training makes, on every tensor."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


class Tampered:
    """A policy whose weights reach the engine changed: the injected fault."""

    def __init__(self, policy, change):
        self.policy, self.change = policy, change

    def weights(self):
        return iter(self.change(dict(self.policy.weights())).items())


def left_out(name):
    return lambda weights: {key: value for key, value in weights.items() if key != name}


def swapped(one, two):
    return lambda weights: {**weights, one: weights[two], two: weights[one]}


def caught(engine, policy, probe, step=7):
    probe.before = None  # as in a run's first check: the gap alone must say it
    with pytest.raises(SyncError, match=rf"step {step}: .* differ from the policy's by \S+ nats") as error:
        probe.check(engine, policy, step)
    assert "tolerance" in str(error.value)


def test_twenty_clean_syncs_pass(engine, policy, probe):
    for step in range(1, 21):
        move(policy, seed=step)
        engine.sync(policy)
        assert probe.check(engine, policy, step) < 1e-5


def test_no_sync_is_caught(engine, policy, probe):
    move(policy)
    caught(engine, policy, probe)


SMALLEST = 1e-7
"""A learning rate of 1e-6 moves weights by ten times this, and the gap by 1e-5: far below the tolerance."""


def test_a_lost_sync_is_caught_however_small_the_update(engine, policy, probe):
    move(policy, scale=SMALLEST)
    assert probe.gap(engine, policy) < probe.tolerance / 10
    with pytest.raises(SyncError, match=r"step 7: .* not one bit of the engine's has changed"):
        probe.check(engine, policy, 7)


def test_the_smallest_updates_pass_where_they_arrive_and_so_do_none_at_all(engine, policy, probe):
    for step in range(1, 21):
        if step % 4:
            move(policy, seed=step, scale=SMALLEST)
        engine.sync(policy)
        assert probe.check(engine, policy, step) < 1e-5


def test_standing_still_takes_a_tenth_of_the_policys_scores():
    before = Scores(torch.zeros(20), torch.zeros(20))
    one, two = torch.zeros(20), torch.zeros(20)
    one[0] = two[:2] = 1e-6
    assert not stood_still(before, Scores(one, torch.zeros(20)))
    assert stood_still(before, Scores(two, torch.zeros(20)))
    assert not stood_still(before, Scores(two, one))


LAYER = "model.layers.1."
# Not the embedding: in a tied model it arrives under the head's name too, so that leaving out one of the two names is
# no fault; leaving out the head's is (test_a_missed_tied_head_is_caught).
TENSORS = [
    LAYER + "self_attn.q_proj.weight",
    LAYER + "self_attn.k_proj.weight",
    LAYER + "self_attn.v_proj.bias",
    LAYER + "self_attn.o_proj.weight",
    LAYER + "mlp.gate_proj.weight",
    LAYER + "mlp.up_proj.weight",
    LAYER + "mlp.down_proj.weight",
    LAYER + "input_layernorm.weight",
    LAYER + "post_attention_layernorm.weight",
    "model.norm.weight",
]


@pytest.mark.parametrize("name", TENSORS)
def test_one_tensor_left_out_is_caught(engine, policy, probe, name):
    move(policy)
    engine.sync(Tampered(policy, left_out(name)))
    caught(engine, policy, probe)


@pytest.mark.parametrize(
    "one,two",
    [
        ("model.layers.0.self_attn.q_proj.weight", "model.layers.1.self_attn.q_proj.weight"),
        (LAYER + "mlp.gate_proj.weight", LAYER + "mlp.up_proj.weight"),
        (LAYER + "self_attn.k_proj.weight", LAYER + "self_attn.v_proj.weight"),
        (LAYER + "input_layernorm.weight", LAYER + "post_attention_layernorm.weight"),
    ],
)
def test_two_swapped_tensors_are_caught(engine, policy, probe, one, two):
    move(policy)
    engine.sync(Tampered(policy, swapped(one, two)))
    caught(engine, policy, probe)


def test_a_missed_tied_head_is_caught(engine, policy, probe):
    """What `named_parameters()` would hand over: vLLM keeps the old head and says nothing."""
    move(policy)
    tied = {name for name, _ in policy.model.named_parameters()}
    engine.sync(Tampered(policy, lambda weights: {k: v for k, v in weights.items() if k in tied}))
    caught(engine, policy, probe)


def test_a_stale_prefix_cache_is_caught(engine, policy, probe, monkeypatch):
    move(policy)
    monkeypatch.setattr(engine.llm, "reset_prefix_cache", lambda: True)
    engine.sync(policy)
    caught(engine, policy, probe)


@pytest.mark.parametrize("wrong", [1.0, 0.7])
def test_a_wrong_temperature_is_caught(engine, policy, probe, monkeypatch, wrong):
    real = engine.generate
    monkeypatch.setattr(
        engine,
        "generate",
        lambda problems, size, *, temperature, **rest: real(problems, size, temperature=wrong, **rest),
    )
    caught(engine, policy, probe)


def test_one_wrong_row_of_the_embedding_that_the_probe_reads_is_caught(engine, policy, probe):
    token = probe.sequences[0][5]

    def change(weights):
        table = weights["model.embed_tokens.weight"].clone()
        table[token] = table[token].roll(1)
        return {**weights, "model.embed_tokens.weight": table, "lm_head.weight": table}

    engine.sync(Tampered(policy, change))
    caught(engine, policy, probe)


def test_after_a_fault_a_clean_sync_mends_the_engine(engine, policy, probe):
    move(policy)
    engine.sync(Tampered(policy, left_out(TENSORS[1])))
    caught(engine, policy, probe)
    engine.sync(policy)
    assert probe.check(engine, policy, 8) < 1e-5


def test_nan_weights_do_not_pass(tied_folder, tokenizer, probe):
    policy = make_policy(tied_folder, temperature=TEMPERATURE)
    engine = HFEngine(policy, tokenizer, end_ids=[END, OTHER_END])
    engine.generate = lambda *_, **__: HFEngine.generate(engine, *_, **{**__, "temperature": 0.0})
    with torch.no_grad():
        policy.model.model.norm.weight.fill_(float("nan"))
    caught(engine, policy, probe)


@pytest.mark.vllm
def test_an_untied_model_syncs_and_its_head_is_checked(tmp_path):
    """In a process of its own: a second vLLM in this one would take the session's down when it goes."""
    folder = make_model(tmp_path / "untied", tied=False)
    program = (
        "import sys; sys.path[:0] = ['tests', 'tests/engines']\n"
        "from transformers import AutoTokenizer\n"
        "from test_sync import *\n"
        "from grpo.engines.vllm_engine import VLLMEngine\n"
        "folder = sys.argv[1]\n"
        "policy, probe = make_policy(folder, temperature=TEMPERATURE), make_probe()\n"
        "settings = dict(end_ids=[END], max_tokens=192, max_sequences=8, kv_cache_gib=0.1)\n"
        "engine = VLLMEngine(folder, AutoTokenizer.from_pretrained(folder), **settings)\n"
        "move(policy)\n"
        "engine.sync(policy)\n"
        "assert probe.check(engine, policy, 1) < 1e-5\n"
        "move(policy)\n"
        "engine.sync(Tampered(policy, left_out('lm_head.weight')))\n"
        "caught(engine, policy, probe)\n"
        "print('caught')\n"
    )
    done = subprocess.run([sys.executable, "-c", program, folder], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.endswith("caught\n"), done.stderr


def test_the_probe_is_fixed_and_fits_a_small_engine():
    one, two = (SyncProbe(range(3, 99), max_tokens=20, temperature=1.0, tolerance=1.0) for _ in range(2))
    assert one.sequences == two.sequences
    assert {len(sequence) for sequence in one.sequences} == {16}
    assert PAD not in itertools.chain(*one.sequences) and max(itertools.chain(*one.sequences)) < VOCABULARY


# Several ranks ----------------------------------------------------------------------------------------------------

RANK = torch.tensor([0, 1, 2, 0, 1, 2])


def of_ranks(**by_rank):
    """Scores of three ranks' engines, two tokens each, of a policy that gives 0."""
    engine = torch.tensor([by_rank.get(f"rank{rank}", 0.0) for rank in RANK.tolist()])
    return Scores(torch.zeros(6), engine, RANK)


def test_of_several_ranks_the_largest_gap_decides():
    assert of_ranks(rank1=0.3, rank2=0.1).gap == pytest.approx(0.3)  # over all tokens it would be 0.13
    assert math.isnan(of_ranks(rank0=math.nan, rank2=9.0).gap) and math.isnan(of_ranks(rank2=math.nan).gap)


def test_one_rank_that_stands_still_is_enough():
    before, moved = of_ranks(), Scores(torch.full((6,), 0.1), torch.full((6,), 0.1), RANK)
    stale = Scores(moved.policy, torch.where(RANK == 1, 0.0, 0.1), RANK)
    assert not stood_still(before, moved) and stood_still(before, stale)
