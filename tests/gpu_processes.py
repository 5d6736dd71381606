"""Tests marked `gpu`: those of a file run in a process of its own, which sees the card. No other test sees one.

So the rest of the suite computes on the CPU on every machine, no test finds the memory of another one taken, and vLLM,
which can sleep only once in a process, is made once in each. A process that dies costs the test that it died in: those
behind it get a new one. `python -m pytest tests/test_gpu_vllm.py` runs one file, as usual. With GRPO_GPU_PROCESS set in
the environment (to a file for the reports, or to /dev/null) pytest itself is such a process: no other is started.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

PROCESS, VISIBLE = "GRPO_GPU_PROCESS", "CUDA_VISIBLE_DEVICES"
CARDS = os.environ.get(VISIBLE)
"""The cards that the user lets be seen; None: all."""
SECONDS = 1200
"""A process may take so long, all its tests together."""
TAIL = 6000
"""Characters of its output that are shown where a test has no report."""

if PROCESS not in os.environ:
    os.environ[VISIBLE] = ""  # before torch, which reads it when it first looks for a card, is imported

_reports: dict[str, list] = {}
"""Test -> what a process of this session said of it."""


def driver_is_here() -> bool:
    """Whether it is worth starting a process. What it finds there is torch's to say."""
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()


def apart(item: pytest.Item) -> bool:
    """Whether a test is run by another process."""
    return PROCESS not in os.environ and driver_is_here() and item.get_closest_marker("gpu") is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=apart)  # at the end: between two tests of this process, nothing is left set up


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    if not apart(item):
        return None
    if item.nodeid not in _reports:
        others = (other for other in item.session.items if apart(other) and other.path == item.path)
        run_apart(item.config, [other for other in others if other.nodeid not in _reports])
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in _reports[item.nodeid]:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """In a process apart: hand the report on, at once, since the next test may end the process."""
    if path := os.environ.get(PROCESS):
        data = _config.hook.pytest_report_to_serializable(config=_config, report=report)
        with open(path, "a") as file:
            file.write(json.dumps(data) + "\n")


def pytest_configure(config: pytest.Config) -> None:
    global _config
    _config = config


def run_apart(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    """Fill in the reports of these tests. One in which the process ends has failed, and the rest go on in another."""
    while items:
        found, end = one_process(config, [item.nodeid for item in items])
        whole = [item for item in items if any(report.when == "teardown" for report in found.get(item.nodeid, []))]
        _reports.update((item.nodeid, found[item.nodeid]) for item in whole)
        items = [item for item in items if item not in whole]
        if items:
            died, *items = items
            _reports[died.nodeid] = [*found.get(died.nodeid, []), failure(died, end)]


def one_process(config: pytest.Config, tests: Sequence[str]) -> tuple[dict[str, list], str]:
    """Test -> its reports; and how the process ended, with the end of its output."""
    # tee-sys: what a test has written is not lost with the process.
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--capture=tee-sys", *tests]
    with tempfile.NamedTemporaryFile("r") as reports, tempfile.TemporaryFile("w+") as output:
        env = {name: value for name, value in os.environ.items() if name != VISIBLE}
        env |= {PROCESS: reports.name} | ({} if CARDS is None else {VISIBLE: CARDS})
        process = subprocess.Popen(
            command, cwd=config.rootpath, env=env, stdout=output, stderr=output, start_new_session=True
        )
        try:
            end = f"ended with status {process.wait(SECONDS)}"
        except subprocess.TimeoutExpired:
            end = f"took longer than {SECONDS} s and was ended"
        finally:  # Ctrl-C too; and what it has started, such as a training run
            stop_group(process)
        found: dict[str, list] = {}
        for line in reports:
            if line.endswith("\n"):  # whole
                data = json.loads(line)
                data |= {name: tuple(data[name]) for name in ("location", "longrepr") if isinstance(data[name], list)}
                report = config.hook.pytest_report_from_serializable(config=config, data=data)
                found.setdefault(report.nodeid, []).append(report)
        output.seek(0)
        return found, f"its process {end}; its output ended with:\n{output.read()[-TAIL:]}"


def stop_group(process: subprocess.Popen) -> None:
    """The process, where it still runs, and all that it has left behind."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def failure(item: pytest.Item, text: str) -> pytest.TestReport:
    """The report of a test whose process has ended within it."""
    return pytest.TestReport(
        nodeid=item.nodeid, location=item.location, keywords={}, outcome="failed", longrepr=text, when="call"
    )
