"""Who computes which piece of a stage's work, and who takes over when a process is lost."""

import itertools
import random
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
    ) -> bool:
        """Does this process's part of the pieces; returns once all of them are there.

        Args:
            shards: the work.
            folder: of the stage.
            is_over: whether the pieces are needed no more, besides where there is a result.

        Returns:
            Whether all pieces, or their result, are there; False where ``is_over`` ended it.
        """

        def not_needed() -> bool:
            return is_over() or has_result(shards, folder)

        try:
            self._share(shards, folder, not_needed)
        except _NotNeeded:
            return has_result(shards, folder)
        return True

    def _share(self, shards: Shards, folder: Path, not_needed: Callable[[], bool]) -> None:
        """Returns once all pieces are there; raises _NotNeeded."""
        if shards.ready:
            self.wait_for(lambda: (folder / shards.ready).exists() or not_needed())
        pieces = range(len(shards.files))
        self._compute(shards, folder, pieces[self.rank :: self.world], not_needed)

        missing = _missing(shards, folder, pieces)
        while missing:
            if not_needed():
                raise _NotNeeded
            # One at a time: what others do meanwhile is left out.
            for orphan in self._orphans(missing):
                self._compute(shards, folder, [orphan], not_needed)
            self._wait_for_change(shards, folder, missing, not_needed)
            missing = _later(shards, folder, missing)

    def _orphans(self, missing: Sequence[int]) -> list[int]:
        """The missing pieces of processes that are gone, in an order of this process's own."""
        lost = self._lost()
        orphans = [piece for piece in missing if piece % self.world in lost]
        # Two that go the same way would do the same from where they meet.
        random.Random(self.rank).shuffle(orphans)
        return orphans

    def _compute(
        self,
        shards: Shards,
        folder: Path,
        pieces: Sequence[int],
        not_needed: Callable[[], bool],
    ) -> None:
        """Computes those of the given pieces that are not there.

        A process that stood still for long may come back to a stage that others have finished, or
        to the folder of another run. It stops before it writes, and what goes wrong with pieces
        that nobody needs is no failure.

        Raises:
            _NotNeeded: they are needed no more.
        """
        missing = _missing(shards, folder, pieces)
        if not missing:
            return

        def ensure_needed() -> None:
            if not_needed():
                raise _NotNeeded

        # After the look at the pieces, which are removed only where there is a result.
        ensure_needed()
        total = sum(shards.sizes[piece] for piece in missing)
        with progress(total, shards.label, shards.unit) as bar:

            def done(units: int) -> None:
                ensure_needed()
                bar.update(units)

            try:
                shards.compute(folder, missing, done)
            except Exception:
                ensure_needed()
                if _missing(shards, folder, missing):
                    raise

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


class _NotNeeded(Exception):
    """The pieces that are being computed are needed no more."""


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
