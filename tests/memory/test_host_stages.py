"""The stages on a CPU, by hand: what vLLM has for itself, and what comes and goes."""

from dataclasses import replace

import pytest
from real_shapes import qwen_config

from grpo.memory.host_stages import host_kv_sequence, host_stages
from grpo.memory.model_shape import critic_shape, shape_of
from grpo.memory.moments import critic_moment, logprobs_moment, update_moment
from grpo.memory.stages import GIB, Load
from grpo.memory.widths import Widths

SHAPE = shape_of(qwen_config("Qwen2.5-0.5B"))
COUNT = 494_032_768
LOAD = Load(
    shape=SHAPE, widths=Widths(compute=4, reference=4), card=0.0, micro_batch_tokens=4096, sequence=1000,
    update_sequences=64, generated_sequences=100, recompute=False, memory_fraction=None,
)  # fmt: skip


def test_a_response_in_float32():
    """Two numbers, key and value, for each of 24 layers, 2 heads of 64, and 1,000 tokens; 4 bytes each."""
    assert host_kv_sequence(LOAD) == 1000 * 2 * 24 * 2 * 64 * 4
    assert host_kv_sequence(LOAD, width=2) == host_kv_sequence(LOAD) / 2


def test_vllm_has_weights_and_a_cache_of_its_own_the_whole_time():
    held = host_stages(LOAD, vllm_cache=0.5 * GIB)
    for stage in held.values():
        assert (stage["weights"], stage["optimizer"], stage["reference"]) == (4 * COUNT, 8 * COUNT, 4 * COUNT)
        assert (stage["vLLM's weights"], stage["KV cache"]) == (4 * COUNT, 0.5 * GIB)
    assert [stage for stage in held if held[stage].get("gradients")] == ["update"]


def test_transformers_keeps_a_cache_of_all_responses_while_it_generates():
    held = host_stages(LOAD, vllm_cache=None)
    assert held["generate"]["KV cache"] == 100 * host_kv_sequence(LOAD)
    assert not any("vLLM" in row for stage in held.values() for row in stage)
    assert "KV cache" not in held["update"]


def test_the_passes_are_those_that_are_measured_on_a_cpu():
    """tests/memory/test_moments.py holds them against what torch's allocator gives out. No card's overhead is added."""
    held = host_stages(LOAD, vllm_cache=None)
    for stage, moment in (
        ("update", update_moment(SHAPE, LOAD.widths, 4096, recompute=False)),
        ("log-probabilities", logprobs_moment(SHAPE, LOAD.widths, 4096)),
    ):
        passing = ("activations", "head", "copies of weights")
        assert sum(held[stage][row] for row in passing) == pytest.approx(moment.total)
        assert set(held[stage]) - {"weights", "optimizer", "reference", "critic", "gradients"} == set(passing)


def test_a_critic_has_float32_arithmetic_there():
    shape = critic_shape(SHAPE)
    held = host_stages(replace(LOAD, critic=shape), vllm_cache=None)
    assert {stage["critic"] for stage in held.values()} == {12 * (COUNT + 896)}
    moment = critic_moment(shape, LOAD.widths, 4096, recompute=False)
    update = held["critic's update"]
    assert update["gradients"] == 4 * (COUNT + 896)
    assert sum(update[row] for row in ("activations", "head", "copies of weights")) == pytest.approx(moment.total)
