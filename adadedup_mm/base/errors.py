"""The exceptions that end a run with one line: wrong input, and another process that stopped."""


class UserError(Exception):
    """The user's input is wrong.

    The message is one line, whatever names it quotes: what is wrong, where, and what to do. The
    command line tools print it and exit with 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(' '.join(message.splitlines()))


class ProcessError(Exception):
    """Another process of the run has failed, is gone or has not appeared.

    The message is one line: which process, where, and why as far as it is known. The command line
    tools print it and exit with 1.
    """

    def __init__(self, message: str) -> None:
        super().__init__(' '.join(message.splitlines()))
