"""A card, and a CPU that computes as a card does: so that tests of what happens on a card are run everywhere."""

import sys

import torch
from conftest import ROOT, make_policy

from grpo.engines.hf_engine import HFEngine
from grpo.model.learner import Learner

sys.path.append(str(ROOT / "scripts"))
from peak_memory import peak_on_card, peak_on_cpu


def compute_as_a_card(monkeypatch):
    """bfloat16 arithmetic over float32 weights, by the autocast of the CPU, wherever a card has it."""

    def autocast(device):
        return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)

    for place in ("grpo.model.learner.autocast", "grpo.model.policy.autocast"):
        monkeypatch.setattr(place, autocast)
    monkeypatch.setattr(HFEngine, "_autocast", lambda self: autocast(self.policy.device))
    monkeypatch.setattr(Learner, "precision", property(lambda self: torch.bfloat16))


def policy_on(device, folder, **settings):
    policy = make_policy(folder, **settings)
    policy.model.to(device)
    return policy


def same(one, two):
    """Share of the responses that are the same in two generations. On a card a near tie may fall otherwise, where its
    kernels add up in another order."""
    pairs = [
        (a.tokens, b.tokens)
        for first, second in zip(one, two, strict=True)
        for a, b in zip(first.rollouts, second.rollouts, strict=True)
    ]
    return sum(a == b for a, b in pairs) / len(pairs)


def peak(device, function):
    """Bytes that torch has given out at once while the function ran, beyond those before."""
    if device == "cpu":
        return peak_on_cpu(function)
    before = torch.cuda.memory_allocated()
    return peak_on_card(function)[0] - before
