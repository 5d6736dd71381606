"""scripts/nvidia_driver.py, with an nvidia-smi that says what a broken or an old one does; and its pin of torch."""

import re
import sys

import pytest
import torch
from conftest import ROOT

sys.path.append(str(ROOT / "scripts"))
import nvidia_driver


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Put a tool of that name on the path, and nothing else but the shell."""

    def write(script):
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return write


MISMATCH = "Failed to initialize NVML: Driver/library version mismatch"


def test_a_driver_that_is_new_enough_is_no_problem(nvidia_smi):
    nvidia_smi('[ "$*" = "--query-gpu=driver_version --format=csv,noheader" ] && printf "580.95.05\\n580.95.05\\n"')
    assert nvidia_driver.is_here() and nvidia_driver.version() == "580.95.05" and nvidia_driver.problem() is None


@pytest.mark.parametrize("found", ["535.288.01", "579.99", "470.256.02"])
def test_one_that_is_too_old_is_named_with_the_one_that_is_needed(nvidia_smi, found):
    nvidia_smi(f"echo {found}")
    said = nvidia_driver.problem()
    assert f"driver {found} is too old" in said and "needs driver 580 or newer" in said
    assert "Nothing was downloaded" in said and "--cpu" in said


@pytest.mark.parametrize(
    "script,word",
    [
        (f"echo '{MISMATCH}'; exit 18", MISMATCH),
        ("echo 'No devices were found' >&2; exit 6", "No devices were found"),
        ("echo 'No devices were found'", "No devices were found"),
        ("exit 9", "status 9"),
        ("true", "it names no card"),
        ("exec sleep 60", "did not answer within 0.3 s"),
    ],
)
def test_a_tool_that_fails_is_quoted(nvidia_smi, monkeypatch, script, word):
    monkeypatch.setattr(nvidia_driver, "SECONDS", 0.3 if "sleep" in script else 60)
    nvidia_smi(script)
    said = nvidia_driver.problem()
    assert word in said and "--cpu" in said and "\n" not in said


def test_what_it_says_of_cuda_is_true_of_the_pinned_torch():
    """A new pin of torch must look at the driver again."""
    (pin,) = set(re.findall(r'"torch==([^"]+)"', (ROOT / "pyproject.toml").read_text()))
    assert pin == "2.13.0" and (nvidia_driver.CUDA, nvidia_driver.OLDEST) == ("13.0", 580)
    if torch.version.cuda is not None and torch.__version__.startswith(pin):
        assert torch.version.cuda == nvidia_driver.CUDA


def test_what_compiles_kernels_is_looked_for_as_triton_does(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    (tmp_path / "Python.h").write_text("")
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"include": str(tmp_path)})
    assert nvidia_driver.compiler_lacks() == "a C compiler (gcc or clang)"
    monkeypatch.setenv("CC", "/any/cc")
    assert nvidia_driver.compiler_lacks() == ""
    (tmp_path / "Python.h").unlink()
    assert nvidia_driver.compiler_lacks() == "the headers of this Python (Python.h)"
