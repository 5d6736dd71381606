"""Memory: hand-computed needs against made-up free memory, on a CPU and on a card; activations by counting."""

from dataclasses import replace

import pytest
from conftest import VOCABULARY, make_policy
from made_up import bad, one

from grpo.config import Config
from grpo.diagnosis.memory import (
    GIB,
    Place,
    Shape,
    activation_bytes,
    free_on_host,
    kv_cache_findings,
    memory_findings,
    micro_batch,
    model_shape,
    needs,
    place_of,
)
from grpo.resolve import resolve

REAL = resolve(Config(model="some/model", name="none", max_response_tokens=1024, kl_coef=0.01))
"""128 problems of 8 responses in 8 updates; prompts and responses of 1024 tokens; 16,384 positions; a reference."""
SHAPE = Shape(parameters=10**9, vocabulary=2**15, kv_values=1000)
HOST = Place(cuda=False, free=100 * GIB)
CARD = Place(cuda=True, free=80 * GIB, total=80 * GIB)


def test_the_shape_of_a_model_without_its_weights(tied_folder):
    policy = make_policy(tied_folder)
    count = sum(parameter.numel() for parameter in policy.model.parameters())
    # two layers, one head of keys and one of values, of 64 / 2 numbers
    assert model_shape(str(tied_folder), trust_remote_code=False) == Shape(count, VOCABULARY, 2 * 2 * 1 * 32)


def test_needs_on_a_cpu_by_hand():
    update = needs(REAL, SHAPE, HOST, "vllm", activations=100_000)["the update"]
    assert update == {
        "weights": 4e9,
        "AdamW": 8e9,
        "reference": 4e9,
        "gradients": 4e9,
        "vLLM's weights": 4e9,
        "vLLM's KV cache": 0.5 * GIB,
        "activations": 100_000 * 16_384,
        "logits": 24 * 1024 * 2**15,
    }
    generation = needs(REAL, SHAPE, HOST, "hf")["generation"]
    assert generation["KV cache"] == 256 * 2048 * 1000 * 4 and "gradients" not in generation


def test_needs_on_a_card_by_hand():
    moments = needs(REAL, SHAPE, CARD, "vllm")
    assert moments["generation"] == {
        "weights": 4e9, "AdamW": 8e9, "reference": 4e9, "vLLM (--memory-fraction)": 0.4 * 80 * GIB,
    }  # fmt: skip
    assert sum(moments["the update"].values()) == 22e9  # 16 a parameter, the reference, and copies in bfloat16
    assert "reference" not in needs(replace(REAL, kl_coef=0.0), SHAPE, CARD, "vllm")["the update"]


def test_a_micro_batch_holds_a_whole_response_and_no_more_than_an_update():
    assert micro_batch(REAL) == 16_384
    assert micro_batch(replace(REAL, micro_batch_tokens=100)) == 2048
    assert micro_batch(replace(REAL, micro_batch_tokens=10**9)) == 128 * 2048


def found(free, engine="vllm", place=HOST, activations=None, config=REAL):
    return list(memory_findings(config, SHAPE, replace(place, free=free), engine, activations))


def test_too_little_memory_is_a_fault_and_little_a_warning():
    # 24e9 bytes and half a GiB, 22.9 GiB
    assert not bad(found(26 * GIB))
    assert one(found(24 * GIB), "warning")
    finding = one(found(20 * GIB), "fault")
    assert "1000.0M parameters: a run needs about 22.9 GiB in memory, most during the update" in finding.found
    assert "free: 20.0 GiB" in finding.found
    assert (
        "--kl-coef 0 --log-kl False keeps no reference (3.7 GiB)" in finding.advice and "--engine hf" in finding.advice
    )
    assert "--memory-fraction" in one(found(40 * GIB, place=CARD), "fault").advice
    (unknown,) = found(None)
    assert unknown.level == "not checked"


def test_the_micro_batch_that_would_fit_is_named_and_fits():
    """1 MB a token: 15.3 GiB of activations."""
    advice = one(found(36 * GIB, activations=1e6), "fault").advice
    fits = int(advice.partition("--micro-batch-tokens ")[2].split()[0])
    assert 2048 < fits < 16_384
    assert not bad(found(36 * GIB, activations=1e6, config=replace(REAL, micro_batch_tokens=fits)))
    assert one(found(36 * GIB, activations=1e6, config=replace(REAL, micro_batch_tokens=fits + 100)), "warning")


def test_a_kv_cache_that_holds_no_response_is_a_fault():
    one_response = 2048 * 1000 * 4
    (fine,) = kv_cache_findings(REAL, SHAPE, HOST)
    assert f"holds {GIB // 2 // one_response} responses of full length" in fine.found
    small = replace(REAL, kv_cache_gib=0.9 * one_response / GIB)
    assert "--kv-cache-gib" in one(kv_cache_findings(small, SHAPE, HOST), "fault").advice
    full = replace(REAL, memory_fraction=0.03)
    assert "raise --memory-fraction" in one(kv_cache_findings(full, SHAPE, CARD), "fault").advice


def test_activations_are_counted(tied_folder):
    """Linear in the tokens, more than the layers' outputs, and of no weights."""
    policy = make_policy(tied_folder)
    bytes_a_token = activation_bytes(policy)
    assert bytes_a_token == pytest.approx(activation_bytes(policy, tokens=128), rel=0.01)
    assert 2 * 4 * (64 + 3 * 128) < bytes_a_token < 40 * 2 * 4 * (64 + 3 * 128)
    assert all(parameter.grad is None for parameter in policy.model.parameters())


def test_free_memory_of_the_host(tmp_path):
    meminfo, limit = tmp_path / "meminfo", tmp_path / "memory.max"
    assert free_on_host(meminfo, limit) is None
    meminfo.write_text("MemTotal:       3000 kB\nMemAvailable:   2000 kB\n")
    assert free_on_host(meminfo, limit) == 2000 * 1024
    limit.write_text("max\n")
    assert free_on_host(meminfo, limit) == 2000 * 1024
    limit.write_text("1000\n")
    assert free_on_host(meminfo, limit) == 1000


def test_this_host_has_some():
    assert place_of("cpu").free > 2**20
