"""Which model fits which card, what is picked, and what a change saves. Cards in GiB as torch reports them: 24 GB has
23.5, 48 GB 44.5 (L40S, the smaller kind), 80 GB 79 and 141 GB 139."""

from dataclasses import replace

import pytest
from real_shapes import load_of

from grpo.memory.fit import (
    MARGIN,
    MOST_AT_ONCE,
    fits,
    left,
    pick_concurrency,
    pick_memory_fraction,
    pick_micro_batch_tokens,
    savings,
)
from grpo.memory.stages import GIB
from grpo.memory.widths import STATE, Widths

ALL_IN_BFLOAT16 = Widths(weights=2, gradient=2, optimizer=STATE["adamw_8bit"])


def least(load):
    return min(left(load).values()) / GIB


@pytest.mark.parametrize(
    "model,card,optimizer",
    [
        ("Qwen2.5-0.5B", 23.5, "adamw"),
        ("Qwen2.5-1.5B", 23.5, "adamw_8bit"),
        ("Qwen2.5-1.5B", 23.5, "adamw_offload"),
        ("Qwen2.5-1.5B", 44.5, "adamw"),
        ("Qwen2.5-3B", 44.5, "adamw_8bit"),
        ("Qwen2.5-3B", 44.5, "adamw_offload"),
        ("Qwen2.5-3B", 79, "adamw"),
        ("Qwen2.5-7B", 79, "adamw_offload"),
        ("Qwen2.5-7B", 139, "adamw"),
        ("Qwen2.5-7B", 139, "adamw_8bit"),
    ],
)
def test_full_fine_tuning_fits_with_weights_in_float32(model, card, optimizer):
    """With what is picked, and room for 32 responses of full length at a time and more in the KV cache."""
    load = load_of(model, card, Widths(optimizer=STATE[optimizer]))
    assert fits(load) and load.kv_cache > 32 * load.kv_sequence
    assert least(load) > 0.02 * card


@pytest.mark.parametrize(
    "model,card,optimizer",
    [
        ("Qwen2.5-1.5B", 23.5, "adamw"),
        ("Qwen2.5-3B", 23.5, "adamw_8bit"),
        ("Qwen2.5-3B", 44.5, "adamw"),
        ("Qwen2.5-7B", 79, "adamw"),
        ("Qwen2.5-7B", 79, "adamw_8bit"),
    ],
)
def test_full_fine_tuning_does_not_fit(model, card, optimizer):
    load = load_of(model, card, Widths(optimizer=STATE[optimizer]))
    assert not fits(load) and least(load) < -1


@pytest.mark.parametrize("model,card", [("Qwen2.5-1.5B", 23.5), ("Qwen2.5-3B", 44.5), ("Qwen2.5-7B", 79)])
def test_weights_in_bfloat16_with_8_bit_state_leave_more(model, card):
    load = load_of(model, card, ALL_IN_BFLOAT16)
    assert fits(load) and load.micro_batch_tokens == 16384


def test_a_reference_in_float32_is_what_a_small_card_has_no_room_for():
    load = load_of("Qwen2.5-1.5B", 23.5, Widths(optimizer=STATE["adamw_8bit"]))
    assert not fits(replace(load, widths=replace(load.widths, reference=4)))


def test_the_micro_batch_is_the_largest_that_leaves_the_margin():
    load = load_of("Qwen2.5-1.5B", 23.5, Widths(optimizer=STATE["adamw_8bit"]))
    tokens = pick_micro_batch_tokens(load)
    assert tokens == 8192
    assert left(replace(load, micro_batch_tokens=tokens))["update"] >= MARGIN * load.card
    assert left(replace(load, micro_batch_tokens=2 * tokens))["update"] < MARGIN * load.card
    assert pick_micro_batch_tokens(load_of("Qwen2.5-7B", 23.5)) == load.sequence == 4024


def test_vllm_gets_what_its_responses_need_or_what_is_there():
    plenty, scarce = load_of("Qwen2.5-0.5B", 139), load_of("Qwen2.5-7B", 139)
    assert pick_memory_fraction(plenty) == plenty.memory_fraction
    assert 256 * plenty.kv_sequence < plenty.kv_cache < 256 * plenty.kv_sequence + 0.06 * plenty.card
    assert scarce.kv_cache < 256 * scarce.kv_sequence
    assert MARGIN * scarce.card <= left(scarce)["generate"] < (MARGIN + 0.011) * scarce.card


def test_as_many_are_generated_at_once_as_the_cache_holds_at_half_their_length():
    load = load_of("Qwen2.5-1.5B", 44.5)
    found = pick_concurrency(load, 1024)
    assert found * load.kv_sequence / 2 <= load.kv_cache < (found + 1) * load.kv_sequence / 2
    assert pick_concurrency(load, 64) == 64  # no more than are asked for
    plenty = replace(load_of("Qwen2.5-0.5B", 139), memory_fraction=0.5)
    assert pick_concurrency(plenty, 5000) == MOST_AT_ONCE
    assert pick_concurrency(replace(load, memory_fraction=0.0), 64) == 1


def test_a_share_too_small_for_one_response_does_not_fit():
    load = replace(load_of("Qwen2.5-1.5B", 79), memory_fraction=0.05)
    assert least(load) > 0 and not fits(load)


def test_what_a_change_saves_in_the_stage_that_lacks_most():
    load = replace(load_of("Qwen2.5-1.5B", 44.5), recompute=False, micro_batch_tokens=16384)
    others = {
        "recompute": replace(load, recompute=True),
        "half": replace(load, micro_batch_tokens=8192),
        "a lower share": replace(load, memory_fraction=0.2),
    }
    saved = savings(load, others)
    assert list(saved) == ["recompute", "half"]  # vLLM sleeps in the update
    assert saved["recompute"] / GIB == pytest.approx(52.3, abs=0.1)  # with what the allocator takes more
    assert saved["recompute"] == left(others["recompute"])["update"] - left(load)["update"]
