"""The parts of check_gpu.py: each runs commands in processes of their own, and says what came of them."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

from gpu_report import failures, metrics_table, outcomes_table
from memory_rows import Row, table
from timed_command import Done, run

ROOT = Path(__file__).resolve().parent.parent
BAD = ("Traceback (most recent call last)", "CUDA error", "CUDA Error", "Segmentation fault")
"""Words that a command may not leave in its log, also where it ends with status 0."""
ANY_REWARD = "def reward(tokens):\n    return float(sum(tokens) % 7)\n"
"""Random weights are never correct: a reward that differs within groups all the same, so that there is a gradient."""
TOLERATED = 0.10
"""Share by which a planned peak may be below the measured one."""


ELSEWHERE = ("test_gpu_command.py", "test_gpu_memory.py")
"""Tests of what other parts of the check do."""


@dataclass
class Part:
    """What came of a part."""

    well: bool
    text: str
    """Markdown."""
    left_out: bool = False
    final: bool = False
    """Nothing after it would be of use."""
    seconds: float = 0.0

    @property
    def word(self) -> str:
        return "left out" if self.left_out else "well" if self.well else "FAILED"


@dataclass
class Bench:
    """Where the parts work, and what they have found out."""

    folder: Path
    device: str
    quick: bool
    env: dict[str, str]
    shape: str = "tiny"
    vllm: bool = False
    """Whether the engine is vLLM."""
    timed: list[Done] = field(default_factory=list)

    @property
    def command(self) -> str:
        flags = [*(["--device cpu"] if self.device == "cpu" else []), *(["--quick"] if self.quick else [])]
        return " ".join(["python scripts/check_gpu.py", *flags])

    @property
    def model(self) -> Path:
        return self.folder / "model"

    def python(self, name: str, seconds: float, *arguments: str | Path, **env: str) -> Done:
        """A Python process; its output goes to NAME.log."""
        command = [sys.executable, *map(str, arguments)]
        return run(command, self.folder / f"{name}.log", seconds, self.env | env, self.folder)


def script(name: str) -> Path:
    return ROOT / "scripts" / name


def failed(done: Done, what: str) -> Part:
    """A command that did not end well, with the end of its log."""
    return Part(
        False, f"{what}: {done.ending or 'see its output'}. {done.log.name} ends with:\n\n```\n{done.tail}\n```"
    )


def words(done: Done) -> list[str]:
    """Lines of a log that a healthy command does not write."""
    return [line for line in done.output.splitlines() if any(bad in line for bad in BAD)]


# The parts ------------------------------------------------------------------------------------------------------------


def what_is_here(bench: Bench) -> Part:
    """Versions and the card; and from them the shape that is tried, and the engine."""
    done = bench.python("machine", 120, script("gpu_machine.py"))
    if done.status != 0:
        return failed(done, "torch cannot be asked")
    found = json.loads(done.output.splitlines()[-1])
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
    """Every test that needs a card (on the CPU: the twins of some of them), by pytest."""
    chosen = ("-m", "gpu") if bench.device == "cuda" else ("-m", "not gpu and not vllm")
    pattern = "test_gpu*.py" if bench.device == "cuda" else "test_gpu.py"
    files = sorted(file for file in (ROOT / "tests").glob(pattern) if file.name not in ELSEWHERE)
    results = bench.folder / "tests.xml"
    arguments = ["-p", "no:cacheprovider", "--rootdir", ROOT, "-c", ROOT / "pyproject.toml", f"--junitxml={results}"]
    done = bench.python("tests", 600, "-m", "pytest", *arguments, *chosen, *files)
    if not results.exists():
        return failed(done, "the tests did not run to their end (`python scripts/install.py --test` installs pytest)")
    text = outcomes_table(results)
    for name, end in failures(results):
        text += f"\n\n<details><summary>{name}</summary>\n\n```\n{end}\n```\n</details>"
    return Part(done.status == 0, text)


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
    if done.status != 0:
        return failed(done, "measuring")
    rows = [Row(**row) for row in json.loads(last_json(done.output))]
    beyond = [r.what for r in rows if "estimated" not in r.what and r.ratio > 1 + TOLERATED]
    text = table(rows)
    if beyond:
        text += f"\n\nMore than {TOLERATED:.0%} above what was planned: {', '.join(beyond)}."
    return Part(not beyond, text)


def last_json(output: str) -> str:
    """The last line that is a list: libraries may write behind it."""
    return [line for line in output.splitlines() if line.startswith("[{")][-1]


def benchmark(bench: Bench) -> Part:
    """scripts/benchmark.py, where it exists, with its own defaults."""
    if not script("benchmark.py").exists():
        return Part(True, "There is no scripts/benchmark.py.", left_out=True)
    if bench.quick or bench.device == "cpu":
        return Part(True, "Left out by --quick, and on the CPU.", left_out=True)
    done = bench.python("benchmark", 300, script("benchmark.py"))
    return Part(True, f"```\n{done.tail}\n```") if done.status == 0 else failed(done, "the benchmark")


PARTS = {
    "What is here": what_is_here,
    "Tests": tests,
    "Two steps of a real shape": two_steps,
    "Memory": memory,
    "Benchmark": benchmark,
}
