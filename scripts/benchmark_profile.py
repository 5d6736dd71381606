"""Where a step of this project goes: seconds by part, in a tree; then what costs most in Python.

The tree is measured by clocks around functions, which cost nothing to speak of. cProfile, which slows Python down, runs
in a step of its own, the last one.
"""

from __future__ import annotations

import cProfile
import io
import pstats
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from typing import Any

TOP = 30


def places(engine: str) -> list[tuple[str, Any, str]]:
    """(part, owner, name of its function). A part `a/b` is shown below `a`, and is called within it or nowhere."""
    import torch

    import grpo.train as train
    from grpo.engines.revival import Revival
    from grpo.engines.sync import SyncProbe
    from grpo.logs.logger import Logger
    from grpo.model import learner, policy
    from grpo.verifiers.verify import Verifiers

    sampler = _vllm() if engine == "vllm" else []
    return [
        ("draw the problems", train, "draw_problems"),
        ("generate", Revival, "generate"),
        *sampler,
        ("generate/hand on to verifiers", Verifiers, "submit"),
        ("wait for verifiers", Verifiers, "__call__"),
        ("score and select", train, "score"),
        ("collate", train, "collate"),
        ("reference", policy.Reference, "logprobs"),
        ("credit", train, "credit"),
        ("update", policy.Policy, "update"),
        ("update/forward", policy.Policy, "outputs"),
        ("update/backward", torch.Tensor, "backward"),
        ("update/numbers", learner, "_numbers"),
        ("update/clip", torch.nn.utils, "clip_grad_norm_"),
        ("update/AdamW", torch.optim.AdamW, "step"),
        ("metrics", train, "step_metrics"),
        ("sync", Revival, "sync"),
        ("prove the sync", SyncProbe, "check"),
        ("prove the sync/score", SyncProbe, "scores"),
        ("prove the sync/sample", SyncProbe, "sampled"),
        ("log", Logger, "log"),
    ]


def _vllm() -> list[tuple[str, Any, str]]:
    from vllm.v1.engine.llm_engine import LLMEngine

    from grpo.engines.vllm_engine import VLLMEngine

    return [
        ("generate/add requests", LLMEngine, "add_request"),
        ("generate/engine steps", LLMEngine, "step"),
        ("generate/make rollouts", VLLMEngine, "_rollout"),
    ]


class Clocks:
    """Seconds and calls of each part, in the steps that are measured. A part within another one is named below it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self.running: list[str] = []
        """Parts at the top that have begun and not ended."""

    def clear(self) -> None:
        self.seconds.clear()
        self.calls.clear()

    def around(self, part: str, function: Callable) -> Callable:
        """The function, with its time added to the part; only within the part above it, where there is one."""
        above, _, below = part.partition("/")

        @wraps(function)
        def timed(*arguments, **settings):
            if bool(below) != bool(self.running) or (below and self.running[0] != above):
                return function(*arguments, **settings)
            if not below:
                self.running.append(part)
            start = time.perf_counter()
            try:
                return function(*arguments, **settings)
            finally:
                self.seconds[part] += time.perf_counter() - start
                self.calls[part] += 1
                if not below:
                    self.running.pop()

        return timed

    def table(self, order: list[str], step_seconds: float, steps: int) -> str:
        """Markdown: each part's seconds a step, share of the step and calls a step; and what is in none of them."""
        lines = ["| part | seconds a step | share | calls a step |", "|---|---|---|---|"]
        top = sum(seconds for part, seconds in self.seconds.items() if "/" not in part) / steps
        for part in order:
            if part in self.seconds:
                seconds, calls, name = self.seconds[part] / steps, self.calls[part] / steps, part.replace("/", ": ")
                lines.append(f"| {name} | {seconds:.4f} | {seconds / step_seconds:.1%} | {calls:g} |")
        rest = step_seconds - top
        return "\n".join([*lines, f"| the rest | {rest:.4f} | {rest / step_seconds:.1%} | |"])


def profiled(train, engine: str, after: int, steps: int) -> Callable[[], str]:
    """Put the clocks in. `after` that many steps they begin, and in step `steps`, the last one, cProfile runs.

    Returns what gives the report when the run is done.
    """
    clocks, profile = Clocks(), cProfile.Profile()
    order = []
    for part, owner, name in places(engine):
        order.append(part)
        setattr(owner, name, clocks.around(part, getattr(owner, name)))
    begun: list[float] = []
    stopwatch = train.Stopwatch
    kept: dict[str, Clocks] = {}

    def begin(*arguments):
        begun.append(time.perf_counter())
        if len(begun) == after + 1:
            clocks.clear()
        if len(begun) == steps:
            kept["table"] = clocks.table(order, (begun[-1] - begun[after]) / (steps - 1 - after), steps - 1 - after)
            profile.enable()
        return stopwatch(*arguments)

    loop = train.train

    def end_with_loop(config, parts) -> None:
        loop(config, parts)
        profile.disable()

    train.Stopwatch, train.train = begin, end_with_loop

    def report() -> str:
        text = io.StringIO()
        pstats.Stats(profile, stream=text).strip_dirs().sort_stats("tottime").print_stats(TOP)
        return f"{kept['table']}\n\n```\n{text.getvalue().strip()}\n```\n"

    return report
