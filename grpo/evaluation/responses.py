"""Held-out problems -> responses, verified: what training and `python -m grpo.evaluate` generate and keep.

    >>> results = evaluate(engine, verifiers, problems, 8, temperature=1.0, max_tokens=3000, seed=0)
    >>> measure(results).accuracy                                 # measures.py
    Estimate(value=0.58, low=0.53, high=0.63)

A response that was cut at the token limit is incorrect, whatever it holds. P problems, n responses each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from grpo.engines.protocol import Engine
from grpo.evaluation.results import ProblemResult, ResponseResult
from grpo.outcomes import passes
from grpo.records import Problem, Rollout
from grpo.verifiers.verify import Verifiers


def evaluate(
    engine: Engine,
    verifiers: Verifiers,
    problems: Sequence[Problem],
    responses: int,
    *,
    temperature: float,
    max_tokens: int,
    seed: int,
    first: int = 0,
    on_response: Callable[[], None] = lambda: None,
) -> list[ProblemResult]:
    """`responses` responses for each problem, verified while others are still being generated.

    The first verifier says what is correct. `first` is the index of the first problem; `on_response` is called with
    every finished response. Raises: UserError where verifiers fail on too many responses, or a `final_answer` raises.
    """

    def finished(problem: Problem, rollout: Rollout) -> None:
        verifiers.submit(problem, rollout)
        on_response()

    groups = engine.generate(
        problems, responses, temperature=temperature, max_tokens=max_tokens, seed=seed, on_response=finished
    )
    outcomes = verifiers.outcomes(groups)
    first_verifier = next(iter(outcomes))
    results = []
    for p, group in enumerate(groups):
        verified = []
        for g, rollout in enumerate(group.rollouts):
            said = {name: row[p * responses + g] for name, row in outcomes.items()}
            verified.append(
                ResponseResult(
                    text=rollout.text,
                    correct=passes(said[first_verifier].reward, rollout.truncated, verifiers.correct_at),
                    rewards={name: outcome.reward for name, outcome in said.items()},
                    tokens=len(rollout.tokens),
                    truncated=rollout.truncated,
                    final_answer=verifiers.final_answer(rollout.text),
                    failure=said[first_verifier].failure,
                )
            )
        columns = {name: group.problem.columns.get(name) for name in ("id", "answer", "level", "subject")}
        results.append(ProblemResult(first + p, prompt=group.problem.prompt, responses=tuple(verified), **columns))
    return results
