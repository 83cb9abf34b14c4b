"""The one exception that stands for wrong input."""


class UserError(Exception):
    """The user's input is wrong.

    The message is one line, whatever names it quotes: what is wrong, where, and what to do. The command line tools
    print it and exit with 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(' '.join(message.splitlines()))
