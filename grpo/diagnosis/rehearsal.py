"""A part of a step, as the loop does it but for the optimizer: generate, verify, credit, a gradient, sync.

P problems, G responses each, B = P * G sequences, T token positions (already shifted).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from grpo.algorithm.credit import credit
from grpo.algorithm.dynamic_sampling import Scored, dropped, score
from grpo.algorithm.ingredients import load_advantage, load_aggregation, load_loss_term
from grpo.algorithm.objective import Objective
from grpo.config import Config
from grpo.diagnosis.findings import Finding, fault, ok, warning
from grpo.engines.protocol import Engine
from grpo.engines.sync import SyncProbe
from grpo.logs.metrics import Stopwatch
from grpo.model.batching import collate, optimizer_batches
from grpo.model.policy import Policy, Reference
from grpo.problems.draw import draw
from grpo.records import Batch, Problem
from grpo.verifiers.verify import Verifiers

CHECK = "gradient"
RESPONSES, PROBLEMS = 64, 8
"""Of the rehearsal, at most."""
BUDGET = 20.0
"""Seconds that generation may take: responses are cut where it would take longer."""
WARM_UP_TOKENS = 4


@dataclass(frozen=True)
class Rehearsal:
    """What came of it."""

    scored: Scored
    """Groups, rewards, and what the row makes of them."""
    batch: Batch
    """The groups; its mask is every response token."""
    logprobs: Tensor
    """[B, T] of the trainer."""
    max_tokens: int
    """Where responses were cut: --max-response-tokens, or less where these would take too long."""
    grad_norm: float
    seconds: dict[str, float]
    """generate, verify, logprobs, reference, gradient, sync."""


def size(problems: int, group_size: int) -> tuple[int, int]:
    """Problems and responses to each of them that are rehearsed, of those of a step."""
    responses = min(group_size, RESPONSES)
    return max(1, min(problems, PROBLEMS, RESPONSES // responses)), responses


def affordable(limit: int, seconds: float, tokens: int, budget: float = BUDGET) -> int:
    """Tokens a response that fit the budget, where `tokens` took `seconds`; `limit` at most."""
    return max(1, min(limit, int(budget * tokens / seconds)))


def rehearse(
    config: Config,
    problems: Sequence[Problem],
    *,
    engine: Engine,
    policy: Policy,
    reference: Reference | None,
    verifiers: Verifiers,
    probe: SyncProbe,
    pad_id: int,
) -> Rehearsal:
    """Rehearse step 1 on the first of its problems. The weights stay, and no gradient is left behind."""
    count, group_size = size(config.problems_per_step, config.responses_per_problem)
    asked = draw(problems, config.problems_per_step, 1, config.seed)[:count]
    row, watch = config.row, Stopwatch()

    def generate(tokens: int, **options):
        settings = dict(temperature=config.temperature, max_tokens=tokens, seed=config.seed)
        return engine.generate(asked, group_size, **settings, **options)

    warm_up = min(WARM_UP_TOKENS, config.max_response_tokens)
    generate(warm_up)  # the first call compiles
    started = time.perf_counter()
    generate(warm_up)
    max_tokens = affordable(config.max_response_tokens, time.perf_counter() - started, warm_up)
    with watch("generate"):
        groups = generate(max_tokens, on_response=verifiers.submit)
    with watch("verify"):
        rewards = verifiers(groups)
    scored = score(groups, rewards, row)
    batch = collate(groups, pad_id)
    with watch("logprobs"):
        logprobs = policy.logprobs(batch)
    with watch("reference"):
        ref_logprobs = None if reference is None else reference.logprobs(batch)
    learnt = collate(groups, pad_id, mask_truncated=row.truncated == "mask", dropped=dropped(scored.informative, row))
    learnt = replace(learnt, old_logprobs=logprobs, ref_logprobs=ref_logprobs)
    credited = credit(learnt, groups, scored.total, load_advantage(config.advantage), row, rewards.by_verifier)
    learnt = replace(learnt, advantages=credited.of_tokens)
    aggregate = load_aggregation(config.aggregation, config.loss_constant)
    (whole,) = optimizer_batches(learnt, 1, 1, aggregate, config.seed)
    with watch("gradient"):
        grad_norm = _gradient(policy, whole, Objective(row, load_loss_term(config.loss_term)))
    with watch("sync"):
        engine.sync(policy)
        probe.gap(engine, policy)
    seconds = {name.removeprefix("time/"): value for name, value in watch.seconds.items()}
    return Rehearsal(scored, batch, logprobs, max_tokens, grad_norm, seconds)


def _gradient(policy: Policy, batch: Batch, objective: Objective) -> float:
    """The norm of the batch's gradient, which is then dropped: no weight has changed."""
    try:
        policy.backward(batch, objective)
        grads = [parameter.grad for parameter in policy.model.parameters() if parameter.grad is not None]
        return torch.nn.utils.get_total_norm(grads).item()
    finally:
        policy.optimizer.zero_grad(set_to_none=True)


def gradient_findings(grad_norm: float, *, uniform: bool) -> Iterator[Finding]:
    """`uniform`: no group has rewards that differ, and so there is nothing that a gradient could come from."""
    found = f"the rehearsal's gradient has norm {grad_norm:.3g}"
    if not 0 <= grad_norm < float("inf"):
        yield fault(
            CHECK,
            found,
            "A run stops at this. Look at --loss-term and --advantage if they are your own, else at --model.",
        )
    elif grad_norm == 0 and not uniform:
        yield warning(
            CHECK,
            f"{found}, though rewards differ within groups",
            "Every response that counts may be left out of the loss: see --truncated and --importance.",
        )
    else:
        yield ok(CHECK, f"{found}{', as no group has rewards that differ' if uniform and not grad_norm else ''}")
