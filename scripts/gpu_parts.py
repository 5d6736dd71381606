"""The parts of check_gpu.py: each runs commands in processes of their own, and says what came of them."""

from __future__ import annotations

import json
import os
from pathlib import Path

from gpu_bench import ROOT, Bench, Part, failed, script, words
from gpu_report import cases, failures, metrics_table, outcomes_table
from memory_rows import Row, table

ANY_REWARD = "def reward(tokens):\n    return float(sum(tokens) % 7)\n"
"""Random weights are never correct: a reward that differs within groups all the same, so that there is a gradient."""
SECONDS_A_FILE = 420
TOLERATED = 0.10
"""Share by which a planned peak may be below the measured one."""


ELSEWHERE = ("test_gpu_command.py", "test_gpu_memory.py")
"""Tests of what other parts of the check do."""


# The parts ------------------------------------------------------------------------------------------------------------


def what_is_here(bench: Bench) -> Part:
    """Versions and the card; and from them the shape that is tried, and the engine."""
    done = bench.python("machine", 120, script("gpu_machine.py"))
    if done.status != 0:
        return failed(done, "torch cannot be asked")
    (found,) = objects(done.output, '{"Python"')
    size = int(found.pop("bytes", 0))
    rows = "\n".join(f"| {name} | {value} |" for name, value in found.items())
    text = f"| | |\n|---|---|\n{rows}"
    bench.vllm = found["vllm"] != "not installed" and ("CPU" in found["vllm"]) == (bench.device == "cpu")
    if not bench.vllm:
        text += (
            "\n\nNo vLLM for this device is installed: responses come from the transformers library (`--engine hf`)."
        )
    if bench.device == "cuda" and not size:
        text += (
            "\n\n**torch sees no card.** Is there one, does the driver fit the CUDA of torch, and does "
            "CUDA_VISIBLE_DEVICES hide it? `python scripts/install.py` says what is wrong with the driver."
        )
        return Part(False, text, final=True)
    bench.shape = shape_for(size / 2**30, bench.quick) if size else "tiny"
    return Part(True, f"{text}\n\nShape that is tried: {bench.shape}.")


def shape_for(gib: float, quick: bool) -> str:
    """The largest that a card takes with room to spare: 18 bytes a parameter, activations, and vLLM beside it."""
    return "1.5B" if gib > 60 and not quick else "0.5B" if gib > 20 else "0.2B"


def tests(bench: Bench) -> Part:
    """Every test that needs a card (on the CPU: the twins of some of them), by pytest, each file in a process of its
    own: one that hangs costs the others nothing, and leaves nothing on the card."""
    chosen = ("-m", "gpu") if bench.device == "cuda" else ("-m", "not gpu and not vllm")
    pattern = "test_gpu*.py" if bench.device == "cuda" else "test_gpu.py"
    env = {"GRPO_GPU_PROCESS": os.devnull} if bench.device == "cuda" else {}  # tests/gpu_processes.py
    found = []
    for file in sorted(file for file in (ROOT / "tests").glob(pattern) if file.name not in ELSEWHERE):
        results = bench.folder / f"{file.stem}.xml"
        arguments = [
            "-p",
            "no:cacheprovider",
            "--rootdir",
            ROOT,
            "-c",
            ROOT / "pyproject.toml",
            f"--junitxml={results}",
        ]
        done = bench.python(file.stem, SECONDS_A_FILE, "-m", "pytest", *arguments, *chosen, file, **env)
        if results.exists():
            found += cases(results)
        else:
            why = f"not run to its end: {done.ending} (`python scripts/install.py --test` installs pytest)\n{done.tail}"
            found.append((f"{file.stem}::all", "failed", done.seconds, why))
    text = outcomes_table(found)
    for name, end in failures(found):
        text += f"\n\n<details><summary>{name}</summary>\n\n```\n{end}\n```\n</details>"
    outcomes = {outcome for _, outcome, _, _ in found}
    return Part("passed" in outcomes and "failed" not in outcomes, text)  # where all are left out nothing is shown


