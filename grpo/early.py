"""`--help` and refusals at once: what a command does before the imports that take seconds.

The file of a command asks for it above its other imports, where it is run as the program. What passes goes on to these
imports, and to `main`, which reads the flags for itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from grpo.errors import UserError


def refuse_early(*checks: Callable[[], object]) -> None:
    """End the program where one of `checks` refuses what was asked for: status 2, and one paragraph.

    Not of several processes that torchrun has started: they refuse together, so that it is said once (rank_flags.py).
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return
    try:
        for check in checks:
            check()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
