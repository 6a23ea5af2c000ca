"""The errors that end a command with one line: bad input, and a run that stops early."""


class BadInput(ValueError):
    """A user's input that cannot be used.

    The message is one line: what came, what is allowed, what to do. The command line prints it without a traceback and
    exits with code 2. Every other exception is a defect and shows its traceback.
    """


class Diverged(BadInput):
    """Training whose loss or scores are no longer finite; the run is recorded as failed.

    Args:
        message: One line.
        epoch: The epoch, from 0.
        learning_rate: The rate of the epoch's last step; None: not known.
    """

    def __init__(self, message: str, epoch: int, learning_rate: float | None = None) -> None:
        super().__init__(message)
        self.epoch, self.learning_rate = epoch, learning_rate


class Stopped(Exception):
    """A run that stops before its end through no fault of its input; the same command continues it.

    The message is one line.

    Attributes:
        code: The exit code of the command.
    """

    code = 1


class PartnerLost(Stopped):
    """One of the several processes of a run has ended, or can't be reached."""


class TimeIsUp(Stopped):
    """The time of `--minutes` is over. The code is that of sysexits.h for a temporary failure."""

    code = 75
