"""How the commands on comparisons begin and end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

import transformers

from grpo.errors import RunError, UserError

Options = TypeVar("Options")


def exit_status(run: Callable[[Options], None], asked: Callable[[list[str] | None], Options], given) -> int:
    """Run a command on the arguments given. 0 done, 1 the run could not go on, 2 bad input; errors are said."""
    transformers.utils.logging.disable_progress_bar()
    try:
        run(asked(given))
    except (UserError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    return 0
