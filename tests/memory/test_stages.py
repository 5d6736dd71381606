"""The stages of a step: what stays, what comes and goes, and that the README's own command has room."""

from dataclasses import replace

import pytest
from real_shapes import load_of

from grpo.engines import sync
from grpo.memory.fit import fits
from grpo.memory.model_shape import critic_shape
from grpo.memory.moments import critic_moment, update_moment
from grpo.memory.stages import GAPS, GIB, PROBE, STAGES, gathered, largest_update, stages, total
from grpo.memory.widths import Widths


def test_what_stays_is_in_every_stage_and_what_passes_in_its_own():
    load = load_of("Qwen2.5-1.5B", 79)
    held = stages(replace(load, widths=replace(load.widths, reference=4), taken=GIB))
    assert list(held) == [stage for stage in STAGES if stage != "critic's update"]
    for stage in held:
        assert held[stage]["weights"] == held[stage]["reference"] == 4 * load.shape.parameters
        assert (held[stage]["optimizer"], held[stage]["other programs"]) == (8 * load.shape.parameters, GIB)
    assert [stage for stage in held if held[stage].get("gradients")] == ["update"]
    assert [stage for stage in held if held[stage].get("activations")] == ["log-probabilities", "update"]
    assert [stage for stage in held if held[stage].get("vLLM's weights")] == ["generate", "sync"]
    assert [stage for stage in held if held[stage].get("KV cache")] == ["generate"]


def test_vllm_takes_its_share_and_no_more():
    load = replace(load_of("Qwen2.5-1.5B", 79), memory_fraction=0.4)
    held = stages(load)["generate"]
    of_vllm = sum(held[row] for row in ("vLLM's weights", "KV cache", "vLLM's workspace"))
    assert of_vllm == pytest.approx(0.4 * 79 * GIB)


def test_the_proof_of_a_sync_has_room_beside_an_awake_vllm():
    """Its positions are the probe's: a card that is full when vLLM wakes would stop the run at its second step."""
    assert PROBE == sync.SEQUENCES * (sync.PROMPT_TOKENS + sync.RESPONSE_TOKENS)
    load = load_of("Qwen2.5-3B", 79)
    held = stages(load)
    assert 0.5 * GIB < held["generate"]["proof of a sync"] < 1.5 * GIB  # a copy of the head is most of it
    assert all("proof of a sync" not in held[stage] for stage in ("log-probabilities", "update"))


def test_transformers_generates_with_the_policy_and_keeps_a_cache_of_all_responses():
    held = stages(replace(load_of("Qwen2.5-1.5B", 79), memory_fraction=None))
    assert held["generate"]["KV cache"] == 2 * 256 * 4024 * 28 * 1024  # float32, as its weights
    assert not any(held[stage].get("vLLM's weights") for stage in held)


@pytest.mark.parametrize(
    "micro_batch_tokens,update_sequences,positions", [(16384, 128, 16384), (1000, 128, 4024), (16384, 2, 8048)]
)
def test_the_largest_micro_batch(micro_batch_tokens, update_sequences, positions):
    """A response longer than the limit goes alone, and there are no more positions than the update has."""
    load = load_of("Qwen2.5-0.5B", 79)
    load = replace(load, micro_batch_tokens=micro_batch_tokens, update_sequences=update_sequences)
    assert load.tokens == positions
    moment = update_moment(load.shape, load.widths, positions, recompute=True)
    assert largest_update(load) == moment
    held = stages(load)["update"]
    passing = held["activations"] + held["head"] + held["copies of weights"]
    assert passing == moment.total and held["CUDA, gaps"] == pytest.approx(2 * GIB + GAPS * moment.total)


def test_the_command_of_the_main_readme_leaves_15_gib_of_an_80_gb_card():
    """Qwen2.5-Math-1.5B, which has the shape of Qwen2.5-1.5B, with every flag at its default. A card that is sold as 80
    GB has 79 GiB."""
    held = stages(load_of("Qwen2.5-1.5B", 79))
    left = {stage: 79 - total(held[stage]) / GIB for stage in held}
    assert min(left.values()) > 15 and left["update"] > 45
    without = stages(replace(load_of("Qwen2.5-1.5B", 79), recompute=False))
    assert 79 - total(without["update"]) / GIB < 1  # as it was when gradient checkpointing did nothing


def test_ranks_divide_what_they_hold_and_tensor_parallel_what_vllm_holds():
    """7B on 8 cards, by hand: 16 bytes a parameter, divided by 8, and what is gathered while it computes."""
    one = load_of("Qwen2.5-7B", 79)
    eight = replace(one, shards=8)
    held, parts = stages(one)["update"], stages(eight)["update"]
    for row in ("weights", "gradients", "optimizer"):
        assert parts[row] == held[row] / 8
    shape = one.shape
    assert parts["weights"] + parts["gradients"] + parts["optimizer"] == 16 * shape.parameters / 8
    root = 2 * shape.head  # embedding and head, which Qwen2.5-7B does not tie
    assert gathered(eight) == 2 * (root + 2 * shape.layer) == stages(eight)["log-probabilities"]["copies of weights"]
    assert gathered(eight, gradients=True) == gathered(eight) + 6 * root and gathered(one) == 0
    both = replace(eight, tensor_parallel=4)
    assert both.vllm_weights == one.vllm_weights / 4 and both.kv_sequence == one.kv_sequence / 4
    assert not fits(one) and fits(replace(eight, memory_fraction=0.5))


def test_a_critic_stays_in_every_stage_and_has_an_update_of_its_own():
    """Qwen2.5-1.5B: 1.54B parameters of 4 + 8 bytes, and 4 of a gradient while it is updated."""
    alone = load_of("Qwen2.5-1.5B", 139)
    load = replace(alone, critic=critic_shape(alone.shape))
    size, held = alone.shape.parameters + alone.shape.hidden, stages(load)
    assert set(held) == set(STAGES) and set(STAGES) - set(stages(alone)) == {"critic's update"}
    assert all(rows["critic"] == 12 * size for rows in held.values())
    update = held["critic's update"]
    moment = critic_moment(load.critic, Widths(), load.tokens, recompute=True)
    assert update["gradients"] == 4 * size
    assert update["activations"] + update["head"] + update["copies of weights"] == moment.total > 0
    halves = stages(replace(load, shards=2))
    assert halves["sync"]["critic"] == 6 * size and halves["critic's update"]["gradients"] == 2 * size
    others = {"critic", "gradients", "activations", "head", "copies of weights", "CUDA, gaps"}
    assert {row: update[row] for row in held["sync"].keys() & update.keys() - others} == {
        row: held["update"][row] for row in held["sync"].keys() & update.keys() - others
    }


def test_an_untied_heads_critic_has_no_output_head():
    shape = load_of("Qwen2.5-7B", 139).shape
    assert critic_shape(shape).parameters == shape.parameters - 152064 * 3584 + 3584
    assert critic_shape(shape).layer == shape.layer + 3584 // 28
