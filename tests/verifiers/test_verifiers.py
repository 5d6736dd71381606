"""grpo/verifiers: real worker processes, hostile calls of every class, and every way to plug a verifier in."""

import gc
import json
import logging
import math
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import weakref
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo.errors import UserError
from grpo.records import Group, Problem, Rollout
from grpo.verifiers.cases import perturbed
from grpo.verifiers.check import counted, main
from grpo.verifiers.verify import Outcome, Verifiers, check_specs

HOSTILE = str(Path(__file__).parent / "hostile_verifiers.py")
LIMIT = 0.5
nan = math.nan


def rollout(text: str, tokens=(), truncated=False) -> Rollout:
    return Rollout(tokens=tuple(tokens), logprobs=(), text=text, truncated=truncated)


def group(texts, prompt="What is 1?", **columns) -> Group:
    return Group(Problem(prompt, (), {"answer": "1", **columns}), tuple(rollout(text) for text in texts))


@pytest.fixture
def file(tmp_path):
    """Write a verifier's file; returns its path."""

    def write(source: str, name: str = "mine.py") -> str:
        (tmp_path / name).write_text(textwrap.dedent(source))
        return str(tmp_path / name)

    return write


def rewards_of(specs, groups, **options):
    with Verifiers(specs, **({"workers": 1, "time_limit": 10.0} | options)) as verifiers:
        return verifiers(groups)


def same(tensor, expected) -> bool:
    return torch.equal(tensor.nan_to_num(nan=-9.0), torch.tensor(expected).nan_to_num(nan=-9.0))


