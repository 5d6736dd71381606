"""What the tests of this room share: groups of texts, verifiers on them, and the processes of this machine."""

import math
import os
import textwrap
import time
from pathlib import Path

import torch

from grpo.records import Group, Problem, Rollout
from grpo.verifiers.verify import Verifiers

HOSTILE = str(Path(__file__).parent / "hostile_verifiers.py")
LIMIT = 1.0
nan = math.nan


def rollout(text: str, tokens=(), truncated=False) -> Rollout:
    return Rollout(tokens=tuple(tokens), logprobs=(), text=text, truncated=truncated)


def group(texts, prompt="What is 1?", **columns) -> Group:
    return Group(Problem(prompt, (), {"answer": "1", **columns}), tuple(rollout(text) for text in texts))


def write_verifier(folder: Path, source: str, name: str = "mine.py") -> str:
    """Write a verifier's file; returns its path."""
    (folder / name).write_text(textwrap.dedent(source))
    return str(folder / name)


def rewards_of(specs, groups, **options):
    with Verifiers(specs, **({"workers": 1, "time_limit": 10.0} | options)) as verifiers:
        return verifiers(groups)


def same(tensor, expected) -> bool:
    return torch.equal(tensor.nan_to_num(nan=-9.0), torch.tensor(expected).nan_to_num(nan=-9.0))


def processes(text: str) -> list[int]:
    """Ids of the processes, zombies left out, whose command line contains a text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # it has ended meanwhile
            continue
    return found


def own(ids: list[int]) -> set[int]:
    """Those that are children of this process: other runs on the machine have verifiers as well."""
    children = set()
    for number in ids:
        try:
            parent = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1]
        except OSError:  # it has ended meanwhile
            continue
        children |= {number} if int(parent) == os.getpid() else set()
    return children


def gone(text: str, seconds: float = 3.0) -> bool:
    deadline = time.monotonic() + seconds
    while processes(text) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not processes(text)
