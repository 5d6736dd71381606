"""Memory: a plan's bytes against made-up free memory, on a CPU and on a card, and what is said of it."""

import json
from dataclasses import replace

import pytest
from conftest import make_policy
from made_up import bad, one
from memory.measured_bytes import peak
from memory.real_shapes import qwen_config

from grpo.card import make_plan
from grpo.config import Config
from grpo.diagnosis.memory import (
    Place,
    cache_finding,
    card_findings,
    free_on_host,
    host_findings,
    host_load,
    memory_findings,
    place_of,
)
from grpo.memory.host_stages import host_stages
from grpo.memory.model_shape import shape_of
from grpo.memory.stages import GIB, total
from grpo.memory_rehearsal import rehearse
from grpo.resolve import resolve

REAL = resolve(Config(model="some/model", name="none", max_response_tokens=1024, kl_coef=0.01, device="cpu"))
"""128 problems of 8 responses in 8 updates; prompts and responses of 1024 tokens; 16,384 positions; a reference."""
SHAPE = shape_of(qwen_config("Qwen2.5-0.5B"))
LOAD = host_load(REAL, SHAPE)
NEED = max(total(stage) for stage in host_stages(LOAD, 0.5 * GIB).values())


def found(free, engine="vllm", config=REAL):
    return list(host_findings(config, host_load(config, SHAPE), free, engine))


def test_all_arithmetic_of_a_cpu_is_in_the_precision_of_the_weights():
    widths = LOAD.widths
    assert (widths.weights, widths.gradient, widths.optimizer, widths.compute, widths.reference) == (4, 4, 8, 4, 4)
    narrow = host_load(replace(REAL, precision="bfloat16", kl_coef=0.0), SHAPE).widths
    assert (narrow.weights, narrow.gradient, narrow.optimizer, narrow.compute, narrow.reference) == (2, 2, 8, 2, 0)


def test_too_little_memory_is_a_fault_and_little_a_warning():
    assert not bad(found(1.2 * NEED))
    assert one(found(1.05 * NEED), "warning")
    finding = one(found(0.8 * NEED), "fault")
    assert f"494.0M parameters: a run needs about {NEED / GIB:.1f} GiB, most in the stage 'update'" in finding.found
    assert "reference 1.8 GiB" in finding.found and f"free: {0.8 * NEED / GIB:.1f} GiB" in finding.found
    (unknown, _) = (*found(None), None)
    assert unknown.level == "not checked"


def test_what_helps_is_named_with_its_worth_and_is_worth_it():
    finding = one(found(0.8 * NEED), "fault")
    assert "no reference (--kl-coef 0 --log-kl False) saves 1.8 GiB" in finding.advice
    assert (
        "--engine hf, which has no weights of its own, saves 2.3 GiB" in finding.advice
    )  # 4 bytes each, and the cache
    for of_a_card in ("--reference-device", "--memory-fraction", "adamw_offload"):
        assert of_a_card not in finding.advice
    said = finding.advice.partition("--micro-batch-tokens 2048 saves ")[2].partition(" GiB")[0]
    smaller = replace(REAL, micro_batch_tokens=2048)
    less = max(total(stage) for stage in host_stages(host_load(smaller, SHAPE), 0.5 * GIB).values())
    assert float(said) == pytest.approx((NEED - less) / GIB, abs=0.06)
    assert not bad(found(less / 0.89, config=smaller))


def test_transformers_has_no_weights_of_its_own():
    (finding,) = found(100 * GIB, engine="hf")
    assert "vLLM" not in finding.found


def test_the_need_is_what_a_rehearsal_takes_to_five_per_cent(tied_folder):
    """A tiny model with two updates a step; gradients, AdamW's state and all that passes, as torch's profiler counts
    them. The weights and the reference are there before."""
    flags = dict(updates_per_step=2, max_prompt_tokens=4, max_response_tokens=300, algo="grpo")
    config = resolve(Config(name="x", device="cpu", micro_batch_tokens=4096, **flags))
    policy = make_policy(tied_folder, micro_batch_tokens=4096)
    reference = policy.frozen_copy()
    load = host_load(config, shape_of(policy.model.config))
    held = host_stages(load, None)["update"]
    need = total(held) - held["weights"] - held["reference"]
    assert peak(lambda: rehearse(config, policy, reference)) == pytest.approx(need, rel=0.05)


@pytest.mark.parametrize("model,card,level", [("1.5B", 79, "ok"), ("1.5B", 23.5, "fault")])
def test_a_card_is_judged_by_the_plan_of_the_run(model, card, level):
    config = resolve(Config(model="some/model", name="none", plan_for=card))
    plan = make_plan(config, shape_of(qwen_config(f"Qwen2.5-{model}")), card * GIB, taken=GIB)
    memory, cache = card_findings(plan)
    assert memory.level == level and f"free: {card - 1:.1f} GiB" in memory.found
    assert (level == "fault") == (not plan.fits) and "vLLM's KV cache" in cache.found
    if level == "fault":
        assert "in the stage 'update'" in memory.found and "--optimizer adamw_8bit saves 8.6 GiB" in memory.advice


def test_a_card_with_less_left_than_the_plan_itself_would_leave_is_a_warning():
    config = resolve(Config(model="some/model", name="none", plan_for=79, memory_fraction=0.73))
    plan = make_plan(config, shape_of(qwen_config("Qwen2.5-1.5B")), 79 * GIB)
    assert plan.fits and "--memory-fraction 0.4" in one(card_findings(plan), "warning").advice


def test_a_kv_cache_that_holds_no_response_is_a_fault():
    fine = cache_finding(GIB, GIB // 4, "--kv-cache-gib")
    assert fine.level == "ok" and "about 1.0 GiB, holds 4 responses of full length" in fine.found
    assert "raise --memory-fraction" in cache_finding(0.9, 1, "--memory-fraction").advice
    small = replace(REAL, kv_cache_gib=0.01)
    assert "--kv-cache-gib" in one(found(100 * GIB, config=small), "fault").advice


def test_a_model_of_another_kind_is_not_checked(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    for place in (Place(cuda=False, free=2**20), Place(cuda=True)):
        (finding,) = memory_findings(REAL, str(tmp_path), place, "hf")
        assert finding.level == "not checked" and "type gpt2" in finding.found


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
    assert place_of("cpu", None).free > 2**20
