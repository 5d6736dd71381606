"""The sync of changed weights: does a change reach the engine, and is it gone when the weights are put back?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from grpo.diagnosis.findings import Finding, fault, ok
from grpo.engines.protocol import Engine
from grpo.engines.sync import SyncProbe
from grpo.model.policy import Policy

CHECK = "sync"
NOISE = 0.05
"""Size of the change, as a share of the root mean square of each tensor: much more than a step changes."""
ZEROS = 0.2
"""What stands for the root mean square where all numbers are 0, as biases may be and half of a new LoRA adapter is."""


@contextmanager
def changed(policy: Policy, noise: float = NOISE) -> Iterator[None]:
    """Every parameter that is trained a little off within it, and afterwards as before, bit for bit."""
    trained = [parameter for parameter in policy.model.parameters() if parameter.requires_grad]
    before = [parameter.detach().clone() for parameter in trained]
    generator = torch.Generator(policy.device).manual_seed(0)
    try:
        with torch.no_grad():
            for parameter in trained:
                drawn = torch.randn(parameter.shape, generator=generator, device=policy.device)
                size = parameter.square().mean().sqrt().item() or ZEROS
                parameter.add_(drawn, alpha=noise * size)
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(trained, before, strict=True):
                parameter.copy_(value)


def sync_findings(engine: Engine, policy: Policy, probe: SyncProbe) -> Iterator[Finding]:
    """Three syncs: of the weights as they are, of changed ones, of the first again. The policy is left as it was."""
    engine.sync(policy)
    yield _finding("the model's own weights", probe.gap(engine, policy), probe)
    with changed(policy):
        engine.sync(policy)
        yield _finding(f"weights that were all changed by {NOISE:.0%}", probe.gap(engine, policy), probe)
    engine.sync(policy)
    yield _finding("the weights put back", probe.gap(engine, policy), probe)


def _finding(what: str, gap: float, probe: SyncProbe) -> Finding:
    found = f"after a sync of {what} engine and trainer differ by {gap:.2g} nats; tolerance {probe.tolerance:g}"
    if gap <= probe.tolerance:
        return ok(CHECK, found)
    return fault(
        CHECK,
        found,
        "A run would stop here. Use --engine hf, which needs no sync; if the difference is only rounding, raise "
        "--sync-tolerance.",
    )
