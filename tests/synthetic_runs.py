"""Run folders whose numbers are known: what the tests of python -m grpo.compare read."""

import json
from pathlib import Path

from grpo.comparison.groups import RunGroup
from grpo.comparison.runs import Run, read_run

CONFIG = {
    "model": "m/tiny", "data": "arithmetic", "algo": "grpo", "advantage": "group_normalized",
    "aggregation": "sequence_mean", "kl_coef": 0.04, "max_response_tokens": 96, "loss_constant": 96.0,
    "learning_rate": 2e-4, "steps": 10, "name": "x", "seed": 0, "runs_dir": "runs",
    "versions": {"vllm": "0.32.0"}, "commit": "c0ffee",
}  # fmt: skip


def row(step: int, reward: float, correct: tuple[float, int], incorrect: tuple[float, int], **more) -> dict:
    """A step with (mean length, responses) of correct and incorrect responses; keys of `more` have __ for /."""
    (length, count), (other_length, other_count) = correct, incorrect
    tokens = length * count + other_length * other_count
    return {
        "step": step,
        "reward/mean": reward,
        "length/mean": tokens / (count + other_count),
        "length/correct": length if count else None,
        "length/incorrect": other_length if other_count else None,
        "length/truncated": 0.0,
        "tokens": float(tokens),
        "time/step": 2.0,
    } | {key.replace("__", "/"): value for key, value in more.items()}


def write_run(folder: Path, rows: list[dict], config: dict | None = None, end: str = "") -> Path:
    """metrics.jsonl, with `end` after its last line, and config.json: CONFIG with some values changed."""
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows) + end)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(CONFIG | config))
    return folder


def make_run(folder: Path, rows: list[dict], config: dict | None = None) -> Run:
    return read_run(write_run(folder, rows, config))


def group(label: str, *runs: Run) -> RunGroup:
    return RunGroup(label, runs, {})


def ramp(start: float, steps: int = 10, growth: float = 1.0) -> list[dict]:
    """An evaluation, then steps with 3 correct responses of 10 tokens and 1 incorrect one, longer every step."""
    rows = [{"step": 0, "eval/accuracy": 0.5, "eval/length": 10.0}]
    return rows + [
        row(
            step,
            step / 10,
            (10.0, 3),
            (start + growth * step, 1),
            **({"eval__accuracy": 0.5 + step / 25} if step % 5 == 0 else {}),
        )
        for step in range(1, steps + 1)
    ]
