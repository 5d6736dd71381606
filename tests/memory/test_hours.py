"""Hours by hand: a card and a model of round numbers."""

from dataclasses import replace

import pytest
from real_shapes import qwen_config

from grpo.memory.adapter import Adapter
from grpo.memory.hours import CARDS, Card, Work, generation_seconds, hours, update_seconds
from grpo.memory.model_shape import shape_of
from grpo.memory.stages import GIB, Load
from grpo.memory.widths import Widths

SHAPE = replace(shape_of(qwen_config("Qwen2.5-0.5B")), parameters=10**9)
TOKEN = 2 * 2 * 24 * 2 * 64
"""Bytes of the KV cache of a token: keys and values, 24 layers, 2 heads of 64 numbers, 2 bytes each."""
CARD = Card("made up", 100, bandwidth=1e12, operations=1e15)
LOAD = Load(
    shape=SHAPE, widths=Widths(), card=100 * GIB, micro_batch_tokens=16384, sequence=4000, update_sequences=128,
    generated_sequences=256, recompute=False, memory_fraction=0.5,
)  # fmt: skip
WORK = Work(responses=1024, updates=8, prompt=200, response=1000, old_logprobs=False, offloads=False)


def test_decoding_reads_weights_and_caches_once_a_round():
    """256 at a time: 4,000 rounds, each of 2e9 bytes of weights and 256 caches of 700 tokens, at half of 1e12 a
    second."""
    expected = 4000 * (2e9 + 256 * 700 * TOKEN) / 0.5e12
    assert generation_seconds(LOAD, CARD, WORK) == pytest.approx(expected)


def test_a_card_that_computes_slowly_is_bound_by_that():
    slow = replace(CARD, operations=1e12)
    assert generation_seconds(LOAD, slow, WORK) == pytest.approx(4000 * 2e9 * 256 / 0.4e12)


def test_a_small_kv_cache_generates_fewer_at_a_time_and_takes_longer():
    small = replace(LOAD, memory_fraction=(LOAD.vllm_weights + LOAD.vllm_workspace + 12 * 1200 * TOKEN) / LOAD.card)
    expected = 1024 / 12 * 1000 * (2e9 + 12 * 700 * TOKEN) / 0.5e12
    assert generation_seconds(small, CARD, WORK) == pytest.approx(expected, rel=1e-6)


def test_passes_by_their_operations_a_parameter_and_token():
    one = 1e9 * 1024 * 1200 / 0.4e15
    assert update_seconds(LOAD, CARD, WORK) == pytest.approx(6 * one)
    more = replace(LOAD, recompute=True, widths=Widths(reference=2))
    assert update_seconds(more, CARD, replace(WORK, old_logprobs=True)) == pytest.approx(12 * one)
    assert update_seconds(LOAD, CARD, replace(WORK, offloads=True)) == pytest.approx(6 * one + 8 * 16e9 / 20e9)


def test_an_adapter_spares_the_gradients_of_the_weights():
    adapted = replace(LOAD, widths=Widths(weights=2, adapter=Adapter(16)))
    assert update_seconds(adapted, CARD, WORK) == pytest.approx(4 * 1e9 * 1024 * 1200 / 0.4e15)


def test_hours_of_all_steps():
    step = generation_seconds(LOAD, CARD, WORK) + update_seconds(LOAD, CARD, WORK)
    assert hours(LOAD, CARD, WORK, 500) == pytest.approx(500 * step / 3600)


def test_a_larger_card_is_faster():
    taken = [hours(LOAD, card, WORK, 500) for card in CARDS.values()]
    assert taken[0] > taken[1] > taken[3] > taken[4]
