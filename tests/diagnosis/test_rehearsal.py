"""The rehearsal on the embedded model: a part of a step, and nothing is changed by it."""

import math

import pytest
import torch
from made_up import bad, one
from transformers import AutoTokenizer

from grpo.config import Config
from grpo.diagnosis import rehearsal
from grpo.diagnosis.rehearsal import affordable, gradient_findings, rehearse, size
from grpo.engines.choose import EngineSettings, make_engine
from grpo.policies import make_policy, make_reference
from grpo.problems.rows import load_rows
from grpo.problems.templates import encode
from grpo.resolve import resolve
from grpo.setup import make_probe


@pytest.mark.parametrize(
    "step,part", [((16, 8), (8, 8)), ((128, 8), (8, 8)), ((4, 4), (4, 4)), ((128, 16), (4, 16)), ((1, 200), (1, 64))]
)
def test_the_part_of_a_step(step, part):
    assert size(*step) == part


def test_tokens_that_fit_the_budget():
    """A token in 0.1 s after a first one in 0.3 s."""
    assert affordable(1000, 0.3, 1.0, budget=10.0) == 98
    assert affordable(50, 0.3, 1.0, budget=10.0) == 50
    assert affordable(50, 20.0, 30.0, budget=10.0) == 1
    assert affordable(50, 0.3, 0.2, budget=10.0) == 50  # a clock that is not exact


def rehearsed(verifiers, **flags):
    flags = dict(name="none", engine="hf", problems_per_step=4, responses_per_problem=4) | flags
    config = resolve(Config(**flags))
    policy = make_policy(config.model, config)
    tokenizer = AutoTokenizer.from_pretrained(config.model)
    problems = encode(load_rows("arithmetic", "train")[:50], tokenizer, template="auto", max_prompt_tokens=32).problems
    engine = make_engine("hf", config.model, tokenizer, EngineSettings(32, 96, sequences=64), policy)
    before = {name: value.clone() for name, value in policy.weights()}
    found = rehearse(
        config, problems, engine=engine, policy=policy, verifiers=verifiers,
        reference=make_reference(policy, config, None), probe=make_probe(config, policy, engine, tokenizer),
    )  # fmt: skip
    assert all(torch.equal(value, before[name]) for name, value in policy.weights())
    assert all(parameter.grad is None for parameter in policy.model.parameters())
    assert not policy.optimizer.state
    return found


@pytest.mark.parametrize("algo", ["dr_grpo", "grpo", "dapo", "reinforce_pp"])
def test_a_part_of_a_step_and_no_weight_has_changed(verifiers, algo):
    found = rehearsed(verifiers, algo=algo, penalties=())
    assert found.responses == len(found.batch) == 16 and found.max_tokens == 96
    assert set(found.seconds) == {"generate", "verify", "logprobs", "reference", "gradient", "sync"}
    assert found.grad_norm > 0 and math.isfinite(found.grad_norm)
    gap = (found.logprobs - found.batch.sampler_logprobs)[found.batch.mask].abs().max()
    assert found.batch.mask.sum() == sum(len(r.tokens) for g in found.scored.groups for r in g.rollouts) and gap < 1e-4


def test_a_small_budget_cuts_responses_and_groups(verifiers, monkeypatch):
    monkeypatch.setattr(rehearsal, "BUDGET", 1e-9)
    monkeypatch.setattr(affordable, "__defaults__", (1e-9,))
    found = rehearsed(verifiers)
    assert found.max_tokens == 1 and found.responses == 16 and len(found.batch) == 4
    assert all(r.truncated for g in found.scored.groups for r in g.rollouts)


def test_gradients():
    assert not bad(gradient_findings(0.5, uniform=False)) and not bad(gradient_findings(0.0, uniform=True))
    assert "though rewards differ" in one(gradient_findings(0.0, uniform=False), "warning").found
    for norm in (math.nan, math.inf):
        assert one(gradient_findings(norm, uniform=False), "fault")