def processes(text: str) -> list[int]:
    """Ids of the processes, zombies left out, whose command line contains a text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # it has ended meanwhile
            continue
    return found


def own(ids: list[int]) -> set[int]:
    """Those that are children of this process: other runs on the machine have verifiers as well."""
    children = set()
    for number in ids:
        try:
            parent = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1]
        except OSError:  # it has ended meanwhile
            continue
        children |= {number} if int(parent) == os.getpid() else set()
    return children


def gone(text: str, seconds: float = 3.0) -> bool:
    deadline = time.monotonic() + seconds
    while processes(text) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not processes(text)


# ---------------------------------------------------------------------------------------------- hostile processes


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


@pytest.fixture(scope="module")
def hostile():
    """One pool for all hostile calls: each finds what the ones before it left."""
    with Verifiers([HOSTILE], workers=2, time_limit=LIMIT, memory_limit=64) as verifiers:
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
def test_a_hostile_call_scores_0_and_costs_no_other(hostile, kind):
    for _ in range(3):  # the clock is that of a machine on which others may have the cores
        started = time.monotonic()
        rewards = hostile([group(["1", kind, "2", "1"]), group(["2", "1", "1", "2"])])
        elapsed = time.monotonic() - started
        assert rewards.total.tolist() == [[1, 0, 0, 1], [0, 1, 1, 0]]
        assert rewards.timeouts == {"hostile_verifiers": int(kind in TIMEOUTS)}
        assert rewards.errors == {"hostile_verifiers": int(kind in ERRORS)}
        if elapsed < LIMIT + 0.5:
            break
    assert elapsed < LIMIT + 0.5


@pytest.mark.parametrize("kind", [*TIMEOUTS, *ERRORS])
def test_the_message_says_what_happened(hostile, kind):
    expected = ERRORS.get(kind, f"it took longer than the time limit of {LIMIT:g} s")
    outcome = hostile.outcomes([group(["1", kind, "1"])])["hostile_verifiers"][1]
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


def test_a_verifier_that_keeps_memory_finds_the_same_allowance_again_and_again(file):
    with Verifiers([f"{HOSTILE}:keep_memory"], workers=1, time_limit=10.0, memory_limit=30) as verifiers:
        rewards = verifiers([group(list("abcdef"))])
    assert rewards.errors == {"hostile_verifiers.keep_memory": 0}
    assert rewards.total.tolist() == [[1, 2, 1, 2, 1, 2]]  # 10 MiB a call: replaced once half of 30 is gone


def test_every_call_starts_from_level_ground():
    """Recursion limit, random state, alarms and printed output of one call are nothing to the next."""
    texts = [f"{i}" for i in range(20)]
    [found] = rewards_of([f"{HOSTILE}:leave_things_behind"], [group(texts)]).total.tolist()
    [backwards] = rewards_of([f"{HOSTILE}:leave_things_behind"], [group(texts[::-1])], workers=2).total.tolist()
    assert found == backwards[::-1]


def test_nothing_is_printed(capfd):
    rewards = rewards_of([f"{HOSTILE}:noisy"], [group(["a", "b"])])
    assert rewards.total.tolist() == [[1, 1]]
    assert capfd.readouterr() == ("", "")


def test_a_worker_imports_only_what_verifiers_need():
    assert rewards_of([f"{HOSTILE}:imported"], [group(["a"])]).total.tolist() == [[1]]


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


def test_a_verifier_may_import_files_beside_it(file):
    file("from . import _deeper\nx = _deeper.x\n", "_helper.py")
    file("x = 0.75\n", "_deeper.py")
    spec = file("""
        from ._helper import x
        def reward(response):
            from . import _later
            return x + _later.x
    """)
    file("x = 1.0\n", "_later.py")
    assert rewards_of([spec], [group(["a"])]).total.tolist() == [[1.75]]


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


def test_leaving_without_close_ends_the_workers(tmp_path):
    process, marker = start_script(tmp_path, "verifiers.submit(groups[1].problem, groups[1].rollouts[1])")
    _, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr) == (0, "")
    assert gone(marker)


# ------------------------------------------------------------------------------------------ rewards, order, caching


def test_weights_and_parts_and_none(file):
    spec = file("""
        def length(response):
            return len(response)
        def if_short(response):
            return None if len(response) > 2 else True
    """)
    rewards = rewards_of([f"{spec}:length=0.5", f"{spec}:if_short=-2"], [group(["", "a"]), group(["bb", "ccc"])])
    assert list(rewards.by_verifier) == ["mine.length", "mine.if_short"]
    assert rewards.by_verifier["mine.length"].tolist() == [[0, 1], [2, 3]]
    assert same(rewards.by_verifier["mine.if_short"], [[1, 1], [1, nan]])
    assert rewards.total.tolist() == [[-2, -1.5], [-1, 1.5]]
    assert rewards.total.dtype == rewards.by_verifier["mine.if_short"].dtype == torch.float32
    assert rewards.errors == rewards.timeouts == {"mine.length": 0, "mine.if_short": 0}


def test_every_parameter_of_the_contract(file):
    spec = file("""
        def reward(response, tokens, truncated, prompt, answer, size, *, unused="default", **rest):
            found = (response, tokens, truncated, prompt, answer, size, unused, rest)
            expected = ("ab", (3, 4), True, "What is 1?", "1", 7, "default", {"other": [1, 2]})
            return found == expected
    """)
    problem = Problem("What is 1?", (9,), {"answer": "1", "size": 7, "other": [1, 2]})
    assert rewards_of([spec], [Group(problem, (rollout("ab", (3, 4), True),))]).total.tolist() == [[1]]


def test_a_default_yields_to_a_column(file):
    spec = file("def reward(response, scale=3.0):\n    return scale\n")
    without, given_ = group(["a"]), group(["a"], scale=5.0)
    assert rewards_of([spec], [without, given_]).total.tolist() == [[3], [5]]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_number_of_workers_changes_nothing(workers):
    groups = [group([["1", f"{i}", "raise_an_error", f"{i % 7}"][j] for j in range(4)]) for i in range(40)]
    rewards = rewards_of([HOSTILE, f"{HOSTILE}:leave_things_behind"], groups, workers=workers)
    expected = [[1.0, float(i == 1), 0.0, float(i % 7 == 1)] for i in range(40)]
    assert rewards.by_verifier["hostile_verifiers"].tolist() == expected
    assert rewards.errors["hostile_verifiers"] == 40
    fingerprint = rewards.by_verifier["hostile_verifiers.leave_things_behind"].double().sum().item()
    known = test_the_number_of_workers_changes_nothing.__dict__.setdefault("fingerprint", fingerprint)
    assert fingerprint == known > 0


def test_equal_calls_of_a_step_are_made_once_and_forgotten_after_it(tmp_path):
    log = tmp_path / "log"
    groups = [group(["a", "b", "a"], path=str(log)), group(["a", "a", "c"], path=str(log))]
    with Verifiers([f"{HOSTILE}:write_it_down"], workers=2, time_limit=10.0) as verifiers:
        assert verifiers(groups).total.tolist() == [[1, 1, 1]] * 2
        assert sorted(log.read_text().split()) == ["a", "b", "c"]
        verifiers(groups)
        assert sorted(log.read_text().split()) == ["a", "a", "b", "b", "c", "c"]
        released = weakref.ref(groups[0].rollouts[0])
        del groups
        gc.collect()
        assert released() is None


def test_submitted_responses_are_verified_while_others_are_generated(file):
    spec = file("import time\ndef reward(response):\n    time.sleep(0.3)\n    return float(response)\n")
    with Verifiers([spec], workers=2, time_limit=10.0) as verifiers:
        verifiers([group(["0"])])
        groups = [group(["1", "2"]), group(["3", "4"])]
        started = time.monotonic()
        for each in groups:
            for response in each.rollouts:
                verifiers.submit(each.problem, response)
        assert time.monotonic() - started < 0.1
        time.sleep(0.9)  # generation goes on: two rounds of 0.3 s for two workers
        started = time.monotonic()
        assert verifiers(groups[::-1]).total.tolist() == [[3, 4], [1, 2]]
        assert time.monotonic() - started < 0.2


def test_what_was_submitted_for_nothing_does_not_disturb(hostile):
    stray = group(["raise_an_error", "hang"])
    for each in stray.rollouts:
        hostile.submit(stray.problem, each)
    rewards = hostile([group(["1", "2", "1"])])
    assert rewards.total.tolist() == [[1, 0, 1]]
    assert rewards.errors == rewards.timeouts == {"hostile_verifiers": 0}


def test_no_groups_and_ragged_groups(hostile):
    assert hostile([]).total.shape == (0, 0)
    with pytest.raises(ValueError, match=r"same number of responses, but have \[1, 2\]"):
        hostile([group(["1", "2"]), group(["1"])])


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    path = tmp_path_factory.mktemp("reader") / "reader.py"
    path.write_text(
        "def reward(response, number):\n    return number if number is not None else sum(map(ord, response))\n"
    )
    with Verifiers([str(path)], workers=1) as verifiers:
        yield verifiers


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(codec=None, exclude_categories=()), max_size=50))
def test_any_text_arrives_as_it_is(reader, text):
    """NUL bytes, surrogates, bidirectional marks: the worker reads what the trainer holds."""
    assert reader([group([text], number=None)]).total.tolist() == [[sum(map(ord, text))]]


@settings(max_examples=100, deadline=None)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False) | st.booleans() | st.integers(-1000, 1000))
def test_any_number_comes_back_as_it_is(reader, number):
    assert reader([group(["a"], number=number)]).total.tolist() == [[float(number)]]


def test_a_response_of_a_million_characters(reader):
    text = "\0" + "9" * 1_000_000
    assert reader([group([text, text[1:]], number=None)]).total.tolist() == [[57e6, 57e6]]


# ------------------------------------------------------------------------------------ batch, async, TRL, other kinds


def test_a_batch_verifier_gets_the_whole_step(file):
    spec = file("""
        def reward(responses, prompts, truncated, tokens, answer):
            longest = max(map(len, responses))
            return [None if r == "" else len(r) / longest + 10 * (r == a) for r, a in zip(responses, answer)]
    """)
    rewards = rewards_of([spec], [group(["1", "22"]), group(["", "4444"])])
    assert same(rewards.total, [[10.25, 0.5], [0, 1]])
    assert same(rewards.by_verifier["mine"], [[10.25, 0.5], [nan, 1]])


def test_a_batch_may_come_back_as_an_array(file):
    spec = file("import numpy\ndef reward(responses):\n    return numpy.arange(len(responses)) / 4\n")
    assert rewards_of([spec], [group(["a", "b"])]).total.tolist() == [[0, 0.25]]


def test_a_failing_batch_counts_every_response(file):
    spec = file("def reward(responses):\n    return [1 / 0]\n")
    rewards = rewards_of([spec, HOSTILE], [group(["1", "2"])], max_failure_share=1.0)
    assert rewards.total.tolist() == [[1, 0]]
    assert rewards.errors == {"mine": 2, "hostile_verifiers": 0}


def test_async_verifiers(file):
    spec = file("""
        import asyncio
        async def one(response):
            await asyncio.sleep(0.001)
            return len(response)
        async def all(responses):
            return await asyncio.gather(*map(one, responses))
    """)
    rewards = rewards_of([f"{spec}:one", f"{spec}:all"], [group(["a", "bb"])])
    assert [part.tolist() for part in rewards.by_verifier.values()] == [[[1, 2]], [[1, 2]]]


def test_callable_objects_and_modules(file, tmp_path, monkeypatch):
    file(
        """
        from functools import partial
        def scaled(response, scale):
            return scale * len(response)
        doubled = partial(scaled, scale=2)
        class Counter:
            def __call__(self, response, answer):
                return response.count(answer)
        counter = Counter()
        """,
        "my_graders.py",
    )
    monkeypatch.syspath_prepend(tmp_path)
    specs = ["my_graders:doubled", "my_graders:counter=10"]
    check_specs(specs, ["answer"])
    assert rewards_of(specs, [group(["1", "211"])]).total.tolist() == [[12, 26]]


TRL = """
def accuracy(prompts, completions, answer, **kwargs):
    assert set(kwargs) == {"completion_ids", "level"}, kwargs
    assert all(isinstance(completion, str) for completion in completions)
    return [1.0 if a in c else None for c, a in zip(completions, answer)]

