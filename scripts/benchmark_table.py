"""Results of benchmark.py -> Markdown: medians, ratios with their spread, and how a step of each side divides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

Result = Mapping[str, Any]
"""The JSON line of a child: see benchmark_ours.py."""
Alternation = Mapping[str, Result]
"""Side -> its result; a side that was disturbed is left out."""

OURS = "ours"
NAMES = {OURS: "this project", "trl-vllm": "TRL, vLLM", "trl-generate": "TRL, transformers' generate"}
GAP = {"float32": 1e-4, "bfloat16": 0.2}
"""Mean nats a token by which sampler and trainer may differ, by precision (as grpo.engines.sync.TOLERANCE)."""
COLUMNS = ("seconds a step", "times ours", "tokens a second", "start-up, s", "memory, GiB", "runs")
STAGES = ("generate", "verify", "update", "sync")


def ratios(alternations: Sequence[Alternation], side: str, key: str) -> list[float]:
    """The side's value over ours, in each alternation that has both."""
    return [one[side][key] / one[OURS][key] for one in alternations if side in one and OURS in one]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """`1.50 (1.20 to 1.90)`: median, lowest and highest; of one value itself."""
    if not values:
        return "-"
    middle = f"{median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def of_side(alternations: Sequence[Alternation], side: str, key: str) -> list[float]:
    """The side's values, one an alternation."""
    return [one[side][key] for one in alternations if side in one]


def middle(values: Sequence[float], text: str) -> str:
    """The median as `text` has it."""
    return text.format(median(values)) if values else "disturbed"


def comparison(by_shape: Mapping[str, Sequence[Alternation]], sides: Sequence[str]) -> str:
    """A row for each shape and side: medians over the alternations, and how many times as long as ours a step takes."""
    lines = [
        f"| shape | side | {' | '.join(COLUMNS)} |",
        "|---|---|" + "---|" * len(COLUMNS),
    ]
    for shape, alternations in by_shape.items():
        for side in sides:
            cells = [
                middle(of_side(alternations, side, "step_seconds"), "{:.2f}"),
                "1" if side == OURS else spread(ratios(alternations, side, "step_seconds")),
                middle(of_side(alternations, side, "tokens_per_second"), "{:,.0f}"),
                middle(of_side(alternations, side, "start_seconds"), "{:.1f}"),
                memory(alternations, side),
                str(len(of_side(alternations, side, "step_seconds"))),
            ]
            lines.append(f"| {shape} | {NAMES[side]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def memory(alternations: Sequence[Alternation], side: str) -> str:
    """Median peak of the trainer's process, and of its helpers where it has some."""
    helpers = of_side(alternations, side, "helpers_gib")
    own = middle(of_side(alternations, side, "memory_gib"), "{:.2f}")
    return f"{own} + {median(helpers):.2f}" if any(helpers) else own


def division(by_shape: Mapping[str, Sequence[Alternation]], sides: Sequence[str]) -> str:
    """A row for each shape and side: median seconds a step of each stage, and the rest of the step."""
    lines = [f"| shape | side | {' | '.join(STAGES)} | rest |", "|---|---|" + "---|" * (len(STAGES) + 1)]
    for shape, alternations in by_shape.items():
        for side in sides:
            runs = [one[side] for one in alternations if side in one]
            cells = [middle([run["stages"][stage] for run in runs], "{:.3f}") for stage in STAGES]
            rest = [run["step_seconds"] - sum(run["stages"].values()) for run in runs]
            lines.append(f"| {shape} | {NAMES[side]} | {' | '.join(cells)} | {middle(rest, '{:.3f}')} |")
    return "\n".join(lines)


def faults(result: Result, expected: Mapping[str, Any]) -> list[str]:
    """What a side did otherwise than it was asked to: it would not be the same work."""
    found = [
        f"{name} is {result['work'].get(name)}, not {value}"
        for name, value in expected.items()
        if result["work"].get(name) != value
    ]
    if not result["work"]["weights_moved"]:
        found.append("the weights have not moved")
    if result["work"]["uniform_groups"] > 0.5:
        found.append("most groups have equal rewards")
    if not result["work"]["engine_gap"] <= GAP[result["precision"]]:
        found.append(f"the sampler is {result['work']['engine_gap']:.2g} nats a token from the policy: no sync?")
    return found
