"""The one error that is meant for people, and text that is safe to show them."""


class BadInput(ValueError):
    """What a user asked for cannot be had.

    The message is one line: what came, what is allowed, what to do. The command line prints it
    without a traceback and exits with code 2; every other exception is a defect and shows its traceback.
    """
