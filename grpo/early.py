"""`--help` and refusals at once: what a command does before the imports that take seconds.

    from grpo.asked import check_command
    from grpo.early import refuse_early

    if __name__ == "__main__":
        refuse_early(check_command)

    import torch

What passes goes on to the imports, and to the command's `main`, which reads the flags for itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from grpo.errors import UserError


def refuse_early(check: Callable[[], object]) -> None:
    """End the program where `check` refuses what was asked for: status 2, and one paragraph."""
    try:
        check()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
