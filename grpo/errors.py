"""The two errors that are printed without a traceback: bad input, and a run that cannot go on."""


class UserError(ValueError):
    """Bad input. The message is one paragraph: what was wrong, what exists, what to do."""


class RunError(RuntimeError):
    """A run cannot go on, through no fault of its input. The message says what happened and what to do."""
