"""The NVIDIA driver of this machine, and whether the CUDA build of torch runs on it. The standard library alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

CUDA, OLDEST = "13.0", 580
"""The CUDA that the pinned torch brings (torch.version.cuda), and the first number of the oldest driver that runs it,
by NVIDIA's table of CUDA toolkits and drivers for Linux. tests/test_nvidia_driver.py holds them to the pin."""
SECONDS = 60


class DriverError(Exception):
    """nvidia-smi is there and does not say which driver is, in words."""


def compiler_lacks() -> str:
    """What the machine lacks to compile the kernels that triton and vLLM make at their first use; empty where it is
    there. As triton looks for it (runtime/build.py): a C compiler, and Python's headers."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    lacking = [] if compiler else ["a C compiler (gcc or clang)"]
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        lacking.append("the headers of this Python (Python.h)")
    return " and ".join(lacking)


def is_here() -> bool:
    """Whether there is an NVIDIA driver, as far as its own tool goes."""
    return shutil.which("nvidia-smi") is not None


def version() -> str:
    """As in 580.95.05. Raises: DriverError."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise DriverError(f"it did not answer within {SECONDS} s") from None
    except OSError as error:
        raise DriverError(str(error)) from None
    said = " ".join((done.stdout + done.stderr).split())
    if done.returncode:
        raise DriverError(said or f"it ended with status {done.returncode} and said nothing")
    first = done.stdout.strip().partition("\n")[0].strip()  # one line for each card
    if not first.partition(".")[0].isdigit():
        raise DriverError(said or "it names no card")
    return first


def problem() -> str | None:
    """Why the CUDA build of torch would not run here, and what to do about it; None where the driver is new enough."""
    try:
        found = version()
    except DriverError as error:
        return (
            f"There is an nvidia-smi, but it fails: {error}. The driver does not work as it is: often a restart is due "
            "after an upgrade, or a container was started without its card. See to it until `nvidia-smi` lists the "
            "card, or install for the CPU: python scripts/install.py --cpu"
        )
    if int(found.partition(".")[0]) < OLDEST:
        return (
            f"The NVIDIA driver {found} is too old: the pinned torch brings CUDA {CUDA}, which needs driver {OLDEST} "
            "or newer. Nothing was downloaded. Upgrade the driver, or install for the CPU: python scripts/install.py "
            "--cpu"
        )
    return None
