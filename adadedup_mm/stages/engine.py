"""Who computes which piece of a stage's work, and who takes over when a process is lost."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from ..base.progress import progress
from .peers import Peers
from .shards import Shards


class Engine:
    """The processes of a run as workers.

    Each does its pieces, then those of processes that are gone.

    Args:
        rank: index of this process.
        world: number of processes.
        wait_for: returns once a condition holds, or raises where waiting is in vain; see
            ``StageStore.wait_for``.
        peers: the other processes; None where there are none, or where they know nothing of each
            other.
    """

    def __init__(
        self,
        rank: int,
        world: int,
        wait_for: Callable[[Callable[[], bool]], None],
        peers: Peers | None = None,
    ) -> None:
        self.rank = rank
        self.world = world
        self.wait_for = wait_for
        self.peers = peers

    def share(
        self, shards: Shards, folder: Path, is_over: Callable[[], bool] = lambda: False
    ) -> None:
        """Does this process's part of the pieces; returns once all of them are there.

        Args:
            shards: the work.
            folder: of the stage.
            is_over: whether the pieces are needed no more, besides where there is a result.
        """

        def not_needed() -> bool:
            return is_over() or has_result(shards, folder)

        if shards.ready:
            self.wait_for(lambda: (folder / shards.ready).exists() or not_needed())
        if not_needed():
            return
        pieces = range(len(shards.files))
        self._compute(shards, folder, pieces[self.rank :: self.world])

        missing = _missing(shards, folder, pieces)
        while missing and not not_needed():
            self._compute(shards, folder, self._orphans(missing))
            self._wait_for_change(shards, folder, missing, not_needed)
            missing = _later(shards, folder, missing)

    def _orphans(self, missing: Sequence[int]) -> list[int]:
        """The missing pieces of processes that are gone, in an order of this process's own."""
        lost = self._lost()
        orphans = [piece for piece in missing if piece % self.world in lost]
        # Every process begins at another place, so that several do not do the same.
        start = len(orphans) * self.rank // self.world
        return orphans[start:] + orphans[:start]

    def _compute(self, shards: Shards, folder: Path, pieces: Sequence[int]) -> None:
        """Computes those of the given pieces that are not there."""
        missing = _missing(shards, folder, pieces)
        if not missing:
            return
        total = sum(shards.sizes[piece] for piece in missing)
        with progress(total, shards.label, shards.unit) as bar:
            shards.compute(folder, missing, bar.update)

    def _wait_for_change(
        self,
        shards: Shards,
        folder: Path,
        missing: Sequence[int],
        not_needed: Callable[[], bool],
    ) -> None:
        """Returns once the first missing piece is there, a process is lost, or all is over."""
        lost = self._lost()
        first = folder / shards.files[missing[0]]
        self.wait_for(lambda: first.exists() or self._lost() != lost or not_needed())

    def _lost(self) -> frozenset[int]:
        """The ranks of the processes that are gone."""
        if self.peers is None:
            return frozenset()
        return frozenset(self.peers.lost)


def has_result(shards: Shards, folder: Path) -> bool:
    """Whether the pieces have been made into a result."""
    return bool(shards.result) and (folder / shards.result).exists()


def remove_pieces(shards: Shards, folder: Path) -> None:
    """Removes the pieces' files where a result stands for them."""
    if not has_result(shards, folder):
        return
    for file in shards.files:
        (folder / file).unlink(missing_ok=True)


def _later(shards: Shards, folder: Path, pieces: Sequence[int]) -> list[int]:
    """The pieces from the first missing one on; looking at all would burden a file server."""

    def is_there(piece: int) -> bool:
        return (folder / shards.files[piece]).exists()

    return list(itertools.dropwhile(is_there, pieces))


def _missing(shards: Shards, folder: Path, pieces: Sequence[int]) -> list[int]:
    missing = []
    for piece in pieces:
        if not (folder / shards.files[piece]).exists():
            missing.append(piece)
    return missing