def chat(completions, prompts, **kwargs):
    assert prompts[0] == [{"role": "user", "content": "What is 1?"}]
    assert all([m["role"] for m in completion] == ["assistant"] for completion in completions)
    return [float(len(completion[0]["content"])) for completion in completions]

async def ids(completion_ids, **kwargs):
    return [float(sum(each)) for each in completion_ids]
"""


def test_reward_functions_written_for_trl(file):
    spec = file(TRL, "theirs.py")
    text = [group(["1", "2"], level=3, prompt="a column that TRL keeps to itself")]
    text = [Group(Problem("What is 1?", (), each.problem.columns), each.rollouts) for each in text]
    rewards = rewards_of([f"trl:{spec}:accuracy=2"], text)
    assert same(rewards.by_verifier["theirs.accuracy"], [[1, nan]])
    assert rewards.total.tolist() == [[2, 0]]
    problem = Problem([{"role": "user", "content": "What is 1?"}], (), {})
    rollouts = (rollout("abc", (1, 2)), rollout("d", (5,)))
    rewards = rewards_of([f"trl:{spec}:chat", f"trl:{spec}:ids"], [Group(problem, rollouts)])
    assert rewards.by_verifier["theirs.chat"].tolist() == [[3, 1]]
    assert rewards.by_verifier["theirs.ids"].tolist() == [[3, 5]]


def test_prepare_runs_in_the_workers_before_the_clock(file):
    spec = file("""
        import time
        model = None
        def prepare():
            global model
            time.sleep(0.6)
            model = bytearray(200 << 20)
        def reward(response):
            return len(model) >> 20
    """)
    rewards = rewards_of([spec], [group(["a"])], time_limit=0.5, memory_limit=100)
    assert rewards.total.tolist() == [[200]]


# ------------------------------------------------------------------------------------------------- what users are told


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("'yes'", r"returned 'yes' of type str, which is not a finite number or None"),
        ("float('nan')", "returned nan of type float"),
        ("float('-inf')", "returned -inf of type float"),
        ("1e39", r"returned 1e\+39 of type float"),
        ("10 ** 400", r"returned 10{79}\.\.\. of type int"),
        ("10 ** 5000", r"returned something that cannot be shown \(ValueError\) of type int"),
        ("1 + 0j", r"returned \(1\+0j\) of type complex"),
        ("[1.0]", r"returned \[1\.0\] of type list"),
        ("{}", "returned {} of type dict"),
    ],
)
def test_a_wrong_return_says_what_came_back(file, body, said):
    spec = file(f"def reward(response):\n    return {body}\n")
    with pytest.raises(UserError, match=f"verifier 'mine' {said}.*A verifier returns a finite number"):
        rewards_of([spec], [group(["a"])])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("1.0", "returned 1.0 of type float, not a list of 2 rewards"),
        ("None", "returned None of type NoneType, not a list of 2 rewards"),
        ("'ab'", "returned 'ab' of type str, not a list of 2 rewards"),
        ("[1.0]", "returned 1 rewards for 2 responses"),
        ("[1.0, 'x']", "returned 'x' of type str, which is not a finite number or None"),
        ("[1.0, float('nan')]", "returned nan of type float"),
    ],
)
def test_a_wrong_return_of_a_batch_says_what_came_back(file, body, said):
    spec = file(f"def reward(responses):\n    return {body}\n")
    with pytest.raises(UserError, match=f"verifier 'mine' {said}.*a batch verifier returns a list of these"):
        rewards_of([spec], [group(["a", "b"])])


def test_failing_on_most_of_a_step_ends_the_run(file):
    with pytest.raises(UserError) as error:
        rewards_of([HOSTILE], [group(["raise_an_error", "1", "fork_once", "raise_an_error"])])
    said = str(error.value)
    assert "verifier 'hostile_verifiers' failed on at least 3 of 4 responses of this step (75%: 3 errors" in said
    assert "at most 50% may fail" in said
    assert "Most often: RuntimeError: no such luck" in said
    assert "Mend the verifier, trying it with `python -m grpo.verifiers`, or raise its limits" in said


def test_a_lost_step_ends_before_all_its_time_outs(file):
    texts = [f"{i}" for i in range(50)]
    spec = file("import time\ndef reward(response):\n    time.sleep(1000)\n")
    started = time.monotonic()
    with pytest.raises(UserError, match=r"failed on at least \d+ of 50 .* time-outs"):
        rewards_of([spec], [group(texts)], workers=2, time_limit=0.2, max_failure_share=0.1)
    assert time.monotonic() - started < 5.0


def test_a_share_that_may_fail_is_not_exceeded_by_it(file):
    rewards = rewards_of([HOSTILE], [group(["raise_an_error", "1"])], max_failure_share=0.5)
    assert rewards.errors == {"hostile_verifiers": 1}


def test_each_message_is_shown_once(caplog, file):
    spec = file("def reward(response):\n    raise ValueError(response)\n")
    with caplog.at_level(logging.WARNING, "grpo.verifiers"):
        with Verifiers([HOSTILE], workers=1, max_failure_share=1.0) as verifiers:
            for _ in range(2):
                verifiers([group(["raise_an_error", "raise_an_error", "fork_once", "1"])])
    shown = [record.getMessage() for record in caplog.records]
    assert len(shown) == 2
    assert shown[0].startswith("verifier 'hostile_verifiers' failed: RuntimeError: no such luck (hostile_verifiers.py")
    assert shown[0].endswith("Scored 0; the response begins 'raise_an_error'.")
    caplog.clear()
    rewards_of([spec], [group([f"{i}" for i in range(30)])], max_failure_share=1.0)
    assert len(caplog.records) == 20
    assert caplog.records[-1].getMessage().endswith("Further messages of this verifier are not shown.")


@pytest.mark.parametrize(
    ("specs", "said"),
    [
        ([], "no verifier is given"),
        (["nowhere"], "'nowhere' is neither a built-in of rewards/"),
        (["./nowhere.py"], "there is no file"),
        ([f"{HOSTILE}=heavy"], "does not end in a weight"),
        ([f"{HOSTILE}:nothing"], "defines no function 'nothing'"),
        ([HOSTILE, f"{HOSTILE}=2"], "would both be logged as 'hostile_verifiers'"),
    ],
)
def test_what_check_specs_refuses(specs, said):
    with pytest.raises(UserError, match=said):
        check_specs(specs, ["answer"])
    with pytest.raises(UserError, match=said):
        Verifiers(specs)


@pytest.mark.parametrize("name", ["mean", "errors", "timeouts"])
def test_a_verifier_may_not_pass_for_a_metric(file, name):
    with pytest.raises(UserError, match=rf"would be logged as reward/{name}, which is a metric of its own"):
        check_specs([file("def reward(response):\n    return 1.0\n", f"{name}.py")], [])


def test_check_specs_knows_parameters_and_columns(file):
    spec = file("""
        def reward(response, solution, level=1):
            return 1.0
        def grade(responses, response):
            return responses
        def slash(response, /):
            return 1.0
        def loads(response):
            return 1.0
    """)
    theirs = file("def f(completions, trainer_state, **kwargs):\n    return 1.0\n", "theirs.py")
    check_specs([spec, HOSTILE], ["solution", "answer"])
    with pytest.raises(UserError) as error:
        check_specs([f"{spec}=0.5"], ["problem", "answer"])
    assert str(error.value) == (
        f"verifier '{spec}=0.5' requires 'solution', which is not a column of the data. The columns are: problem, "
        "answer; the response gives: response, tokens, truncated, prompt. Rename the parameter, give it a default, or "
        "map a column of the data to that name."
    )
    with pytest.raises(UserError, match=r"requires 'response', which is.*gives: responses, prompts, tokens"):
        check_specs([f"{spec}:grade"], ["answer"])
    with pytest.raises(UserError, match=r"takes response by position only.*Remove the '/'"):
        check_specs([f"{spec}:slash"], ["answer"])
    with pytest.raises(UserError, match=r"requires 'trainer_state'.*gives: prompts, completions, completion_ids"):
        check_specs([f"trl:{theirs}:f"], ["answer"])


def test_a_row_without_the_column(file):
    spec = file("def reward(responses, level):\n    return level\n")
    with Verifiers([HOSTILE, spec]) as verifiers:
        bare = Group(Problem("", (), {}), (rollout("a"),))
        with pytest.raises(
            UserError, match=r"requires 'answer', which is not a column of the data. The columns are: none"
        ):
            verifiers.submit(bare.problem, bare.rollouts[0])
    spec = file("def reward(responses, level=0):\n    return level\n", "optional.py")
    with pytest.raises(UserError, match="only some rows of the data have a column 'level'"):
        rewards_of([spec], [group(["a"], level=1), group(["a"])])


def test_a_column_that_does_not_pickle():
    with pytest.raises(UserError, match=r"cannot be given its arguments, response, answer: a value does not pickle"):
        rewards_of([HOSTILE], [group(["a"], answer=lambda: None)])


@pytest.mark.parametrize(
    "wrong", [{"workers": 0}, {"time_limit": 0.0}, {"memory_limit": -1}, {"max_failure_share": 1.5}]
)
def test_numbers_out_of_range(wrong):
    with pytest.raises(UserError, match="verifiers need at least one worker"):
        Verifiers([HOSTILE], **wrong)


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
        if "grpo.verifiers" not in sys.modules:
            {in_worker}
        def reward(response):
            return 1.0
    """)
    with pytest.raises(UserError, match=said):
        rewards_of([spec], [group(["a"])])


