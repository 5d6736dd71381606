"""grpo/verifiers/process.py: worker processes end with all that they have started, however the trainer ends."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import pytest
from verifier_tools import HOSTILE, LIMIT, gone, group, own, processes, write_verifier

from grpo.verifiers.verify import Verifiers


@pytest.fixture
def file(tmp_path):
    """Write a verifier's file; returns its path."""
    return partial(write_verifier, tmp_path)


def test_nothing_leaks_over_many_deaths():
    marker, files = "grpo.verifiers.worker", lambda: len(os.listdir("/proc/self/fd"))
    before, alive = files(), own(processes(marker))
    verifiers = Verifiers([HOSTILE], workers=2, time_limit=LIMIT, memory_limit=64)
    verifiers([group(["1"])])
    for _ in range(10):
        verifiers([group(["exit_the_process", "1", "kill_itself", "2", "1"])])
        assert len(own(processes(marker)) - alive) <= 3  # two workers and the spare
        # Bell, ear, selector; of each worker a socket and, while it loads, a log. At the very moment of a start the
        # pool's thread holds the other ends of that worker's pipes as well: the count may need a moment to settle.
        settled_by = time.monotonic() + 5
        while files() - before > 3 + 3 * 2 and time.monotonic() < settled_by:
            time.sleep(0.01)
        assert files() - before <= 3 + 3 * 2
    verifiers.close()
    assert files() == before
    assert own(processes(marker)) <= alive
    children = [path for path in Path("/proc").glob("[0-9]*/stat") if f" {os.getpid()} " in path.read_text()]
    assert not [path for path in children if ") Z " in path.read_text()]


def test_processes_are_allowed_where_the_file_says_so_and_end_with_the_call(file):
    marker = f"9876{os.getpid()}.5"
    spec = file(f"""
        import subprocess, time
        STARTS_PROCESSES = True
        def reward(response):
            if response == "quick":
                return float(subprocess.run(["echo", "0.5"], capture_output=True, text=True).stdout)
            subprocess.Popen(["sleep", "{marker}"])
            subprocess.Popen(["sleep", "{marker}"], start_new_session=True)
            time.sleep(1000)
    """)
    with Verifiers([spec], workers=1, time_limit=1.0) as verifiers:
        rewards = verifiers([group(["quick", "slow"])])
        assert rewards.total.tolist() == [[0.5, 0]]
        assert rewards.timeouts == {"mine": 1}
        assert gone(marker)


def test_scratch_files_go_with_their_process(file, tmp_path, monkeypatch):
    """A call that is killed leaves no temporary file behind, nor does one that just forgets it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    spec = file("""
        import os, tempfile, time
        def reward(response):
            (folder := tempfile.mkdtemp()) and open(os.path.join(folder, "file"), "w").write(response)
            if response == "hang":
                time.sleep(1000)
            return float(len(os.listdir(tempfile.gettempdir())))
    """)
    with Verifiers([spec], workers=1, time_limit=1.0) as verifiers:
        [[first, second]] = verifiers([group(["1", "2"])]).total.tolist()
        assert (first, second) == (1, 2)
        folders = set(os.listdir(tmp_path / "scratch"))
        assert len(folders) in (1, 2)  # the worker's, and the spare's once that has started
        verifiers([group(["hang", "3"])])
        deadline = time.monotonic() + 5
        while len(folders & set(os.listdir(tmp_path / "scratch"))) == len(folders) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(folders - set(os.listdir(tmp_path / "scratch"))) == 1
    assert os.listdir(tmp_path / "scratch") == []


SCRIPT = """
import sys, time
from grpo.records import Group, Problem, Rollout
from grpo.verifiers.verify import Verifiers
texts = [("1", "2"), ("1", "hang_in_c", "hang", "2")]
groups = [Group(Problem("", (), {{"answer": "1"}}), tuple(Rollout((), (), t, False) for t in each)) for each in texts]
verifiers = Verifiers(["{hostile}"], workers=2, time_limit=1000.0)
verifiers(groups[:1])
print("ready", flush=True)
{then}
"""


def start_script(tmp_path, then: str) -> tuple[subprocess.Popen, str]:
    marker = str(tmp_path / "hostile_copy.py")  # a path of our own, to recognise these workers by
    Path(marker).write_text(Path(HOSTILE).read_text())
    script = SCRIPT.format(hostile=marker, then=then)
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},  # a trainer that is killed cannot remove its workers' folders
    )
    assert process.stdout.readline() == "ready\n"
    return process, "\0" + marker


@pytest.mark.parametrize(
    ("then", "number"),
    [
        ("verifiers(groups[1:])", signal.SIGINT),
        ("time.sleep(100)", signal.SIGINT),
        ("verifiers(groups[1:])", signal.SIGKILL),
    ],
)
def test_interrupting_the_trainer_leaves_no_process(tmp_path, then, number):
    """Ctrl-C while waiting for hanging calls, Ctrl-C elsewhere, and the trainer killed outright."""
    process, marker = start_script(tmp_path, then)
    time.sleep(0.3)
    assert processes(marker)
    started = time.monotonic()
    process.send_signal(number)
    _, stderr = process.communicate(timeout=20)
    assert time.monotonic() - started < 5.0
    assert process.returncode == -number
    assert ("KeyboardInterrupt" in stderr) == (number == signal.SIGINT)
    assert gone(marker)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_tells_the_whole_run_to_end_leaves_the_workers_to_the_trainer(tmp_path, number):
    """A scheduler signals every process of a run, while the trainer still finishes its step."""
    path = write_verifier(tmp_path, "def reward(response): return len(response)")
    with Verifiers((path,), workers=1) as verifiers:
        verifiers([group(["a"])])
        workers = processes(path)
        for worker in workers:
            os.kill(worker, number)
        assert verifiers([group(["abc"])]).total.tolist() == [[3.0]]
        assert set(workers) & set(processes(path))  # the spare one may not have been ready, and is replaced


def test_leaving_without_close_ends_the_workers(tmp_path):
    process, marker = start_script(tmp_path, "verifiers.submit(groups[1].problem, groups[1].rollouts[1])")
    _, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr) == (0, "")
    assert gone(marker)
