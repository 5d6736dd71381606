"""Signals that end a run -> an exception, raised at a moment at which a run may end.

with interruptible():            # Ctrl-C, SIGTERM and SIGHUP raise Interrupted
    with held_back():            # not within this block, but at its end; a second signal does not wait
        with let_through():      # and here at once after all
            ...
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ALWAYS = (signal.SIGINT, signal.SIGTERM)
"""Handled even where the parent ignores them: a script that starts a run in its background leaves SIGINT ignored."""
UNLESS_IGNORED = (signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()
"""A closed terminal; `nohup` ignores it, which is to stay so. Only Unix has it."""

WAITING = "\n{name}: the step is finished and saved first; once more ends the run at once, without that.\n"
DROPPED = "\n{name}: the run is ending, and saves what it can; once more ends it at once, without that.\n"


class Interrupted(KeyboardInterrupt):
    """A signal asks the process to end. Like Ctrl-C's own exception, it passes every `except Exception`."""

    def __init__(self, number: int, *, at_once: bool = False) -> None:
        """at_once: the second signal, of one who does not want to wait for anything to be saved."""
        super().__init__(signal.Signals(number).name)
        self.number = number
        self.at_once = at_once


class _Handler:
    """What to do with a signal: raise now, or at the end of the outermost block that holds it back."""

    def __init__(self) -> None:
        self.blocks = 0
        self.waiting: int | None = None
        self.words = WAITING
        self.received = False

    def __call__(self, number: int, frame: object) -> None:
        self.received = True
        if self.blocks and self.waiting is None:
            self.waiting = number
            os.write(2, self.words.format(name=signal.Signals(number).name).encode())  # print could be within a print
        else:
            raise Interrupted(number, at_once=self.waiting is not None)


_handler = _Handler()  # one for the process, as signals are


def sent_with_the_end_of_parent(number: int) -> None:
    """Have the system send this process a signal when the one that has started it ends, also by a kill. On Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, number)  # PR_SET_PDEATHSIG


def received() -> bool:
    """Whether a signal has come so far, also one that waits or has been forgotten since."""
    return _handler.received


@contextmanager
def interruptible() -> Iterator[None]:
    """Signals raise Interrupted in this block; after it, they do what they did before. Only a main thread gets any."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handled = [*ALWAYS, *(number for number in UNLESS_IGNORED if signal.getsignal(number) is not signal.SIG_IGN)]
    before = {number: signal.signal(number, _handler) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)  # None: set outside Python, as by a debugger


@contextmanager
def held_back(words: str = WAITING) -> Iterator[None]:
    """A first signal waits for the end of this block. Where the block raises, it is forgotten: the run ends anyway."""
    _handler.blocks += 1
    if _handler.blocks == 1:
        _handler.waiting, _handler.words = None, words
    raised = True
    try:
        yield
        raised = False
    finally:
        _handler.blocks -= 1
        if not _handler.blocks:
            number, _handler.waiting = _handler.waiting, None
    if not raised and not _handler.blocks and number is not None:
        raise Interrupted(number)


@contextmanager
def let_through() -> Iterator[None]:
    """Within `held_back`: here a signal is raised at once, one that has waited so far at the beginning."""
    blocks, _handler.blocks = _handler.blocks, 0
    try:
        if _handler.waiting is not None:
            raise Interrupted(_handler.waiting)
        yield
    finally:
        _handler.blocks = blocks
