"""What verification costs a step of the embedded default, and math_answer's speed against plain math-verify's.

    python scripts/bench_verifiers.py                   about three minutes on two cores
    python scripts/bench_verifiers.py --rounds 0        the speed alone

The real generate phase with vLLM from the same weights and seeds under three loads, whose order rotates from round to
round: no verification; math_answer, submitted while responses are generated and then waited for; and the same with a
verifier beside it that parses and verifies every response with math-verify. An update follows each round, so that the
policy learns as in a run, and tells how long a step is.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import tyro

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Options:
    """Measure what verification costs."""

    rounds: int = 20
    """Rounds of generate phases, one under each load; 0: the speed alone."""
    warm_up: int = 3
    """Rounds before these that are not counted."""
    labelled: Path = ROOT / "tests" / "rewards" / "math_labelled.jsonl"
    """Labelled responses for the speed in one process."""


def prepare() -> None:
    """Called in each worker, before any limit applies."""
    import math_verify  # noqa: F401


def math_verify_reward(response: str, answer: str) -> float:
    """Plain math-verify: parse both, compare. Its own time limits are off, as the pool has one."""
    from math_verify import parse, verify

    gold, found = (parse(text, parsing_timeout=None) for text in (f"${answer}$", response))
    return float(verify(gold, found, timeout_seconds=None))


LOADS = {
    "none": (),
    "math_answer": ("math_answer",),
    "math-verify on every response": ("math_answer", f"{__file__}:math_verify_reward"),
}
"""Name -> verifiers that run while responses are generated."""


def overlap(options: Options, folder: Path) -> list[str]:
    """Lines on what verification adds to a step."""
    import transformers

    from grpo.card import settled
    from grpo.resolve import parse
    from grpo.setup import make_parts
    from grpo.verifiers.verify import Verifiers

    transformers.utils.logging.disable_progress_bar()
    config, _ = settled(parse(["--engine", "vllm", "--runs-dir", str(folder), "--wandb", "off"]))
    with make_parts(config) as parts, ExitStack() as stack:
        pools = {name: stack.enter_context(Verifiers(specs)) if specs else None for name, specs in LOADS.items()}
        measured = [
            one_round(config, parts, pools, number) for number in range(1, options.warm_up + options.rounds + 1)
        ]
    measured = measured[options.warm_up :]
    step = statistics.median(seconds["none"] + rest for seconds, rest in measured)
    lines = [f"a step without verification      {1000 * step:8.1f} ms"]
    for name in LOADS:
        phases = [seconds[name] for seconds, _ in measured]
        added = [seconds[name] - seconds["none"] for seconds, _ in measured]
        lines.append(
            f"{name:32s} {spread(phases)}  adds {statistics.median(added) / step:+.2%} of a step by rounds, "
            f"{(statistics.median(phases) - statistics.median(s['none'] for s, _ in measured)) / step:+.2%} by medians"
        )
    return lines


def one_round(config, parts, pools, step: int) -> tuple[dict[str, float], float]:
    """Seconds of generating and verifying under each load, and of the rest of the step."""
    from grpo.algorithm.credit import credit
    from grpo.algorithm.objective import Objective
    from grpo.model.batching import collate, optimizer_batches
    from grpo.problems.draw import draw
    from grpo.train import step_seed

    problems = draw(parts.problems, config.problems_per_step, step, config.seed)
    seconds: dict[str, float] = {}
    names = list(pools)
    for name in names[step % len(names) :] + names[: step % len(names)]:
        parts.engine.sync(parts.policy)  # as before every step: the prefix cache is empty
        started = time.perf_counter()
        groups = parts.engine.generate(
            problems,
            config.responses_per_problem,
            temperature=config.temperature,
            max_tokens=config.max_response_tokens,
            seed=step_seed(config, step),
            on_response=pools[name].submit if pools[name] else None,
        )
        if pools[name]:
            rewards = pools[name](groups)
        seconds[name] = time.perf_counter() - started
    started = time.perf_counter()
    batch = collate(groups)
    credited = credit(batch, rewards.by_verifier["math_answer"], parts.advantage, config.row)
    batch = replace(batch, ref_logprobs=parts.reference.logprobs(batch), advantages=credited.of_tokens)
    aggregate = partial(parts.aggregation, constant=config.loss_constant)
    for optimizer_batch in optimizer_batches(batch, 1, 1, aggregate, step_seed(config, step)):
        parts.policy.update(optimizer_batch, Objective(config.row))
    parts.engine.sync(parts.policy)
    return seconds, time.perf_counter() - started


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
    if options.rounds:
        with tempfile.TemporaryDirectory() as folder:
            print(*overlap(options, Path(folder)), sep="\n")


if __name__ == "__main__":
    main()
