"""The sync of changed weights: clean, lost, of a tensor left out; and the weights are as before, bit for bit."""

import copy

import pytest
import torch
from conftest import END, OTHER_END, make_policy
from made_up import bad
from transformers import Qwen2ForCausalLM

from grpo.diagnosis.weight_sync import changed, sync_findings
from grpo.engines.hf_engine import HFEngine
from grpo.engines.sync import SyncProbe
from grpo.model.lora import LoraSettings, add_adapter
from grpo.model.lora_policy import LoraPolicy

PROBE = SyncProbe(range(3, 250), max_tokens=64, temperature=1.0, tolerance=1e-4)


class CopyingEngine(HFEngine):
    """The real engine on a model of its own, as vLLM has one: what reaches it at a sync can be tampered with."""

    def __init__(self, policy, tokenizer, *, lost=(), left_out=()):
        own = copy.deepcopy(policy)
        super().__init__(own, tokenizer, end_ids=[END, OTHER_END])
        self.lost, self.left_out, self.syncs = lost, left_out, 0

    def sync(self, policy):
        self.syncs += 1
        if self.syncs not in self.lost:
            new = {name: value for name, value in policy.weights() if name not in self.left_out}
            self.policy.model.load_state_dict(new, strict=False)


@pytest.fixture
def policy(tied_folder):
    return make_policy(tied_folder)


def levels(engine, policy):
    before = {name: value.clone() for name, value in policy.weights()}
    findings = list(sync_findings(engine, policy, PROBE))
    assert all(torch.equal(value, before[name]) for name, value in policy.weights())
    return [finding.level for finding in findings]


def test_clean_syncs_and_the_weights_are_put_back(policy, tokenizer):
    assert levels(CopyingEngine(policy, tokenizer), policy) == ["ok"] * 3
    assert levels(HFEngine(policy, tokenizer, end_ids=[END]), policy) == ["ok"] * 3


@pytest.mark.parametrize("lost,expected", [([2], ["ok", "fault", "ok"]), ([3], ["ok", "ok", "fault"])])
def test_a_lost_sync_is_a_fault(policy, tokenizer, lost, expected):
    assert levels(CopyingEngine(policy, tokenizer, lost=lost), policy) == expected


@pytest.mark.parametrize("name", ["model.layers.1.self_attn.q_proj.bias", "model.norm.weight"])
def test_one_tensor_that_does_not_arrive_is_a_fault(policy, tokenizer, name):
    """No sync of the unchanged weights would show it."""
    assert levels(CopyingEngine(policy, tokenizer, left_out=[name]), policy) == ["ok", "fault", "ok"]


@pytest.mark.parametrize("lost,expected", [((), ["ok"] * 3), ([2], ["ok", "fault", "ok"])])
def test_of_a_lora_policy_the_adapter_is_changed(tied_folder, tokenizer, lost, expected):
    """The engine's own model has none: it gets the merged weights."""
    model = Qwen2ForCausalLM.from_pretrained(tied_folder, dtype=torch.float32)
    add_adapter(model, LoraSettings(4, 8.0), base=str(tied_folder), dtype=torch.float32, seed=0)
    policy = LoraPolicy(model, temperature=1.0, micro_batch_tokens=4096)
    engine = CopyingEngine(policy, tokenizer, lost=lost)
    engine.policy = make_policy(tied_folder)
    assert levels(engine, policy) == expected
    base = {name: value.clone() for name, value in model.state_dict().items() if ".lora_" not in name}
    with changed(policy):
        assert all(torch.equal(value, base[name]) for name, value in model.state_dict().items() if name in base)


def test_an_engine_with_other_weights_from_the_start(policy, tokenizer):
    engine = CopyingEngine(policy, tokenizer, lost=[1, 2, 3])
    with torch.no_grad():
        engine.policy.model.model.norm.weight.mul_(1.1)
    findings = list(sync_findings(engine, policy, PROBE))
    assert [level for level, _ in bad(findings)] == ["fault"] * 3


def test_every_tensor_is_changed_and_put_back_after_an_interruption(policy):
    before = {name: value.clone() for name, value in policy.model.named_parameters()}
    with pytest.raises(KeyboardInterrupt), changed(policy):
        for name, value in policy.model.named_parameters():
            assert not torch.equal(value, before[name]), name  # the biases of this model, all 0, too
        raise KeyboardInterrupt
    assert all(torch.equal(value, before[name]) for name, value in policy.model.named_parameters())
