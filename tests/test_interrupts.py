"""Signals become exceptions where a run may end, and wait where it may not."""

import os
import signal
import subprocess
import sys
import threading

import pytest
from conftest import ROOT

from grpo.interrupts import Interrupted, held_back, interruptible, let_through


@pytest.fixture(autouse=True)
def a_terminal_that_tells():
    """The tests themselves may have been started by `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_raised_and_says_which(number):
    with pytest.raises(Interrupted, match=signal.Signals(number).name) as error, interruptible():
        send(number)
    assert error.value.number == number and isinstance(error.value, KeyboardInterrupt)


def test_a_held_back_signal_is_raised_at_the_end_of_the_outermost_block(capfd):
    seen = []
    with pytest.raises(Interrupted), interruptible(), held_back():
        with held_back():
            send()
            seen.append("inner")
        seen.append("outer")
    assert seen == ["inner", "outer"] and "SIGTERM: the step is finished and saved first" in capfd.readouterr().err


def test_a_second_signal_does_not_wait():
    seen = []
    with pytest.raises(Interrupted), interruptible(), held_back():
        send()
        send()
        seen.append("not reached")
    assert seen == []


def test_the_error_of_a_block_is_not_replaced_and_its_signal_not_raised_later():
    with interruptible():
        with pytest.raises(ValueError, match="mine"), held_back():
            send()
            raise ValueError("mine")
        with held_back():
            pass


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with interruptible():
        assert signal.getsignal(signal.SIGTERM) is not before[1]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_another_thread_than_the_main_one_gets_no_signals_and_says_nothing():
    seen = []

    def inside():
        with interruptible(), held_back():
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [before]


IGNORED = """
import os, signal, sys
from grpo.interrupts import Interrupted, interruptible
number = int(sys.argv[1])
try:
    with interruptible():
        os.kill(os.getpid(), number)
except Interrupted:
    sys.exit(7)
"""


@pytest.mark.parametrize("number,status", [(signal.SIGINT, 7), (signal.SIGTERM, 7), (signal.SIGHUP, 0)])
def test_what_the_parent_ignores_is_handled_but_for_nohups(number, status):
    """A script starts a run in its background with SIGINT ignored; `nohup` ignores SIGHUP, which is to stay so."""
    command = [sys.executable, "-c", IGNORED, str(int(number))]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, preexec_fn=lambda: signal.signal(number, signal.SIG_IGN))
    assert done.returncode == status


def test_a_part_of_the_block_may_let_signals_through():
    seen = []
    with pytest.raises(Interrupted), interruptible(), held_back():
        with let_through():
            send()
            seen.append("not reached")
    with pytest.raises(Interrupted) as error, interruptible(), held_back():
        send()
        seen.append("held back")
        with let_through():
            seen.append("not reached")
    assert seen == ["held back"] and not error.value.at_once
    with interruptible(), held_back(), let_through():
        seen.append("quiet")
    assert seen[-1] == "quiet"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's end")
def test_the_end_of_the_parent_is_a_signal():
    child = """
import signal, time
from grpo.interrupts import Interrupted, interruptible, sent_with_the_end_of_parent
try:
    with interruptible():
        sent_with_the_end_of_parent(signal.SIGTERM)
        print("ready", flush=True)
        time.sleep(60)
except Interrupted as error:
    print(error, flush=True)
"""
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout.readline() == "ready\n"
        process.kill()
        assert process.stdout.read() == "SIGTERM\n"
