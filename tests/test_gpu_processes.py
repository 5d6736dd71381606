"""tests/gpu_processes.py: tests marked gpu run apart and see the card; what dies, hangs or fails there is reported."""

import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT
from test_check_gpu import gone

CONFTEST = """
import gpu_processes
from gpu_processes import *
from gpu_processes import pytest_runtest_protocol, pytest_runtest_logreport
gpu_processes.SECONDS = 15
gpu_processes.driver_is_here = lambda: DRIVER
"""
TESTS = """
import os, signal, subprocess, sys, time
import pytest

seen = os.environ.get("CUDA_VISIBLE_DEVICES")
gpu = pytest.mark.gpu

@pytest.fixture(scope="module")
def place(tmp_path_factory):
    yield "a fixture of this module"

@gpu
def test_sees_the_card(place):
    assert seen == SEEN

def test_sees_none(place):
    assert seen == "" and "GRPO_GPU_PROCESS" not in os.environ

@gpu
def test_fails():
    assert seen == "another"

@gpu
def test_is_left_out():
    pytest.skip("a reason")

@gpu
def test_dies():
    print("last words", flush=True)
    print("left:", subprocess.Popen(["sleep", "60"]).pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

@gpu
@pytest.mark.parametrize("text", ["a b", "c]"])
def test_behind_it(text):
    assert text

@gpu
def test_hangs():
    time.sleep(60)

def test_on_the_cpu_at_the_end(place):
    pass
"""


@pytest.fixture
def pytest_of(tmp_path):
    """Run pytest on such a file; returns the finished process."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    gpu: needs a card\n")

    def run(*flags, seen=None, driver=True):
        (tmp_path / "conftest.py").write_text(CONFTEST.replace("DRIVER", str(driver)))
        (tmp_path / "test_some.py").write_text(TESTS.replace("SEEN", repr(seen)))
        (tmp_path / "test_other.py").write_text("def test_it():\n    pass\n")
        env = {k: v for k, v in os.environ.items() if k not in ("CUDA_VISIBLE_DEVICES", "GRPO_GPU_PROCESS")}
        env |= {"PYTHONPATH": str(ROOT / "tests")} | ({} if seen is None else {"CUDA_VISIBLE_DEVICES": seen})
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", "-v", *flags]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)

    return run


@pytest.mark.slow
def test_each_test_is_reported_once_whatever_became_of_its_process(pytest_of):
    done = pytest_of()
    said = done.stdout
    assert "3 failed, 6 passed, 1 skipped" in said, said + done.stderr
    for name in ("test_sees_the_card", "test_sees_none", "test_behind_it[a b]", "test_behind_it[c]]", "test_it"):
        assert any(line.startswith("PASSED") and name in line for line in said.splitlines()), name
    for name in ("test_fails", "test_dies", "test_hangs"):
        assert any(line.startswith("FAILED") and name in line for line in said.splitlines()), name
    assert "its process ended with status -9" in said and "last words" in said
    assert "took longer than 15 s" in said and "assert None == 'another'" in said and "a reason" in said
    assert said.index("test_it") < said.index("test_sees_the_card")  # the card's at the end
    assert gone(int(re.search(r"^left: (\d+)", said, re.MULTILINE)[1]))


def test_the_users_choice_of_cards_is_handed_on_and_one_test_can_be_chosen(pytest_of):
    done = pytest_of("test_some.py::test_sees_the_card", "test_some.py::test_sees_none", seen="1")
    assert "2 passed" in done.stdout, done.stdout


def test_without_a_driver_nothing_is_started(pytest_of):
    """They run here then, where conftest.py skips them."""
    done = pytest_of("-k", "test_sees_the_card", driver=False)
    assert "1 failed" in done.stdout and "assert '' == None" in done.stdout, done.stdout
