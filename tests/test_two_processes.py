"""tests/two_processes.py: which processes the tests of a small suite run in."""

import os
import subprocess
import sys

import gpu_processes
import pytest
from conftest import ROOT

pytest.importorskip("xdist", reason='pytest-xdist is not installed: python -m pip install "pytest-xdist>=3.7"')
TEST = """
import os, pathlib, time
def one(name):
    time.sleep(0.05)
    with open(os.path.join(os.environ["SEEN"], name), "a") as file: file.write(f"{os.getpid()} ")
def test_first(): one(pathlib.Path(__file__).stem)
def test_second(): one(pathlib.Path(__file__).stem)
"""


@pytest.fixture
def ran(tmp_path):
    """Runs a suite of 12 files with these arguments; returns, for each file, the processes that its tests ran in."""
    (tmp_path / "suite").mkdir()
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = suite\n")
    (tmp_path / "suite" / "conftest.py").write_text("from two_processes import pytest_cmdline_main\n")
    for number in range(12):
        (tmp_path / "suite" / f"test_{number}.py").write_text(TEST)

    def run(*arguments):
        seen = tmp_path / f"seen{len(list(tmp_path.iterdir()))}"
        seen.mkdir()
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), *sys.path]), "SEEN": str(seen)}
        command = [sys.executable, "-m", "pytest", "-q", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0 and "24 passed" in done.stdout, done.stdout + done.stderr
        return [path.read_text().split() for path in sorted(seen.iterdir())]

    return run


def test_the_whole_suite_runs_in_two_processes_and_each_file_in_one_of_them(ran):
    files = ran()
    assert len(files) == 12 and all(len(set(processes)) == 1 for processes in files)
    assert len({processes[0] for processes in files}) == (1 if gpu_processes.driver_is_here() else 2)


@pytest.mark.parametrize("arguments", [["suite"], ["-n", "0"]])
def test_with_a_path_or_where_the_user_says_so_it_is_one(ran, arguments):
    assert len({process for processes in ran(*arguments) for process in processes}) == 1
