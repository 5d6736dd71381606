"""How a job of several ranks ends, whatever ends it: soon, with the one real error last, and no process left."""

import signal
import socket
import subprocess
import time
from contextlib import contextmanager

import psutil
import pytest
from small_runs import SMALL, rows
from torchrun import command, environment

from grpo.model.checkpoint import checkpoints, damage

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

FLAGS = [*SMALL, "--steps", "400", "--save-every", "3", "--kv-cache-gib", "0.1", "--eval-problems", "0"]


@contextmanager
def job(place, *flags, program=("-m", "grpo.train")):
    """A job that is under way in step 4 or beyond; yields (agent, rank -> process, all processes)."""
    with (place / "said").open("w") as said:
        asked = command(2, *program, *FLAGS, "--name", "run", *flags)
        agent = subprocess.Popen(asked, cwd=place, env=environment(), stdout=said, stderr=subprocess.STDOUT)
    metrics = place / "runs" / "run" / "metrics.jsonl"
    try:
        until(lambda: metrics.is_file() and len(metrics.read_text().splitlines()) >= 4, agent)
        everyone = psutil.Process(agent.pid).children(recursive=True)  # the verifiers' workers, too
        ranks = {int(p.environ()["RANK"]): p for p in psutil.Process(agent.pid).children()}
        yield agent, ranks, everyone
    finally:
        if agent.poll() is None:
            agent.kill()
        for process in everyone:
            if process.is_running():
                process.kill()


@contextmanager
def two_agents(place):
    """Two torchruns of one rank each, as on two machines, under way; yields (agents, ranks, all processes).

    The first is there before the second begins, and so is the one at which they meet.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = dict(nnodes=2, rdzv_backend="c10d", rdzv_endpoint=f"127.0.0.1:{port}")
    agents, everyone = [], []
    metrics = place / "runs" / "run" / "metrics.jsonl"
    try:
        for i in range(2):
            with (place / f"said-{i}").open("w") as said:
                asked = command(1, "-m", "grpo.train", *FLAGS, "--name", "run", **meeting)
                settings = dict(cwd=place, env=environment(), stdout=said, stderr=subprocess.STDOUT)
                agents.append(subprocess.Popen(asked, **settings))
            until(lambda: answers(port), agents[0])
        until(lambda: metrics.is_file() and len(metrics.read_text().splitlines()) >= 4, agents[0])
        everyone = [p for agent in agents for p in psutil.Process(agent.pid).children(recursive=True)]
        yield agents, [psutil.Process(agent.pid).children()[0] for agent in agents], everyone
    finally:
        for agent in agents:
            if agent.poll() is None:
                agent.kill()
            agent.wait()
        for process in everyone:
            if process.is_running():
                process.kill()


def answers(port):
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def until(true, agent, seconds=120):
    end = time.monotonic() + seconds
    while not true():
        assert agent.poll() is None and time.monotonic() < end
        time.sleep(0.05)


def ended(place, agent, everyone, seconds):
    """What the job has said; it must be over in so many seconds, with no process left and no checkpoint in parts."""
    start = time.monotonic()
    status = agent.wait(seconds + 30)
    took = time.monotonic() - start
    said = (place / "said").read_text()
    assert took < seconds, said
    print(f"over after {took:.1f} s")
    assert status != 0
    check_remains(place, everyone)
    return said


def check_remains(place, everyone):
    """No process, and no checkpoint in parts."""
    until_gone = time.monotonic() + 2
    while any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in everyone):
        assert time.monotonic() < until_gone, "a process is left"
        time.sleep(0.05)
    folder = place / "runs" / "run"
    assert not list(folder.glob(".*.part"))
    assert all(damage(path) is None for path in checkpoints(folder).values())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_last_whole_step_and_ends_all_ranks(tmp_path, number):
    with job(tmp_path) as (agent, _, everyone):
        agent.send_signal(number)
        said = ended(tmp_path, agent, everyone, 10)
    folder = tmp_path / "runs" / "run"
    last = rows(folder)[-1]["step"]
    assert said.count(f"interrupted by {number.name}") == 1 and f"go on after step {last}: " in said
    assert max(checkpoints(folder)) == last and [row["step"] for row in rows(folder)] == list(range(1, last + 1))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_ends_the_others(tmp_path, rank):
    with job(tmp_path) as (agent, ranks, everyone):
        ranks[rank].kill()
        said = ended(tmp_path, agent, everyone, 5)
    assert "Traceback" not in said.split("torch/distributed/elastic")[0] and "hears nothing" not in said


def test_a_rank_that_hangs_ends_the_job_when_the_time_is_up(tmp_path):
    with job(tmp_path, "--rank-minutes", "0.15") as (agent, ranks, everyone):
        ranks[1].suspend()
        time.sleep(1)
        said = ended(tmp_path, agent, everyone, 9 + 5 + 35)  # torchrun gives what it ends 30 s
    own, _, root = said.partition("Root Cause (first observed failure):")  # the last that torchrun says
    assert own.split("torch/distributed/elastic")[0].count("hears nothing from another one any more") == 1
    assert "hears nothing from another one any more" in root


@pytest.mark.parametrize("where", ["reward", "update"])
def test_the_error_of_one_rank_is_the_last_word(tmp_path, where):
    (tmp_path / "program.py").write_text(f"""
import os, sys
from grpo import train
from grpo.model.policy import Policy
from grpo.verifiers.verify import Verifiers
owner, name = dict(reward=(Verifiers, "__call__"), update=(Policy, "update"))[{where!r}]
real, calls = getattr(owner, name), []
def broken(*arguments, **settings):
    calls.append(1)
    if len(calls) == 6 and os.environ["RANK"] == "1":
        raise ZeroDivisionError("the bug")
    return real(*arguments, **settings)
setattr(owner, name, broken)
from grpo.model.rank_end import leave
leave(train.main)
""")
    with job(tmp_path, program=[str(tmp_path / "program.py")]) as (agent, _, everyone):
        said = ended(tmp_path, agent, everyone, 8)
    own, _, root = said.partition("Root Cause (first observed failure):")  # the last that torchrun says
    assert "ZeroDivisionError: the bug" in root
    own = own.split("torch/distributed/elastic")[0]
    assert own.count("ZeroDivisionError: the bug") == 1 and "hears nothing" not in own
    folder = tmp_path / "runs" / "run"
    last = rows(folder)[-1]["step"]
    # All ranks meet after verification, and can save; amid an update they cannot.
    assert max(checkpoints(folder)) == (last if where == "reward" else 3)


@pytest.mark.parametrize("what", ["rank", "agent"])
@pytest.mark.parametrize("which", [0, 1])
def test_the_end_of_one_machine_is_the_end_of_both(tmp_path, what, which):
    """A rank of one of two agents is killed, or the agent itself, be it the one at which they meet."""
    with two_agents(tmp_path) as (agents, ranks, everyone):
        (ranks if what == "rank" else agents)[which].kill()
        start, took = time.monotonic(), []
        for agent in agents:
            agent.wait(60)
            took.append(time.monotonic() - start)
        said = [(tmp_path / f"said-{i}").read_text() for i in range(2)]
        print(f"{what} {which}: over after {took} s")
        assert max(took) < 10, said
        assert all(agent.returncode != 0 for agent in agents)
        check_remains(tmp_path, everyone)
    folder = tmp_path / "runs" / "run"
    if what == "agent":  # its rank has been told to end, and they have agreed on where
        last = rows(folder)[-1]["step"]
        assert max(checkpoints(folder)) == last and "interrupted by SIGTERM" in "".join(said)