# ----------------------------------------------------------------------------------------- python -m grpo.verifiers


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        ("7", "8"),
        ("9", "0"),
        ("1,999", "1,990"),
        ("3.14", "3.15"),
        (r"\frac{1}{2}", r"\frac{1}{3}"),
        ("(B)", "(A)"),
        (r"\text{A}", r"\text{B}"),
        (r"\pi", r"-(\pi) - 7"),
        (r"\infty", r"-(\infty) - 7"),
        ("Monday", "-(Monday) - 7"),
    ],
)
def test_perturbed(answer, wrong):
    assert perturbed(answer) == wrong


@given(st.text(max_size=8), st.lists(st.text("0123456789", max_size=1)))
def test_a_perturbed_answer_is_never_admissible(answer, others):
    assert perturbed(answer, [answer, *others]) not in (answer, *others)


def test_perturbed_avoids_the_other_admissible_answers():
    assert perturbed("1", ["1", "2", "3"]) == "4"


def test_counted():
    def case(label, reward, failure=None):
        return {"label": label}, "", Outcome(reward, 0.0, failure)

    cases = [case(True, 1.0), case(True, 0.5), case(True, 0.4), case(True, 0.0, "timeout"), case(True, None)]
    cases += [case(False, 0.0), case(False, 0.0, "error"), case(False, 1.0)]
    right, wrong, accuracy = "50.0% (2/4)", "33.3% (1/3)", "57.1% (4/7)"
    assert counted(cases) == ["8", accuracy, wrong, right, "1", "1", "1"]


