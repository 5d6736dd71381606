"""The one error that is the user's to mend: raised before anything heavy loads, printed without a traceback."""


class UserError(ValueError):
    """Bad input. The message is one paragraph: what was wrong, what exists, what to do."""
