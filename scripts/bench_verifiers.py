"""What verification costs a step of the embedded default, and math_answer's speed against plain math-verify's.

    python scripts/bench_verifiers.py                   about three minutes on two cores
    python scripts/bench_verifiers.py --pairs 0         the speed alone

The real generate phase with vLLM, twice from the same weights and seeds: once with verification submitted while
responses are generated and then waited for, once without; the order alternates from pair to pair. The load is
math_answer and a verifier that parses and verifies every response with math-verify. An update follows each pair, so
that the policy learns as in a run, and tells how long a step is.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import tyro

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Options:
    """Measure what verification costs."""

    pairs: int = 20
    """Pairs of generate phases, with and without verification."""
    warm_up: int = 3
    """Pairs before these that are not counted."""
    labelled: Path = ROOT / "tests" / "data" / "math_labelled.jsonl"
    """Labelled responses for the speed in one process."""


def prepare() -> None:
    """Called in each worker, before any limit applies."""
    import math_verify  # noqa: F401


def math_verify_reward(response: str, answer: str) -> float:
    """Plain math-verify: parse both, compare. Its own time limits are off, as the pool has one."""
    from math_verify import parse, verify

    gold, found = (parse(text, parsing_timeout=None) for text in (f"${answer}$", response))
    return float(verify(gold, found, timeout_seconds=None))


def overlap(options: Options, folder: Path) -> list[str]:
    """Lines on what verification adds to a step."""
    import transformers

    from grpo.config import parse
    from grpo.parts import make_parts

    transformers.utils.logging.disable_progress_bar()
    rewards = ["math_answer", f"{__file__}:math_verify_reward"]
    config = parse(["--reward", *rewards, "--engine", "vllm", "--runs-dir", str(folder), "--wandb", "off"])
    with make_parts(config) as parts:
        measured = [pair(config, parts, number) for number in range(1, options.warm_up + options.pairs + 1)]
    with_it, without, rest, waited = zip(*measured[options.warm_up :], strict=True)
    step = statistics.median(map(sum, zip(without, rest, strict=True)))
    added = [a - b for a, b in zip(with_it, without, strict=True)]
    return [
        f"generate, with verification      {spread(with_it)}",
        f"generate, without                {spread(without)}",
        f"of it waiting for verification   {spread(waited)}",
        f"added, pair by pair              {spread(added)}",
        f"a step without it                {1000 * step:8.1f} ms",
        f"added to a step: {statistics.median(added) / step:+.2%} by pairs, "
        f"{(statistics.median(with_it) - statistics.median(without)) / step:+.2%} by medians",
    ]


def pair(config, parts, step: int) -> tuple[float, float, float, float]:
    """Seconds of the generate phase with verification, without, of the rest of the step, and of waiting."""
    from grpo.advantages import ADVANTAGES
    from grpo.batching import collate, optimizer_batches
    from grpo.losses import AGGREGATIONS
    from grpo.problems import draw
    from grpo.train import loss, step_seed

    problems = draw(parts.problems, config.problems_per_step, step, config.seed)
    seconds, waited, synced = {}, 0.0, 0.0
    for verified in (True, False) if step % 2 else (False, True):
        started = time.perf_counter()
        parts.engine.sync(parts.policy)  # as before every step: the prefix cache is empty
        generating = time.perf_counter()
        groups = parts.engine.generate(
            problems,
            config.responses_per_problem,
            temperature=config.temperature,
            max_tokens=config.max_response_tokens,
            seed=step_seed(config, step),
            on_response=parts.verifiers.submit if verified else None,
        )
        generated = time.perf_counter()
        if verified:
            rewards = parts.verifiers(groups)
            waited = time.perf_counter() - generated
        seconds[verified], synced = time.perf_counter() - generating, generating - started
    started = time.perf_counter()
    batch = collate(groups, ADVANTAGES[config.advantage](rewards.parts["math_answer"]), parts.tokenizer.pad_token_id)
    if parts.reference is not None:
        batch = replace(batch, ref_logprobs=parts.reference.logprobs(batch))
    aggregate = partial(AGGREGATIONS[config.aggregation], constant=config.loss_constant)
    for part in optimizer_batches(
        batch, config.updates_per_step, config.epochs_per_step, aggregate, step_seed(config, step)
    ):
        parts.policy.update(part, partial(loss, config=config))
    return seconds[True], seconds[False], time.perf_counter() - started + synced, waited


def spread(seconds: tuple[float, ...] | list[float]) -> str:
    """Median and quartiles in milliseconds."""
    low, middle, high = statistics.quantiles([1000 * each for each in seconds], n=4)
    return f"{middle:8.1f} ms  (quartiles {low:.1f} to {high:.1f})"


def speed(options: Options) -> list[str]:
    """Lines on calls a second in one process."""
    from grpo.plugins import load

    rows = [json.loads(line) for line in options.labelled.read_text().splitlines()]
    cases = [(row["response"], row["answer"]) for row in rows if isinstance(row["answer"], str)]
    random.Random(0).shuffle(cases)
    rates = {}
    for name, grade in {"math_answer": load("math_answer", "rewards"), "math-verify": math_verify_reward}.items():
        rates[name] = len(cases) / timed(grade, cases)
    lines = [f"{name:12s} {rate:8,.0f} calls a second" for name, rate in rates.items()]
    return [
        f"{len(cases)} labelled responses, one process:",
        *lines,
        f"ratio {rates['math_answer'] / rates['math-verify']:.1f}",
    ]


def timed(grade: Callable[[str, str], float], cases: list[tuple[str, str]]) -> float:
    """Seconds that a grader takes for all cases, its imports not counted."""
    for response in (r"\boxed{\int_0^1 x dx}", r"\boxed{x+1}"):
        grade(response, "y+2")
    started = time.perf_counter()
    for response, answer in cases:
        grade(response, answer)
    return time.perf_counter() - started


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    print(*speed(options), sep="\n", flush=True)
    if options.pairs:
        with tempfile.TemporaryDirectory() as folder:
            print(*overlap(options, Path(folder)), sep="\n")


if __name__ == "__main__":
    main()
