"""Accuracy and length on held-out problems."""

from __future__ import annotations

from collections.abc import Sequence

from grpo.engine import Engine
from grpo.metrics import Metrics, correct, lengths, truncated
from grpo.records import Problem
from grpo.verifiers import Verifiers


def evaluate(
    engine: Engine,
    verifiers: Verifiers,
    problems: Sequence[Problem],
    *,
    temperature: float,
    max_tokens: int,
    seed: int,
) -> Metrics:
    """One response for each held-out problem; a truncated response counts as wrong."""
    groups = engine.generate(
        problems, 1, temperature=temperature, max_tokens=max_tokens, seed=seed, on_response=verifiers.submit
    )
    cut = truncated(groups)
    return {
        "eval/accuracy": (correct(verifiers(groups)) & ~cut).float().mean().item(),
        "eval/length": lengths(groups).mean().item(),
        "eval/truncated": cut.float().mean().item(),
    }
