"""Work in pieces, so that any process can do any of them and any later run can go on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

# Says how many units of work have been done since it was last called.
Done = Callable[[int], None]


@dataclass(frozen=True)
class Shards:
    """The work of a stage in pieces.

    How it is cut must not depend on the number of processes, and a piece not on who computes it:
    then neither the number of processes nor an interruption shows in the result.

    Attributes:
        files: the name of each piece's file in the stage's folder.
        sizes: of each piece, how many units of work it is.
        compute: given the folder, the indices of some pieces and ``done``, writes their files one
            after the other, each atomically. It says on the way how many units are done, the last
            ones of a piece before it writes it: ``done`` raises where they are needed no more.
        lead: given the folder and ``share``, what the first process does: it calls ``share``, which
            returns once all pieces are there, and makes the result of them. Called again after an
            interruption, also where the result is there already.
        result: the file that ``lead`` writes last. Pieces are neither needed nor kept beside it;
            '' where the pieces are the result.
        ready: a file that ``lead`` writes before the pieces can be computed; '' where that is at
            once.
        label: what is being done, in one or two words, for the progress bar.
        unit: what ``sizes`` count.
    """

    files: Sequence[str]
    sizes: Sequence[int]
    compute: Callable[[Path, Sequence[int], Done], None]
    lead: Callable[[Path, Callable[[], None]], None]
    result: str
    ready: str = ''
    label: str = 'stage'
    unit: str = 'it'


@dataclass(frozen=True)
class Together:
    """The work of a stage that all processes do at the same time, such as a distributed training.

    Attributes:
        compute: called by every process with the folder; none of them may be missing.
    """

    compute: Callable[[Path], None]


# What a stage may be: alone (the first process calls it with the folder), in pieces, or together.
Work = Callable[[Path], None] | Shards | Together


def only_share(folder: Path, share: Callable[[], None]) -> None:
    """For ``Shards.lead`` where the pieces are the result."""
    share()
