"""grpo/verifiers/worker.py: what a call finds in its process, and what of its return comes back."""

from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verifier_tools import HOSTILE, group, rewards_of, write_verifier

from grpo.errors import UserError
from grpo.verifiers.verify import Verifiers


@pytest.fixture
def file(tmp_path):
    """Write a verifier's file; returns its path."""
    return partial(write_verifier, tmp_path)


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


def test_what_is_printed_is_shown_once_and_not_without_end(capfd, caplog, file):
    rewards = rewards_of([f"{HOSTILE}:noisy"], [group(["a", "a", "b", "c", "d", "e"])])
    assert rewards.total.tolist() == [[1] * 6]
    assert capfd.readouterr().out == ""
    name = "verifier 'hostile_verifiers.noisy' printed: "
    assert [record.getMessage() for record in caplog.records] == [
        f"{name}out a\nerr a",
        f"{name}out b\nerr b",
        f"{name}out c\nerr c What it prints further is not shown.",
    ]
    caplog.clear()
    spec = file("def reward(response):\n    print('é' * 5000)\n    raise ValueError('no')\n")
    rewards_of([spec], [group(["a"])], max_failure_share=1.0)
    printed, failed = (record.getMessage() for record in caplog.records)
    assert printed == "verifier 'mine' printed: " + "é" * 1000 and "ValueError: no" in failed


def test_a_worker_imports_only_what_verifiers_need():
    assert rewards_of([f"{HOSTILE}:imported"], [group(["a"])]).total.tolist() == [[1]]


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


def test_a_batch_may_come_back_as_an_array(file):
    spec = file("import numpy\ndef reward(responses):\n    return numpy.arange(len(responses)) / 4\n")
    assert rewards_of([spec], [group(["a", "b"])]).total.tolist() == [[0, 0.25]]


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


def test_an_exception_in_a_batch_is_the_failure_of_that_response(file):
    spec = file("""
        def reward(responses):
            return [ValueError("too odd") if r == "odd" else 1.0 for r in responses]
    """)
    rewards = rewards_of([spec], [group(["a", "odd", "c"])])
    assert rewards.total.tolist() == [[1, 0, 1]] and rewards.errors == {"mine": 1}
    with pytest.raises(UserError, match=r"failed on at least 2 of 3 responses.*ValueError: too odd"):
        rewards_of([spec], [group(["odd", "odd", "c"])])
