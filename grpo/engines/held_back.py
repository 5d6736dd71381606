"""What a library writes to the console while it starts, kept off it unless it fails."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_back_stderr() -> Iterator[None]:
    """Keep vllm's start-up notes (also those its C++ writes) off the console; show them all where it fails."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        console = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:  # Ctrl-C too: whatever ends the start-up, its notes are what explains it
            held.seek(0)
            os.write(console, held.read())
            raise
        finally:
            os.dup2(console, 2)
            os.close(console)