@pytest.fixture
def check(tmp_path, capsys):
    """Run the command with a verifier of the test's own; returns its exit status, its output and its errors."""

    def run(verifier: str, *arguments: str, **files: list[dict]) -> tuple[int, str, str]:
        for name, rows in files.items():
            path = tmp_path / f"{name}.jsonl"
            path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
            arguments = (*arguments, f"--{name}", str(path))
        folder = Path(tempfile.mkdtemp(dir=tmp_path))  # a path of its own: a file is loaded once
        (folder / "mine.py").write_text(verifier)
        try:
            main(["--reward", str(folder / "mine.py"), "--workers", "1", *arguments])
            status = 0
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run


BOXED = """
def reward(response, answer):
    answers = answer if isinstance(answer, list) else [answer]
    return any(response == "\\\\boxed{" + each + "}" for each in answers)
"""
DATA = [{"problem": "1+1?", "answer": "2"}, {"problem": "a half?", "answer": ["1/2", "0.5"]}]


def test_check_gold_answers(check):
    status, output, _ = check(BOXED, data=DATA)
    assert status == 0
    assert "│ mine     │ 3            │ 3       │ 3         │ 3     │" in output


def test_check_gold_answers_that_fail(check):
    status, output, _ = check("def reward(response, answer):\n    return '5' in response\n", data=DATA)
    assert status == 1
    assert "│ mine     │ 3            │ 1       │ 3         │ 3     │" in output
    assert r"mine: a gold answer gets 0: '\\boxed{2}', gold '2'" in output
    assert "Gold answers do not all get 1.0" in output
    status, output, _ = check("def reward(response):\n    return None\n", data=DATA)
    assert status == 1  # nothing was rewarded
    status, output, _ = check("def reward(response):\n    return 1.0\n", data=DATA)
    assert status == 0
    assert r"mine: a perturbed answer gets 1: '\\boxed{3}', gold '2'" in output


