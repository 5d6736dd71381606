"""How a rank ends: what has gone wrong is said once, last, and no process is left.

torchrun ends all ranks as soon as one of them has ended with an error. So a rank that only knows that another one is
gone waits for that, and says nothing; it speaks where nobody has ended it, as after a time-out.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from io import StringIO
from pathlib import Path

from grpo.errors import RunError
from grpo.interrupts import ALWAYS, Interrupted, received
from grpo.model.ranks import OtherRankFailed, agreed, meet, world

PATIENCE = 3.0
"""Seconds, and one more for each rank, in which torchrun ends a rank that has lost another one."""
ALIKE = 1.0
"""Seconds in which the first rank says what all ranks raise alike."""

LOST = ("connection", "gloo", "nccl", "timed out", "timeout", "broken pipe", "processgroup", "socket", "tcpstore")
"""Words of what torch says where another rank does not answer."""


def lost(error: BaseException) -> bool:
    """Whether an error says no more than that another rank does not answer."""
    about_talk = isinstance(error, RuntimeError | OSError) and not isinstance(error, RunError)
    return about_talk and any(word in str(error).lower() for word in LOST)


def speaks(error: BaseException) -> bool:
    """Whether this process says what has ended it: always where it is alone.

    Of ranks that end together one speaks. A rank that ends by itself speaks at once if it is the first, and else when
    nobody has ended it meanwhile: what all raise alike is said by the first, and a lost connection by who lost it.
    """
    rank, size = world()
    if size == 1:
        return True
    if isinstance(error, OtherRankFailed):
        return False
    if agreed(error):
        return rank == 0 or not isinstance(error, Interrupted)
    if rank > 0 or lost(error):
        if isinstance(error, Interrupted) or received():  # torchrun is ending it
            return False
        for number in ALWAYS:
            signal.signal(number, signal.SIG_DFL)
        time.sleep(PATIENCE + rank if lost(error) else ALIKE)
    return True


@contextmanager
def said_once() -> Iterator[None]:
    """What all ranks would print alike, as --help, is printed by the first."""
    with ExitStack() as stack:
        if world()[0] > 0:
            stack.enter_context(redirect_stdout(StringIO()))
            stack.enter_context(redirect_stderr(StringIO()))
        yield


def in_words(error: BaseException) -> str | None:
    """A lost rank as a paragraph; None for any other error."""
    if not lost(error) or world()[1] == 1:
        return None
    return (
        f"error: rank {world()[0]} of {world()[1]} hears nothing from another one any more ({type(error).__name__}: "
        f"{' '.join(str(error).split())[:200]}). Either it has ended, and its own message stands above, or it hangs: "
        "nothing came for as long as --rank-minutes allows. Go on with --resume."
    )


def tell(text: str) -> None:
    """Print what has ended this process, and leave it where torchrun takes the root cause of its own last words from.

    It takes the earliest; the ranks that it then ends have left nothing, and count from their end.
    """
    print(text, file=sys.stderr)
    if world()[1] > 1 and (file := os.environ.get("TORCHELASTIC_ERROR_FILE")):
        said = {"message": text, "extraInfo": {"py_callstack": text, "timestamp": str(int(time.time()) - 1)}}
        with suppress(OSError):
            Path(file).write_text(json.dumps({"message": said}))


def leave(main: Callable[[], int]) -> None:
    """Run the command and end the process, of several ranks without a word to the libraries: their ends wait for one
    another, and one that has failed waits for ever."""
    if world()[1] == 1:
        status = main()
        gc.unfreeze()  # else what the libraries do not see freed at the exit is a leak to them, and they say so
        sys.exit(status)
    ending: BaseException | None = None
    try:
        status = main()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException as error:
        status, ending = 1, error
        if speaks(error):
            tell(in_words(error) or "".join(traceback.format_exception(error)))
    if ending is not None or status == 0:
        meet(ending)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
