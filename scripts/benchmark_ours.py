"""The side of this project in benchmark.py: a short run of grpo.train on a shape's work. Prints one JSON line.

    python scripts/benchmark_ours.py FOLDER S1 '{"correction": true}'       FOLDER: of benchmark_shapes.py

Nothing of the trainer is changed but two things: responses do not end before their length, and clocks are read. The
line has `step_seconds`, `stages`, `tokens_per_second`, `start_seconds` (until the first update is done, from
$BENCHMARK_BEGUN), `memory_gib` and `helpers_gib` (peaks of this process, and of its children together), and `work`,
what was really done.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import benchmark_shapes as work_of
from benchmark_shapes import BEGUN, BETAS, CLIP, KL_WEIGHT, KV_CACHE_GIB, PROMPT_TOKENS, SHAPES, WARM_UP, Shape
from benchmark_table import STAGES

NO_TOKEN = 2**30


def flags(shape: Shape, folder: Path, steps: int, *, correction: bool, engine: str) -> list[str]:
    """Of grpo.train: GRPO with its KL, one update a step, and nothing evaluated, saved or sent."""
    given = {
        "model": folder / "model", "data": folder / "problems.jsonl", "template": "plain",
        "reward": f"{Path(__file__).with_name('benchmark_shapes.py')}:reward",
        "algo": "grpo", "kl-coef": KL_WEIGHT, "clip-low": CLIP, "clip-high": CLIP,
        "truncated": "keep",  # every response is cut at its length, and must keep its reward
        "problems-per-step": shape.problems, "responses-per-problem": shape.responses,
        "updates-per-step": 1, "epochs-per-step": 1, "steps": steps, "temperature": 1.0,
        "max-prompt-tokens": PROMPT_TOKENS, "max-response-tokens": shape.tokens,
        "learning-rate": work_of.LEARNING_RATE, "adam-beta1": BETAS[0], "adam-beta2": BETAS[1], "weight-decay": 0.0,
        "max-grad-norm": work_of.MAX_GRAD_NORM, "micro-batch-tokens": work_of.MICRO_BATCH_POSITIONS,
        "gradient-checkpointing": False, "kv-cache-gib": KV_CACHE_GIB, "engine": engine,
        "eval-problems": 0, "save-every": 0, "log-samples": 0, "wandb": "off",
        "runs-dir": folder, "name": "ours",
    }  # fmt: skip
    if not correction:
        given["importance"] = "none"
    return [text for name, value in given.items() for text in (f"--{name}", str(value))]


class Seen:
    """What the run did, and when."""

    def __init__(self) -> None:
        self.begun: list[float] = []
        """When each step began; at last when the loop ended."""
        self.first_update: float | None = None
        self.updates = 0
        self.responses, self.prompt_tokens, self.response_tokens = set(), set(), set()
        self.start: Any = None
        self.moved = False


def observe(train, seen: Seen) -> None:
    """Let the loop of the module `train` (grpo.train) leave its marks in `seen`."""
    from grpo.model.policy import Policy

    class Watch(train.Stopwatch):
        def __init__(self, *arguments) -> None:
            seen.begun.append(time.perf_counter())
            super().__init__(*arguments)

    def loop(config, parts) -> None:
        seen.start = parts.policy.model.base_model.norm.weight.detach().clone()
        train_loop(config, parts)
        seen.begun.append(time.perf_counter())
        seen.moved = bool((parts.policy.model.base_model.norm.weight != seen.start).any())

    def update(policy, *arguments):
        measured = policy_update(policy, *arguments)
        seen.updates += 1
        seen.first_update = seen.first_update or time.time()
        return measured

    def collate(groups, *arguments, **settings):
        rollouts = [rollout for group in groups for rollout in group.rollouts]
        seen.responses.add(len(rollouts))
        seen.prompt_tokens |= {len(group.problem.prompt_tokens) for group in groups}
        seen.response_tokens |= {len(rollout.tokens) for rollout in rollouts}
        return collate_groups(groups, *arguments, **settings)

    train_loop, policy_update, collate_groups = train.train, Policy.update, train.collate
    train.Stopwatch, train.train, train.collate, Policy.update = Watch, loop, collate, update


def force_lengths(engine: str) -> None:
    """Responses end at their length and nowhere else, and nothing else of the sampling changes."""
    if engine == "hf":
        from grpo.engines import choose

        choose.end_of_sequence_ids = lambda *_: (NO_TOKEN,)
        return
    from grpo.engines import vllm_engine

    params = vllm_engine.SamplingParams
    vllm_engine.SamplingParams = lambda **given: params(**given | {"ignore_eos": True, "stop_token_ids": []})


def helpers_gib() -> float:
    """Peaks of memory of this process's children, and of theirs, added up."""
    waiting, peaks = [os.getpid()], 0
    while waiting:
        pid = waiting.pop()
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in task.read_text().split():
                waiting.append(int(child))
                status = Path(f"/proc/{child}/status").read_text()
                peaks += sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return peaks / 2**20


def result(side: str, shape: Shape, seconds: float, stages: dict[str, float], first_update: float, **more) -> dict:
    """The JSON line, of the same keys on both sides. seconds: a step."""
    import torch

    return {
        "side": side,
        "precision": "bfloat16" if torch.cuda.is_available() else "float32",
        "step_seconds": seconds,
        "stages": stages,
        "tokens_per_second": shape.sequences * shape.tokens / seconds,
        "start_seconds": first_update - float(os.environ[BEGUN]),
        "memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        **more,
    }


def main(folder: Path, name: str, options: dict) -> None:
    import grpo.train as train
    from grpo.engines.choose import choose_engine

    shape = SHAPES[name]
    engine, _ = choose_engine(options.get("engine", "auto"))
    steps = WARM_UP + (options.get("steps") or shape.steps)
    seen, helpers = Seen(), []
    observe(train, seen)
    force_lengths(engine)
    observed = train.train
    train.train = lambda config, parts: (observed(config, parts), helpers.append(helpers_gib()))  # before they end
    if options.get("profile"):
        from benchmark_profile import profiled

        steps += 1  # the last one is cProfile's
        report = profiled(train, engine, after=WARM_UP, steps=steps)
    status = train.main(flags(shape, folder, steps, correction=options.get("correction", True), engine=engine))
    if status:
        sys.exit(status)
    rows = [json.loads(line) for line in (folder / "ours" / "metrics.jsonl").read_text().splitlines()]
    measured = rows[WARM_UP:]
    seconds = (seen.begun[-1] - seen.begun[WARM_UP]) / len(measured)
    stages = {stage: sum(row[f"time/{stage}"] for row in measured) / len(measured) for stage in STAGES}
    work = {
        "steps": len(rows), "updates": seen.updates, "responses": sorted(seen.responses),
        "prompt_tokens": sorted(seen.prompt_tokens), "response_tokens": sorted(seen.response_tokens),
        "uniform_groups": sum(row["group/uniform"] for row in rows) / len(rows), "weights_moved": seen.moved,
        "engine_gap": max(row["policy/engine_gap"] for row in rows),
    }  # fmt: skip
    line = result("ours", shape, seconds, stages, seen.first_update, helpers_gib=helpers[0], work=work, sampler=engine)
    print(report() if options.get("profile") else json.dumps(line))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]) if len(sys.argv) > 3 else {})
