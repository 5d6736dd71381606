"""A system without fcntl, resource or Unix's signals: --help answers, and a run ends in one paragraph."""

import json
import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT
from synthetic_runs import row, write_run
from test_early import COMMANDS

from grpo.errors import UserError
from grpo.unix import check_unix, unix_module

WORK = {
    "train": ["--algo", "dr_grpo"],
    "doctor": [],
    "evaluate": ["--data", "arithmetic", "--out", "found"],
    "dpo": ["--data", "pairs.jsonl"],
    "reward_model": ["--data", "pairs.jsonl"],
    "verifiers": ["--reward", "exact", "--data", "arithmetic"],
}
ELSEWHERE = {"windows": ["fcntl", "resource", "SIGHUP", "SIGKILL"], "no_lock": ["fcntl"], "no_signal": ["SIGKILL"]}


def answers_where(lacking, folder, cases):
    """(exit status, what it printed) of each command, in a process that lacks these modules and signals."""
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "without_libraries.py", *lacking],
        input=json.dumps([(f"grpo.{command}", flags) for command, flags in cases]),
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "p", "chosen": "a", "rejected": "b"}\n' * 20)
    write_run(tmp_path / "runs" / "grpo", [row(1, 0.5, (1, 1), (2, 1))])
    return tmp_path


def test_help_is_there_on_a_system_that_lacks_all_of_it(folder):
    found = answers_where(ELSEWHERE["windows"], folder, [(command, ["--help"]) for command in COMMANDS])
    for command, (status, text) in zip(COMMANDS, found, strict=True):
        assert status == 0 and f"usage: python -m grpo.{command}" in text, text


@pytest.mark.parametrize("lacking", ELSEWHERE.values(), ids=ELSEWHERE)
def test_a_command_that_works_ends_in_one_paragraph_before_a_large_library(folder, lacking):
    for command, (status, text) in zip(WORK, answers_where(lacking, folder, WORK.items()), strict=True):
        assert status == 2, f"{command}: {text}"
        assert text.startswith(f"error: This system ({sys.platform}) lacks "), text
        assert lacking[0] in text and "WSL 2" in text and text.count("\n") == 1, text
    assert not (folder / "found").exists() and os.listdir(folder / "runs") == ["grpo"]  # nothing was begun


def test_a_mistake_in_the_flags_is_said_first(folder):
    ((status, text),) = answers_where(ELSEWHERE["windows"], folder, [("train", ["--temperature", "0"])])
    assert status == 2 and "--temperature 0.0 must be more than 0" in text


def test_what_only_computes_goes_on_to_its_libraries(folder):
    """They are not refused: what ends them here is the large library that this process has not."""
    cases = [("explain", ["grpo"]), ("compare", ["runs/grpo"]), ("replay", ["pairs.jsonl"])]
    for status, text in answers_where(ELSEWHERE["windows"], folder, cases):
        assert status == 1 and "was imported too early" in text, text


def test_explain_computes_where_fcntl_resource_and_the_signals_are_missing(tmp_path):
    """In a process of its own, with torch and matplotlib."""
    (tmp_path / "sitecustomize.py").write_text(
        "import asyncio, signal, sys\n"  # on Unix asyncio needs fcntl itself
        "sys.modules['fcntl'] = sys.modules['resource'] = None\n"
        "del signal.SIGHUP, signal.SIGKILL\n"
    )
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    code = "import grpo.interrupts as i, grpo.folders, grpo.evaluation.asked, grpo.verifiers.pool, grpo.logs.metrics"
    code += "\nwith i.interruptible(): print(len(i.UNLESS_IGNORED))"
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
    command = [sys.executable, "-m", "grpo.explain", "grpo", "dr_grpo"]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "dr_grpo" in done.stdout, done.stderr


def test_a_module_is_that_of_python_and_a_missing_one_is_named(monkeypatch):
    import resource

    check_unix()
    assert unix_module("resource") is resource
    monkeypatch.setitem(sys.modules, "resource", None)
    with pytest.raises(UserError, match=r"lacks Python's module 'resource'.*WSL 2.*Linux container"):
        check_unix()


def test_a_missing_signal_is_named(monkeypatch):
    monkeypatch.delattr(signal, "SIGHUP")
    with pytest.raises(UserError, match="lacks the signal SIGHUP"):
        check_unix()
