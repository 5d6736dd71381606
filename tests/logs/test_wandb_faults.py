"""wandb through kills, with its process gone or hung, and with a server that falls silent; wandb is the real one."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import wandb
from conftest import ROOT
from wandb_file import offline_runs, records
from wandb_server import WandbServer

from grpo.logs.wandb_run import WandbRun

RUN = """
import os, signal, sys, time
from pathlib import Path
import grpo.logs.wandb_run as wandb_run
from grpo.logs.logger import Logger

def service():  # wandb's process
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    (found,) = (int(pid) for pid in children if "wandb-core" in Path(f"/proc/{pid}/cmdline").read_text())
    return found

def begin(first_step=1):
    folder = Path(sys.argv[1])
    return Logger(folder, steps=12, first_step=first_step, config={}, wandb_mode="offline", project="grpo-tests")

def row(step, **more):
    return {"step": step, "reward/mean": 0.25 * step, **more}

"""
"""What the processes of these tests begin with."""

GONE = "(?:ConnectionResetError|BrokenPipeError): [^)]*"
"""How the death of wandb's process shows, by which of the two notices it first."""


@pytest.fixture(autouse=True)
def own_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path))


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server that this process is logged in to. wandb remembers that, so its memory is wiped before and after."""
    wandb.teardown()
    with WandbServer() as server:
        for name, value in {"API_KEY": "a" * 40, "BASE_URL": server.url, "DIR": str(tmp_path)}.items():
            monkeypatch.setenv(f"WANDB_{name}", value)
        monkeypatch.setenv("HOME", str(tmp_path))
        yield server
        wandb.teardown()


def process(folder, code):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    texts = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen([sys.executable, "-c", RUN + code, str(folder)], env=env, **texts)


def service_in(running):
    """The id of wandb's process, which the run prints as its last line."""
    while not (line := running.stdout.readline()).startswith("service "):
        assert line, running.stderr.read()
    return int(line.split()[1])


def killed(folder, first_step, last_step, with_service):
    """A run that logs these steps and is then killed, alone or with wandb's process."""
    running = process(
        folder,
        f"logger = begin({first_step})\n"
        f"for step in range({first_step}, {last_step} + 1): logger.log(row(step))\n"
        "print('service', service(), flush=True)\ntime.sleep(60)",
    )
    service = service_in(running)
    if with_service:  # first, so that it cannot write what it holds
        os.kill(service, signal.SIGKILL)
    running.kill()
    running.communicate()
    time.sleep(1)  # wandb names a part by its second


def steps_on_disk(path):
    """Of the rows in a part's file, also where its writer was killed."""
    items = [record.history.item for record in records(path) if record.WhichOneof("record_type") == "history"]
    return [json.loads(item.value_json) for row in items for item in row if "step" in (item.key, *item.nested_key)]


def command_in(text):
    """The command that a message gives."""
    return shlex.split(re.search(r"`(wandb .*?)`", text)[1])


