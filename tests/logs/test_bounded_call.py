"""A call that fails or hangs comes back as what went wrong, in time."""

import threading
import time

import pytest

from grpo.logs.bounded_call import described, within


def test_a_call_that_goes_well_returns_nothing():
    done = []
    assert within(5, lambda: done.append(1)) is None and done == [1]


@pytest.mark.parametrize("kind", [ValueError, ConnectionResetError, SystemExit, KeyboardInterrupt])
def test_what_a_call_raises_is_returned(kind):
    def fail():
        raise kind("gone")

    error = within(5, fail)
    assert type(error) is kind and error.args == ("gone",)


def test_a_call_that_hangs_is_left_behind():
    release = threading.Event()
    start = time.monotonic()
    error = within(0.2, release.wait)
    assert 0.2 <= time.monotonic() - start < 5
    assert isinstance(error, TimeoutError) and str(error) == "no answer within 0.2 s"
    release.set()


def test_an_error_is_described_in_one_line():
    assert described(OSError("no\n  route")) == "OSError: no route"
    assert described(TimeoutError()) == "TimeoutError"
