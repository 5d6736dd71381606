"""Seconds a step and a run, from the seconds of a rehearsal: an estimate, with a lower and an upper end.

An engine that generates 256 responses at a time takes longer for them than for 64, but not four times as long: at the
lower end all that it takes together (--concurrency) costs no more than the rehearsal, at the upper end each response
costs the same. Where the rehearsal has cut responses, they end there at the lower end, and at the limit of the run at
the upper end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from grpo.config import Config
from grpo.diagnosis.findings import Finding, ok

CHECK = "cost"


def generation_seconds(seconds: float, rehearsed: int, responses: int, concurrency: int) -> tuple[float, float]:
    """Fewest and most seconds of `responses`, so many of them at a time, where `rehearsed` of them took `seconds`.

    >>> generation_seconds(2.0, 64, 512, 256)   # two rounds of 256, or eight times 64
    (4.0, 16.0)
    """
    together = max(rehearsed, min(concurrency, responses))
    return seconds * max(1.0, responses / together), seconds * max(1.0, responses / rehearsed)


def step_seconds(
    config: Config, seconds: Mapping[str, float], rehearsed: int, stretch: float = 1.0
) -> tuple[float, float]:
    """Fewest and most seconds of a step, from those of a rehearsal of `rehearsed` responses, by stage.

    stretch: how many times longer responses may become than they were in the rehearsal.
    """
    share = config.responses_per_step / rehearsed
    old = seconds["logprobs"] if config.needs_old_logprobs else 0.0
    update = share * (old + seconds["reference"] + config.epochs_per_step * seconds["gradient"])
    rest = share * seconds["verify"] + seconds["sync"]
    low, high = generation_seconds(seconds["generate"], rehearsed, config.responses_per_step, config.concurrency)
    return low + update + rest, stretch * (high * (1 + config.dynamic_sampling) + update) + rest


def evaluation_seconds(
    config: Config, seconds: Mapping[str, float], rehearsed: int, held_out: int, stretch: float = 1.0
) -> tuple[float, float]:
    """Fewest and most seconds of all of a run's evaluations of `held_out` problems."""
    if not held_out:
        return 0.0, 0.0
    times = 2 + ((config.steps - 1) // config.eval_every if config.eval_every else 0)
    responses = held_out * config.eval_responses
    verify = seconds["verify"] * responses / rehearsed
    low, high = generation_seconds(seconds["generate"], rehearsed, responses, config.concurrency)
    return times * (low + verify), times * (stretch * high + verify)


def cost_findings(
    config: Config, seconds: Mapping[str, float], rehearsed: int, held_out: int, max_tokens: int
) -> Iterator[Finding]:
    """`held_out`: problems of an evaluation; `max_tokens`: where the rehearsal cut responses."""
    stretch = config.max_response_tokens / max_tokens
    step = step_seconds(config, seconds, rehearsed, stretch)
    evaluations = evaluation_seconds(config, seconds, rehearsed, held_out, stretch)
    run = [config.steps * one + other for one, other in zip(step, evaluations, strict=True)]
    stages = ", ".join(f"{name} {value:.2g}" for name, value in seconds.items() if value >= 0.001)
    notes = [f"an estimate from {rehearsed} of its {config.responses_per_step} responses (seconds: {stages})"]
    notes.append("without the optimizer, saving, and what changes as responses grow")
    if config.dynamic_sampling:
        notes.append(f"at most with {config.dynamic_sampling} further draws a step, as --dynamic-sampling allows")
    if max_tokens < config.max_response_tokens:
        notes.append(f"at most with responses of {config.max_response_tokens} tokens, at least with {max_tokens}")
    yield ok(
        CHECK,
        f"about {span(*step)} a step, {span(*run)} for {config.steps} steps"
        f"{' and their evaluations' if held_out else ''}: {'; '.join(notes)}",
    )


def span(low: float, high: float) -> str:
    """(90, 200) -> "1.5 to 3.3 min"; one number where both ends are shown alike."""
    unit, size = ("h", 3600) if high >= 7200 else ("min", 60) if high >= 120 else ("s", 1)
    first, last = (f"{value / size:.{0 if value >= 10 * size else 1}f}" for value in (low, high))
    return f"{last} {unit}" if first == last else f"{first} to {last} {unit}"