def synced(command, folder):
    """`wandb sync`, which takes the server from the environment."""
    done = subprocess.run([Path(sys.executable).parent / command[0], *command[1:]], cwd=folder, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


# Kills -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_service", [True, False], ids=["with wandb's process", "alone"])
def test_each_step_stands_once_in_an_offline_run_that_was_killed_twice(tmp_path, with_service):
    """The second kill comes before wandb has written what it was sent, and the first folder is still what counts."""
    folder = tmp_path / "run"
    killed(folder, 0, 9, with_service)
    killed(folder, 7, 8, with_service)
    assert not list((folder / "wandb").glob("superseded-*"))
    finished = process(folder, "with begin(7) as logger:\n for step in range(7, 13): logger.log(row(step))")
    assert finished.communicate()[1] == "" and finished.returncode == 0
    (left,) = offline_runs(folder)
    assert [line["step"] for line in left.history] == list(range(13))
    older = list((folder / "wandb").glob("superseded-offline-run-*/run-*.wandb"))
    assert len(older) == 2 and {path.name for path in older} == {f"run-{left.run.run_id}.wandb"}
    for on_disk in map(steps_on_disk, older):  # the tail was lost, with wandb's process mostly all of it
        assert on_disk == list(range(len(on_disk)))


def test_what_was_uploaded_before_a_resume_is_replaced_by_the_whole_run(tmp_path, server):
    folder = tmp_path / "run"
    begin = dict(project="grpo-tests", group=None, config={})
    first = WandbRun(folder, "offline", **begin)
    for step in range(5):
        first.log({"step": step})
    first.finish(1)
    offline_runs(folder)  # waits for the file's end
    synced(["wandb", "sync", str(folder / "wandb")], tmp_path)
    assert server.steps(first.id) == [0, 1, 2, 3, 4]
    time.sleep(1)
    second = WandbRun(folder, "offline", **begin, rows=[{"step": step} for step in range(3)])
    for step in range(3, 8):
        second.log({"step": step})
    second.finish(0)
    offline_runs(folder)
    synced(["wandb", "sync", str(folder / "wandb")], tmp_path)
    assert second.id == first.id and server.steps(first.id) == list(range(8))


@pytest.mark.parametrize("lost", [0, 5], ids=["all arrived", "the tail was lost"])
def test_the_server_of_an_online_run_has_each_step_once(tmp_path, server, lost, capfd):
    begin = dict(project="grpo-tests", group=None, config={})
    first = WandbRun(tmp_path / "run", "online", **begin)
    for step in range(10):
        first.log({"step": step})
    first.finish(1)
    assert server.steps(first.id) == list(range(10))
    for number in range(10 - lost, 10):
        del server.lines[first.id][number]
    time.sleep(1)
    second = WandbRun(tmp_path / "run", "online", **begin, rows=[{"step": step} for step in range(7)], known=first.id)
    assert second.id == first.id and second.run.resumed
    for step in range(7, 13):
        second.log({"step": step})
    second.finish(0)
    assert server.steps(first.id) == list(range(13))
    assert not list((tmp_path / "run" / "wandb").glob("superseded-*"))
    assert "current step" not in capfd.readouterr().err  # wandb would say of each step sent twice that it drops it


def test_an_offline_run_that_goes_on_online_begins_anew_with_all_rows(tmp_path, server):
    begin = dict(project="grpo-tests", group=None, config={})
    offline = WandbRun(tmp_path / "run", "offline", **begin)
    offline.log({"step": 0})
    offline.finish(1)
    online = WandbRun(tmp_path / "run", "online", **begin, rows=[{"step": 0}], known=offline.id)
    online.log({"step": 1})
    online.finish(0)
    assert online.id != offline.id and server.steps(online.id) == [0, 1]
    (left,) = offline_runs(tmp_path / "run")
    assert left.run.run_id == offline.id


# Failures --------------------------------------------------------------------------------------------------------


def test_a_server_that_falls_silent_ends_nothing(tmp_path, server, monkeypatch):
    """What is said at the end names a command, and that brings the server every step."""
    monkeypatch.setattr("grpo.logs.wandb_start.FINISH_SECONDS", 3)
    said = []
    run = WandbRun(tmp_path / "run", "online", project="grpo-tests", group=None, config={}, say=said.append)
    run.log({"step": 0})
    server.silent.set()
    start = time.monotonic()
    for step in range(1, 300):
        run.log({"step": step})
    assert time.monotonic() - start < 10 and not said
    run.finish(0)
    assert 2 < time.monotonic() - start < 30 and len(said) == 1
    assert "wandb did not finish (TimeoutError: Timed out finishing run.). metrics.jsonl has every step." in said[0]
    server.silent.clear()
    synced(command_in(said[0]), tmp_path)
    assert server.steps(run.id) == list(range(300))


def test_wandbs_process_that_dies_leaves_the_training_alone(tmp_path):
    """In the middle of the run; the file is whole, nothing is said twice, and a resumed run has every step."""
    folder = tmp_path / "run"
    code = (
        "with begin() as logger:\n"
        " for step in range(9):\n"
        "  logger.log(row(step))\n"
        "  if step == 5: os.kill(service(), signal.SIGKILL); time.sleep(0.5)"
    )
    running = process(folder, code)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 0 and err == ""
    (said,) = re.findall(r"^wandb .*", out, re.MULTILINE)
    assert re.match(rf"wandb stopped at step [678] \({GONE}\)\. Training goes on without it; metrics", said)
    assert [json.loads(line)["step"] for line in (folder / "metrics.jsonl").open()] == list(range(9))
    again = process(folder, "with begin(7) as logger:\n for step in range(7, 13): logger.log(row(step))")
    assert again.communicate()[1] == "" and again.returncode == 0
    (left,) = offline_runs(folder)
    assert [line["step"] for line in left.history] == list(range(13))


def test_wandbs_process_that_dies_after_the_last_step_is_said_of_at_the_end(tmp_path):
    code = "with begin() as logger:\n logger.log(row(1)); os.kill(service(), signal.SIGKILL); time.sleep(0.5)"
    running = process(tmp_path / "run", code)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 0 and err == ""
    (said,) = re.findall(r"^wandb .*", out, re.MULTILINE)
    assert re.match(rf"wandb did not finish \({GONE}\)\. metrics\.jsonl has every step\.", said)


def test_wandbs_process_that_hangs_holds_up_one_step_and_the_end_for_a_while(tmp_path):
    """Rows go into the connection's buffers until these are full; the interpreter's exit does not wait either."""
    code = (
        "wandb_run.STEP_SECONDS = 2\n"
        "with begin() as logger:\n"
        " print('service', pid := service(), flush=True)\n"
        " os.kill(pid, signal.SIGSTOP)\n"
        " for step in range(2, 60): logger.log(row(step, **{f'policy/{i}': 0.1 for i in range(3000)}))"
    )
    running = process(tmp_path / "run", code)
    service = service_in(running)
    try:
        assert running.wait(timeout=60) == 0
    finally:
        os.kill(service, signal.SIGKILL)
    out, err = running.communicate()
    assert out.count("(TimeoutError: no answer within 2 s). Training goes on") == 1 and err == ""
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 58


def test_a_resumed_run_whose_server_falls_silent_is_to_be_resumed_once_more(tmp_path, server, monkeypatch):
    """`wandb sync` would send the server a second time what it has of this part."""
    monkeypatch.setattr("grpo.logs.wandb_start.FINISH_SECONDS", 3)
    said, begin = [], dict(project="grpo-tests", group=None, config={})
    first = WandbRun(tmp_path / "run", "online", **begin, say=said.append)
    first.log({"step": 0})
    first.finish(1)
    time.sleep(1)
    second = WandbRun(tmp_path / "run", "online", **begin, rows=[{"step": 0}], say=said.append)
    server.silent.set()
    second.log({"step": 1})
    second.finish(0)
    assert len(said) == 1 and said[0].endswith("To send wandb what is missing, continue this run by --resume.")
    server.silent.clear()
    time.sleep(1)
    third = WandbRun(tmp_path / "run", "online", **begin, rows=[{"step": 0}, {"step": 1}], say=said.append)
    third.finish(0)
    assert server.steps(first.id) == [0, 1] and len(said) == 1


@pytest.mark.parametrize("error", [TypeError("no such cell"), wandb.Error("gone"), SystemExit(1)])
def test_whatever_wandb_raises_is_said_once(tmp_path, monkeypatch, error):
    said, calls = [], []
    run = WandbRun(tmp_path / "run", "offline", project="grpo-tests", group=None, config={}, say=said.append)
    run.log({"step": 0})

    def fail(*_, **__):
        calls.append(1)
        raise error

    monkeypatch.setattr(run.run, "log", fail)
    for step in (1, 2, 3):
        run.log({"step": step})
    run.finish(0)
    assert len(said) == len(calls) == 1 and f"wandb stopped at step 1 ({type(error).__name__}: {error})" in said[0]
    (left,) = offline_runs(tmp_path / "run")
    assert [line["step"] for line in left.history] == [0] and left.exit_code == 0


def test_without_a_listener_it_is_said_on_stderr(tmp_path, monkeypatch, capsys):
    run = WandbRun(tmp_path / "run", "offline", project="grpo-tests", group=None, config={})
    monkeypatch.setattr(run.run, "log", lambda *_, **__: 1 / 0)
    run.log({"step": 1})
    run.finish(0)
    assert "wandb stopped at step 1 (ZeroDivisionError: division by zero)" in capsys.readouterr().err
