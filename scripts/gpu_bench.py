"""What the parts of check_gpu.py work with: a folder, an environment and a device; and what they come to."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from timed_command import Done, run

ROOT = Path(__file__).resolve().parent.parent
BAD = ("Traceback (most recent call last)", "CUDA error", "CUDA Error", "Segmentation fault")
"""Words that a command may not leave in its log, also where it ends with status 0."""


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
