"""The exceptions that end a run with one line: wrong input, and another process that stopped."""


class _OneLineError(Exception):
    """An exception whose message is one line."""

    def __init__(self, message: str) -> None:
        lines = message.splitlines()
        super().__init__(' '.join(lines))


class UserError(_OneLineError):
    """The user's input is wrong.

    The message is one line, whatever names it quotes: what is wrong, where, and what to do. The
    command line tools print it and exit with 2.
    """


class ProcessError(_OneLineError):
    """Another process of the run has failed, is gone or has not appeared.

    The message is one line: which process, where, and why as far as it is known. The command line
    tools print it and exit with 1.
    """