def test_check_another_template_and_column(check):
    verifier = "def reward(response, solution):\n    return response == f'#### {solution}'\n"
    status, _, _ = check(verifier, "--template", "#### ANSWER", "--gold", "solution", data=[{"solution": 3}])
    assert status == 0


def test_check_labelled_responses(check):
    rows = [
        {"response": r"\boxed{2}", "answer": "2", "label": True, "track": "boxed"},
        {"response": r"\boxed{3}", "answer": "2", "label": True, "track": "boxed"},
        {"response": "[red]2", "answer": "2", "label": False, "track": "free"},
        {"response": "crash", "answer": "2", "label": False, "track": "free"},
    ]
    verifier = BOXED.replace("    return any", "    if response == 'crash':\n        1 / 0\n    return any")
    status, output, _ = check(verifier, labelled=rows)
    assert status == 0
    lines = [[cell.strip() for cell in line.split("│")] for line in output.splitlines() if line.startswith("│ mine")]
    assert lines[0][1:-1] == ["mine", "boxed", "2", "50.0% (1/2)", "-", "50.0% (1/2)", "0", "0", "0"]
    assert lines[1][1:-1] == ["mine", "free", "2", "100.0% (2/2)", "0.0% (0/2)", "-", "0", "1", "0"]
    assert lines[2][1:-1] == ["mine", "all", "4", "75.0% (3/4)", "0.0% (0/2)", "50.0% (1/2)", "0", "1", "0"]
    assert len(lines[3]) == 7 and all(float(cell) > 0 for cell in lines[3][2:-1])  # p50, p90, p99, max
    assert r"mine: a right response gets 0: '\\boxed{3}', gold '2'" in output
    assert "4 in " in output and " a second" in output


