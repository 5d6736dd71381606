"""A call that must neither raise nor take longer than so many seconds, such as one of a service that may be gone."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread


def within(seconds: float, do: Callable[[], object]) -> BaseException | None:
    """Call `do`, and return what it raised, or a TimeoutError where it goes on for longer; None where all went well.

    A call that hangs goes on in a thread of its own, which does not keep the process alive.
    """
    raised: list[BaseException] = []

    def attempt() -> None:
        try:
            do()
        except BaseException as error:  # handed over whole; some libraries raise SystemExit
            raised.append(error)

    thread = Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        return TimeoutError(f"no answer within {seconds:g} s")
    return raised[0] if raised else None


def described(error: BaseException) -> str:
    """The error's type and words in one line.

    >>> described(ConnectionResetError("Connection lost"))
    'ConnectionResetError: Connection lost'
    """
    return ": ".join(filter(None, [type(error).__name__, " ".join(str(error).split())]))
