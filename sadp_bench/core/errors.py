"""The error for whatever a user can mend."""


class BadInput(ValueError):
    """A user's input that cannot be used.

    The message is one line: what came, what is allowed, what to do. The command line prints it without a traceback and
    exits with code 2. Every other exception is a defect and shows its traceback.
    """
