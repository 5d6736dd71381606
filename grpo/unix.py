"""What only Unix has (file locks, limits of processes, some signals): said in a paragraph where it is lacking.

resource = unix_module("resource")  # where it is used, so that --help and what needs none of it work anywhere
check_unix()                        # in a command, before anything heavy is imported
"""

from __future__ import annotations

import importlib
import signal
import sys
from types import ModuleType

from grpo.errors import UserError

MODULES = ("fcntl", "resource")
"""A run's folder is locked by the first, a verifier's process limited by the second."""
SIGNALS = ("SIGHUP", "SIGKILL")


def unix_module(name: str) -> ModuleType:
    """A module of Python that only Unix has. Raises: UserError where it is not there."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(_lacking(f"Python's module '{name}'")) from error


def check_unix() -> None:
    """Raises: UserError where the system is none that a run can work on."""
    for name in MODULES:
        unix_module(name)
    for name in SIGNALS:
        if not hasattr(signal, name):
            raise UserError(_lacking(f"the signal {name}"))


def _lacking(what: str) -> str:
    return (
        f"This system ({sys.platform}) lacks {what}, which a run needs to lock its folder and to limit and end its "
        "processes. It runs on Linux. On Windows use WSL 2, which is a Linux, and on macOS a Linux container: "
        "scripts/README.md says more under Installation."
    )