def two_steps(bench: Bench) -> Part:
    """Two steps of the command on random weights of a real shape, with a reference, and how they end."""
    made = bench.python("model", 180, script("random_model.py"), bench.shape, bench.model)
    if made.status != 0:
        return failed(made, "the model could not be written")
    (bench.folder / "any.py").write_text(ANY_REWARD)
    done = bench.python("two-steps", 300, "-m", "grpo.train", *run_flags(bench), "--steps", "2", "--name", "two-steps")
    rows = read_rows(bench.folder / "runs" / "two-steps" / "metrics.jsonl")
    table = metrics_table(rows) if rows else ""
    if done.status != 0 or len(rows) != 3:
        return Part(False, f"{table}\n\n{failed(done, 'two steps of grpo.train').text}")
    if found := words(done):
        shown = "\n".join(found)
        return Part(False, f"{table}\n\nIt ended with status 0, but its output has:\n\n```\n{shown}\n```")
    return Part(True, table)


def run_flags(bench: Bench) -> list[str]:
    """A run on the model with a reference; its longest sequences are 512 tokens, and 256 on the CPU."""
    prompt, response, step = (64, 448, "16") if bench.device == "cuda" else (64, 192, "4")
    return [
        "--model", str(bench.model), "--data", "arithmetic", "--reward", "./any.py", "--truncated", "keep",
        "--algo", "grpo", "--device", bench.device, "--engine", "vllm" if bench.vllm else "hf",
        "--max-prompt-tokens", str(prompt), "--max-response-tokens", str(response),
        "--problems-per-step", step, "--responses-per-problem", "4", "--updates-per-step", "2",
        "--eval-problems", "4", "--save-every", "0", "--wandb", "off", "--kv-cache-gib", "0.1",
    ]  # fmt: skip


def read_rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def memory(bench: Bench) -> Part:
    """What --plan promises against what is measured."""
    if not bench.model.exists():
        return Part(False, "There is no model: see the part before.")
    done = bench.python("memory", 240, script("measure_memory.py"), "--json", *run_flags(bench))
    rows = [Row(**row) for row in objects(done.output, '{"what"')]
    if done.status != 0 or not rows:
        return Part(False, f"{table(rows)}\n\n{failed(done, 'measuring').text}")
    beyond = [r.what for r in rows if "estimated" not in r.what and r.ratio > 1 + TOLERATED]
    text = table(rows)
    if beyond:
        text += f"\n\nMore than {TOLERATED:.0%} above what was planned: {', '.join(beyond)}."
    return Part(not beyond, text)


def update(bench: Bench) -> Part:
    """What the head's pieces, rows without a gradient and compiled layers save of an update."""
    if not bench.model.exists():
        return Part(False, "There is no model: see the part of two steps.")
    done = bench.python("update", 300, script("measure_update.py"), *run_flags(bench))
    return Part(True, done.output[done.output.index("| an update") :]) if done.status == 0 else failed(done, "updates")


def objects(output: str, beginning: str) -> list[dict]:
    """The lines of a log that are such JSON objects: libraries write between them."""
    return [json.loads(line) for line in output.splitlines() if line.startswith(beginning)]


def benchmark(bench: Bench) -> Part:
    """scripts/benchmark.py, where it exists: one run of each shape, without TRL."""
    if not script("benchmark.py").exists():
        return Part(True, "There is no scripts/benchmark.py.", left_out=True)
    if bench.quick or bench.device == "cpu":
        return Part(True, "Left out by --quick, and on the CPU.", left_out=True)
    flags = ("--trl", "none", "--alternations", "1", "--keep-disturbed")
    done = bench.python("benchmark", 300, script("benchmark.py"), *flags)
    return Part(True, f"```\n{done.tail}\n```") if done.status == 0 else failed(done, "the benchmark")


PARTS = {
    "What is here": what_is_here,
    "Tests": tests,
    "Two steps of a real shape": two_steps,
    "Memory": memory,
    "Update": update,
    "Benchmark": benchmark,
}
