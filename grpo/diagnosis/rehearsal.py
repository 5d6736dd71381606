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
from grpo.model.lora_policy import WithoutAdapter
from grpo.model.policy import Policy, Reference
from grpo.problems.draw import draw
from grpo.records import Batch, Problem, Rewards
from grpo.verifiers.verify import Verifiers

CHECK = "gradient"
RESPONSES, PROBLEMS = 64, 8
"""Of the rehearsal, at most."""
BUDGET = 10.0
"""Seconds that generation may take, and the gradient: where it would be more, responses are cut, or groups left out."""
FEW_TOKENS = 8
GRADIENT_OF_FORWARD = 4
"""Seconds of a gradient in those of a forward pass, about."""


@dataclass(frozen=True)
class Rehearsal:
    """What came of it."""

    scored: Scored
    """Groups, rewards, and what the row makes of them."""
    responses: int
    """How many were generated."""
    batch: Batch
    """The groups, or as many of them as the budget allows; its mask is every response token."""
    logprobs: Tensor
    """[B, T] of the trainer."""
    max_tokens: int
    """Where responses were cut: --max-response-tokens, or less where these would take too long."""
    grad_norm: float
    seconds: dict[str, float]
    """generate, verify, logprobs, reference, gradient, sync: of all its responses, however many were learnt from."""


def size(problems: int, group_size: int) -> tuple[int, int]:
    """Problems and responses to each of them that are rehearsed, of those of a step."""
    responses = min(group_size, RESPONSES)
    return max(1, min(problems, PROBLEMS, RESPONSES // responses)), responses


def affordable(limit: int, first: float, few: float, budget: float = BUDGET) -> int:
    """Tokens a response that fit the budget, where 1 takes `first` seconds and FEW_TOKENS take `few`; <= limit."""
    each = max(few - first, few / FEW_TOKENS / 4) / (FEW_TOKENS - 1)  # clocks are not exact
    return max(1, min(limit, 1 + int((budget - first) / each)))


def rehearse(
    config: Config,
    problems: Sequence[Problem],
    *,
    engine: Engine,
    policy: Policy,
    reference: Reference | WithoutAdapter | None,
    verifiers: Verifiers,
    probe: SyncProbe,
) -> Rehearsal:
    """Rehearse step 1 on the first of its problems. The weights stay, and no gradient is left behind."""
    count, group_size = size(config.problems_per_step, config.responses_per_problem)
    asked = draw(problems, config.problems_per_step, 1, config.seed)[:count]
    row, watch = config.row, Stopwatch()
    max_tokens = _max_tokens(config, engine, asked, group_size)
    with watch("generate"):
        groups = _generate(config, engine, asked, group_size, max_tokens, on_response=verifiers.submit)
    with watch("verify"):
        rewards = verifiers(groups)
    scored = score(groups, rewards, row)

    started = time.perf_counter()
    policy.logprobs(collate(groups[:1]))
    used = max(1, min(count, int(BUDGET / GRADIENT_OF_FORWARD / (time.perf_counter() - started))))
    batch = collate(groups[:used])
    with watch("logprobs"):
        logprobs = policy.logprobs(batch)
    with watch("reference"):
        ref_logprobs = None if reference is None else reference.logprobs(batch)
    part = Scored(groups[:used], _first(rewards, used), scored.total[:used], scored.informative[:used])
    learnt = _credited(config, part, logprobs, ref_logprobs)
    with watch("gradient"):
        grad_norm = _gradient(policy, learnt, Objective(row, load_loss_term(config.loss_term)))
    with watch("sync"):
        engine.sync(policy)
        probe.gap(engine, policy)
    scale = {f"time/{stage}": len(groups) / used for stage in ("logprobs", "reference", "gradient")}
    seconds = {name.removeprefix("time/"): value * scale.get(name, 1) for name, value in watch.seconds.items()}
    return Rehearsal(scored, count * group_size, batch, logprobs, max_tokens, grad_norm, seconds)


def _generate(config: Config, engine: Engine, asked: Sequence[Problem], group_size: int, tokens: int, **options):
    settings = dict(temperature=config.temperature, max_tokens=tokens, seed=config.seed)
    return engine.generate(asked, group_size, **settings, **options)


def _max_tokens(config: Config, engine: Engine, asked: Sequence[Problem], group_size: int) -> int:
    """The limit of a response that the budget allows, from the seconds that a few tokens take."""
    if config.max_response_tokens <= FEW_TOKENS:
        return config.max_response_tokens
    seconds = []
    for tokens in (1, 1, FEW_TOKENS):  # the first call compiles
        started = time.perf_counter()
        _generate(config, engine, asked, group_size, tokens)
        seconds.append(time.perf_counter() - started)
    return affordable(config.max_response_tokens, *seconds[1:])


def _credited(config: Config, part: Scored, logprobs: Tensor, ref_logprobs: Tensor | None) -> Batch:
    """The batch of one update, as the loop makes it."""
    row, groups = config.row, part.groups
    batch = collate(groups, mask_truncated=row.truncated == "mask", dropped=dropped(part.informative, row))
    batch = replace(batch, old_logprobs=logprobs, ref_logprobs=ref_logprobs)
    credited = credit(batch, groups, part.total, load_advantage(config.advantage), row, part.rewards.by_verifier)
    aggregate = load_aggregation(config.aggregation, config.loss_constant)
    (whole,) = optimizer_batches(replace(batch, advantages=credited.of_tokens), 1, 1, aggregate, config.seed)
    return whole


def _first(rewards: Rewards, count: int) -> Rewards:
    """Those of the first groups."""
    by_verifier = {name: part[:count] for name, part in rewards.by_verifier.items()}
    return replace(rewards, total=rewards.total[:count], by_verifier=by_verifier)


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
