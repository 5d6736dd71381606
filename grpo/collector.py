"""Python's search for garbage, paused while libraries are imported.

What an import makes lives as long as the process. In an import of 700,000 objects the collector looks for garbage in
vain, again and again, which takes a fifth of the time; and it would look through them again whenever it is asked to.
"""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """No search within it, and none later in what was made until then."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)  # what is not freed at the exit is a leak to libraries, and they say so
        if was_on:
            gc.enable()