@pytest.mark.parametrize(
    ("arguments", "files", "said"),
    [
        ((), {}, "nothing to check"),
        (("--data", "nowhere.jsonl"), {}, "nowhere.jsonl cannot be read"),
        ((), {"data": [{"problem": "1+1?"}]}, "line 1 is not a row with answer (it lacks answer; it has: problem)"),
        ((), {"data": [{"answer": "2"}, [1]]}, "line 2 is a list, not a row with answer"),
        (
            (),
            {"labelled": [{"response": "2", "answer": "2"}]},
            "line 1 is not a row with response and label (it lacks label; it has: response, answer)",
        ),
        ((), {"labelled": [{"response": "2", "answer": "2", "label": "yes"}]}, "label must be true or false"),
        ((), {"labelled": [{"response": "2", "label": True}]}, "requires 'answer'"),
        ((), {"data": []}, "has no rows"),
    ],
)
def test_check_says_what_is_wrong_with_the_input(check, arguments, files, said):
    status, _, errors = check(BOXED, *arguments, **files)
    assert status == 2
    assert errors.startswith("error: ") and said in errors


def test_check_says_which_line_is_not_json(check, tmp_path):
    (tmp_path / "torn.jsonl").write_text('{"answer": "2"}\n{"answer": \n')
    status, _, errors = check(BOXED, "--data", str(tmp_path / "torn.jsonl"))
    assert status == 2
    assert "torn.jsonl, line 2 is not JSON" in errors


@pytest.mark.slow
def test_the_command_itself(file, tmp_path):
    (tmp_path / "data.jsonl").write_text(json.dumps(DATA[0]))
    command = [sys.executable, "-m", "grpo.verifiers", "--reward", file(BOXED), "--data", str(tmp_path / "data.jsonl")]
    assert subprocess.run(command, stdout=subprocess.DEVNULL).returncode == 0
