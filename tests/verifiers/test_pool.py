"""grpo/verifiers/pool.py: hostile calls of every class, on real worker processes and by the clock on the wall."""

import os
import subprocess
import sys
import time
from functools import partial

import pytest
from verifier_tools import HOSTILE, LIMIT, group, rewards_of, write_verifier

from grpo.errors import UserError
from grpo.verifiers.verify import Verifiers


@pytest.fixture
def file(tmp_path):
    """Write a verifier's file; returns its path."""
    return partial(write_verifier, tmp_path)


@pytest.fixture(scope="module")
def hostile():
    """One pool for hostile calls: each finds what the ones before it left."""
    with Verifiers([HOSTILE], workers=2, time_limit=LIMIT, memory_limit=64) as verifiers:
        verifiers([group(["1"])])
        yield verifiers


@pytest.fixture(scope="module")
def patient():
    """Another for those that end by themselves: a busy machine must not end them by the clock."""
    with Verifiers([HOSTILE], workers=2, time_limit=30.0, memory_limit=64) as verifiers:
        verifiers([group(["1"])])
        yield verifiers


TIMEOUTS = [
    "hang",
    "hang_and_catch_everything",
    "hang_in_c",
    "hang_in_arithmetic",
    "hang_with_signals_blocked",
    "stop_itself",
    "await_forever",
    "fork_bomb_that_insists",
]
ERRORS = {
    "memory_at_once": "MemoryError (hostile_verifiers.py, line ",
    "memory_by_and_by": "MemoryError (hostile_verifiers.py, line ",
    "recurse": "RecursionError: maximum recursion depth exceeded",
    "recurse_past_the_stack": "",  # RecursionError or SIGSEGV, as the interpreter has it
    "exit_the_process": "its process exited with status 7",
    "system_exit": "SystemExit: 7",
    "keyboard_interrupt": "KeyboardInterrupt",
    "kill_itself": "its process was ended by signal 9 (Killed)",
    "segmentation_fault": "its process was ended by signal 11 (Segmentation fault)",
    "abort": "its process was ended by signal 6 (Aborted)",
    "real_time_signal": "its process was ended by signal 37",
    "close_all_files": "its process",
    "talk_into_the_wire": "its process",
    "fork_once": "PermissionError: os.fork: a verifier may not start or signal processes",
    "fork_through_c": "PermissionError: ctypes.dlsym: a verifier may not start or signal processes",
    "run_a_shell": "PermissionError: os.system: a verifier may not start or signal processes",
    "kill_the_trainer": "PermissionError: os.kill: a verifier may not start or signal processes",
    "raise_an_error": "RuntimeError: no such luck (hostile_verifiers.py, line ",
    "raise_an_error_that_cannot_be_shown": "Nasty: no message",
    "print_megabytes": "OSError: printed more than 1048576 characters",
    "return_the_unpicklable": "TypeError: cannot pickle '_thread.lock' object",
}


@pytest.mark.parametrize("kind", [*TIMEOUTS, *ERRORS])
def test_a_hostile_call_scores_0_and_costs_no_other(hostile, patient, kind):
    verifiers = hostile if kind in TIMEOUTS else patient
    for _ in range(6):  # the clock is that of a machine on which others may have the cores
        started = time.monotonic()
        rewards = verifiers([group(["1", kind, "2", "1"]), group(["2", "1", "1", "2"])])
        elapsed = time.monotonic() - started
        assert rewards.total.tolist() == [[1, 0, 0, 1], [0, 1, 1, 0]]
        assert rewards.timeouts == {"hostile_verifiers": int(kind in TIMEOUTS)}
        assert rewards.errors == {"hostile_verifiers": int(kind in ERRORS)}
        if kind in ERRORS or elapsed < LIMIT + 0.5:  # what ends by itself takes as long as it takes
            break
    assert kind in ERRORS or elapsed < LIMIT + 0.5


@pytest.mark.parametrize("kind", [*TIMEOUTS, *ERRORS])
def test_the_message_says_what_happened(hostile, patient, kind):
    verifiers = hostile if kind in TIMEOUTS else patient
    expected = ERRORS.get(kind, f"it took longer than the time limit of {LIMIT:g} s")
    outcome = verifiers.outcomes([group(["1", kind, "1"])])["hostile_verifiers"][1]
    assert outcome.message.startswith(expected)


def test_many_hostile_calls_in_a_step(hostile):
    kinds = ["exit_the_process", "hang", "kill_itself", "memory_at_once", "raise_an_error", "close_all_files"]
    groups = [group([kind, "1", "2", "1"]) for kind in kinds]
    rewards = hostile(groups)
    assert rewards.total.tolist() == [[0, 1, 0, 1]] * len(kinds)
    assert (rewards.errors, rewards.timeouts) == ({"hostile_verifiers": 5}, {"hostile_verifiers": 1})


def test_closing_ends_running_calls_at_once(file):
    verifiers = Verifiers([HOSTILE], workers=2, time_limit=60.0)
    verifiers([group(["1"])])
    group_ = group(["hang", "hang_in_c", "1"])
    for each in group_.rollouts:
        verifiers.submit(group_.problem, each)
    time.sleep(0.1)
    started = time.monotonic()
    verifiers.close()
    verifiers.close()
    assert time.monotonic() - started < 1.0
    with pytest.raises(RuntimeError, match="closed"):
        verifiers([group_])


def test_a_call_has_its_time_limit_and_no_more_on_a_machine_with_other_work(file):
    """Processes in plenty compete for the cores; the clock is on the wall all the same."""
    spec = file("import time\ndef reward(response):\n    time.sleep(float(response))\n    return 1.0\n")
    with Verifiers([spec], workers=1, time_limit=1.0, max_failure_share=1.0) as verifiers:
        verifiers([group(["0"])])
        busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * os.cpu_count())]
        try:
            started = time.monotonic()
            rewards = verifiers([group(["100"])])
            elapsed = time.monotonic() - started
        finally:
            for process in busy:
                process.kill()
                process.wait()
    assert (rewards.total.tolist(), rewards.timeouts) == ([[0]], {"mine": 1})
    assert 1.0 <= elapsed < 1.5


@pytest.mark.parametrize(
    ("in_worker", "said"),
    [
        ("1 / 0", "does not load in a worker process: .* failed while loading with ZeroDivisionError"),
        ("raise SystemExit('stop')", "does not load in a worker process: SystemExit: stop"),
        ("print('why', file=sys.stderr, flush=True); os._exit(3)", "exited with status 3. It wrote: why"),
    ],
)
def test_a_verifier_that_loads_here_and_not_there(file, in_worker, said):
    spec = file(f"""
        import os, sys
        if "grpo.verifiers.verify" not in sys.modules:
            {in_worker}
        def reward(response):
            return 1.0
    """)
    with pytest.raises(UserError, match=said):
        rewards_of([spec], [group(["a"])])
