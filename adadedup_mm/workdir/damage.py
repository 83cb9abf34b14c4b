"""What is said of a work dir that lacks a file, or holds a damaged one."""

from pathlib import Path

from ..base.errors import UserError
from ..base.words import one_line

AGAIN = 'make the tables again with tools/prune.py'
# Of an error's text; longer ones repeat the file.
_LONGEST = 200


def missing_file(path: Path) -> UserError:
    """The error about a file that every finished run has."""
    return UserError(f'{path} is missing: name the work dir of a finished tools/prune.py run')


def unreadable_file(path: Path, error: Exception) -> UserError:
    """The error about a file that another error came out of."""
    return UserError(f'{path} cannot be read ({one_line(error, _LONGEST)}): {AGAIN}')
