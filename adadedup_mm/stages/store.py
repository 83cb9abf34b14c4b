"""Resumable stages: where intermediate results live, and when they may be used again."""

import contextlib
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..base.errors import ProcessError, UserError
from ..base.files import read_object, sha256_value, write_json
from .differences import shortened
from .engine import Engine, remove_pieces
from .peers import PROCESSES, Patience, Peers, Watch
from .shards import Shards, Together, Work

# Seconds after which a process says what of another run it waits for.
_QUIET = 60


class StageStore:
    """The folder ``stages/`` of a pruning run.

    A stage is a folder of files plus ``done.json``, which is written last and holds the stage's
    key: a hash of all its inputs and options. A finished stage is used again only under the same
    key. With several processes the first one writes ``done.json`` and the others wait for it, so
    that no collective operation has to outlast a long stage; all processes must see the same file
    system.

    Inside ``together`` the processes also know of each other: where one fails, does not appear or
    would compute something else, no other waits for it; where one is gone, the others do its
    pieces (see ``Engine``). All waiting of a run is done by ``wait_for``.

    Args:
        root: the folder, made on demand.
        rank: index of this process.
        world: number of processes.
        poll: seconds between two looks at what is awaited; five times as many when it takes long.
        shared: a folder where several runs keep finished stages for each other, or None. A stage
            that one of them computes, the others wait for; they get its files and its record, so
            that its cost is the full one.
        patience: how long this process waits for others of its run; see ``Patience``.
    """

    def __init__(
        self,
        root: str | Path,
        rank: int = 0,
        world: int = 1,
        poll: float = 0.2,
        shared: str | Path | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.root = Path(root)
        self.shared = None if shared is None else Path(shared)
        self.rank = rank
        self.world = world
        self.poll = poll
        self.patience = patience or Patience()
        self.peers: Peers | None = None
        # Whether the first process has finished the whole run, which needs no agreement any more.
        self.is_over: Callable[[], bool] = lambda: False
        self._agreed: dict[str, set[str]] = {}
        self._watch: Watch | None = None
        # The keys of each stage in this run, and the folder's name of the last one.
        self._keys: dict[str, list[str]] = {}
        self._places: dict[str, str] = {}

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Inside, the processes of a run know of each other.

        An exception of one of them ends the others' waits.

        A process that fails stays until the others know, for ``patience.gone`` at most. Nothing
        happens for a single process, and where the folder cannot be written.
        """
        self._join()
        try:
            yield
        except RuntimeError as error:
            # A collective operation also ends because another process has.
            self._look_for_cause(error)
            self._tell(error)
            raise
        except BaseException as error:
            self._tell(error)
            raise
        finally:
            self._leave()

    def _tell(self, error: BaseException) -> None:
        if self.peers is not None:
            self.peers.fail(error)

    def _join(self) -> None:
        if self.world > 1 and self.peers is None:
            peers = Peers(self.root / PROCESSES, self.rank, self.world, self.patience, self.poll)
            with contextlib.suppress(OSError):
                peers.join()
                self.peers = peers
                self._watch = Watch(peers)

    def _leave(self) -> None:
        if self.peers is not None:
            self.peers.leave()
        self.peers = None
        self._watch = None

    def _look_for_cause(self, error: RuntimeError) -> None:
        """Raises what another process has told of its end, if any has."""
        if self.peers is not None:
            try:
                Watch(self.peers).look()
            except (ProcessError, UserError) as cause:
                self.peers.fail(cause)
                raise cause from error

    def give_up(self, error: BaseException) -> bool:
        """Tells the other processes of an error.

        Returns:
            Whether all of them have left, so that files may be removed.
        """
        self._tell(error)
        return self.peers is None or self.peers.wait_until_alone()

    def forget_earlier_processes(self) -> None:
        """Removes what killed processes of earlier attempts left; for the first process alone."""
        if self.peers is None:
            shutil.rmtree(self.root / PROCESSES, ignore_errors=True)
        else:
            self.peers.clear()

    def agree(self, name: str, inputs: dict[str, Any], key: str | None = None) -> None:
        """Returns once it is clear that the first process works on the same.

        Only that one returns at once.

        Args:
            name: of what is worked on, such as a stage.
            inputs: JSON-like values of everything that it depends on, by name.
            key: their hash, if it is known.

        Raises:
            UserError: the first process has other inputs; the message names the first one that
                differs.
        """
        if self.peers is None:
            return
        peers = self.peers
        known = self._agreed.setdefault(name, set())
        inputs = shortened(inputs)
        key = key or sha256_value(inputs)

        if self.rank == 0:
            peers.publish(name, key, inputs)
            Watch(peers).look()
        else:
            self.wait_for(lambda: peers.agrees(name, key, inputs, known) or self.is_over())

        known.add(key)

    def agree_on_rows(
        self, name: str, rows: Callable[[], np.ndarray], said: Callable[[int, np.ndarray], str]
    ) -> None:
        """As ``agree`` for an array that is too large for a message.

        Args:
            name: of the array.
            rows: returns the (N, ...) array of this process.
            said: what the difference is, in words, given the first row that differs and what the
                first process has.

        Raises:
            UserError: the first process has other rows.
        """
        if self.peers is None:
            return
        peers = self.peers
        here = rows()
        if self.rank == 0:
            peers.publish_rows(name, here)
            return

        self.wait_for(lambda: peers.published_rows(name) is not None or self.is_over())
        first = peers.published_rows(name)
        if first is None or np.array_equal(here, first):
            return
        differs = (here != first).reshape(len(here), -1).any(axis=1)
        row = int(differs.argmax())
        peers.refuse(said(row, first[row]))

    def record(self, name: str) -> dict[str, Any]:
        """What ``done.json`` says: key, seconds, bytes; empty while the stage is unfinished."""
        place = self._places.get(name, name)
        return read_object(self.root / place / 'done.json')

    def is_finished(self, name: str, key: str) -> bool:
        """Whether the stage ended under this key."""
        return self.record(name).get('key') == key

    def run(self, name: str, key: str, work: Work, inputs: dict[str, Any] | None = None) -> Path:
        """Runs a stage unless it is finished, and returns its folder.

        Files of another key are removed first; files of the same key that an interrupted run left
        are kept, so that the work can be picked up where it stopped.

        Args:
            name: the stage, which is also its folder's name.
            key: hash of everything the result depends on.
            work: writes the results into the folder: a function for the first process alone,
                ``Shards`` for all processes, or ``Together``.
            inputs: what the key is a hash of, so that processes whose keys differ can say why.

        Raises:
            ProcessError: the first process, or one that must not be missing, has failed, is gone or
                has not appeared.
            UserError: another process has found the user's input wrong, or works on something else.
        """
        self.agree(name, dict(key=key) if inputs is None else inputs, key)
        place = self._place(name, key)
        folder = self.root / place
        if self.is_finished(place, key) and not self._owes(place, key):
            return folder
        if self.rank == 0:
            with self._for_all_runs(place, key) as found:
                if not found and not self.is_finished(place, key):
                    self._claim(folder, key)
                    self._lead(place, key, work)
        else:
            self._help(place, key, work)

        return folder

    def _place(self, name: str, key: str) -> str:
        """The name of a stage's folder.

        Where several processes use a stage with a second key in one run, that one has a folder of
        its own: others may still wait for the first result, or read it.
        """
        keys = self._keys.setdefault(name, [])
        if key not in keys:
            keys.append(key)
        number = keys.index(key) + 1
        is_shared = self.world > 1 and number > 1
        self._places[name] = f'{name}_{number}' if is_shared else name
        return self._places[name]

    def _lead(self, name: str, key: str, work: Work) -> None:
        """The first process's part of a claimed stage."""
        folder = self.root / name
        start = time.perf_counter()
        if isinstance(work, Shards):
            self._lead_pieces(work, folder)
        elif isinstance(work, Together):
            self._require_all()
            work.compute(folder)
        else:
            work(folder)

        self._finish(folder, key, time.perf_counter() - start)

    def _lead_pieces(self, work: Shards, folder: Path) -> None:
        """Makes the result, for which all processes compute pieces."""

        def share() -> None:
            self._engine.share(work, folder)

        work.lead(folder, share)
        remove_pieces(work, folder)

    def _help(self, name: str, key: str, work: Work) -> None:
        """The part of the other processes; returns once the first one has finished the stage."""
        folder = self.root / name

        def is_over() -> bool:
            return self.is_finished(name, key)

        def has_begun() -> bool:
            return self._is_claimed(folder, key) or is_over()

        def is_not_ours() -> bool:
            return is_over() or not self._is_claimed(folder, key)

        self.wait_for(has_begun)
        if isinstance(work, Shards):
            # A folder that cannot be read for a moment looks as if another run had taken it.
            while not self._engine.share(work, folder, is_not_ours) and not is_over():
                self.wait_for(has_begun)
        elif isinstance(work, Together) and not is_over():
            self._require_all()
            work.compute(folder)

        self.wait_for(is_over)

    def _finish(self, folder: Path, key: str, seconds: float) -> None:
        """Marks a stage as finished."""
        # Whoever is still writing does so in vain.
        for leftover in folder.rglob('.*.tmp'):
            leftover.unlink(missing_ok=True)
        files = [file for file in folder.rglob('*') if file.is_file()]
        size = sum(file.stat().st_size for file in files)
        record = dict(
            key=key,
            seconds=round(seconds, 3),
            bytes=size,
        )
        write_json(folder / 'done.json', record)

    @property
    def _engine(self) -> Engine:
        return Engine(self.rank, self.world, self.wait_for, self.peers)

    def _require_all(self) -> None:
        """Raises ProcessError if a process is gone, where all have to work at the same time."""
        if self.peers is not None:
            for rank in self.peers.lost:
                self.peers.report_gone(rank)

    @contextlib.contextmanager
    def _for_all_runs(self, name: str, key: str) -> Iterator[bool]:
        """Yields whether another run's result is now in the stage's folder.

        If not, this run's is handed on to the others afterwards.

        One run at a time is inside for each key; where it is killed, the next one computes the
        stage itself.
        """
        if self.shared is None:
            yield False
            return

        kept = _kept(self.shared, name, key)
        self.shared.mkdir(parents=True, exist_ok=True)
        with (self.shared / f'{kept.name}.lock').open('w', encoding='utf-8') as lock:
            self.wait_for(
                lambda: _is_taken(lock), f'another run that computes {name} (lock {lock.name})'
            )
            folder = self.root / name
            if kept.exists():
                if not self.is_finished(name, key):
                    shutil.rmtree(folder, ignore_errors=True)
                    _link_files(kept, folder)
                yield True
                return

            yield False
            partial = self.shared / f'.{kept.name}.partial'
            shutil.rmtree(partial, ignore_errors=True)
            _link_files(folder, partial)
            partial.rename(kept)

    def _owes(self, name: str, key: str) -> bool:
        """Whether this run was killed before it handed a finished stage on to the others."""
        return (
            self.rank == 0
            and self.shared is not None
            and not _kept(self.shared, name, key).exists()
        )

    def wait_for(self, condition: Callable[[], bool], stranger: str = '') -> None:
        """Returns once ``condition()`` holds.

        Long work is waited for as long as its process gives signs of life.

        Args:
            condition: what is awaited; asked again and again.
            stranger: who is awaited if it is no process of this run, for a line on standard error
                after a minute.

        Raises:
            ProcessError: another process has failed or has not appeared, or the first one is gone.
            UserError: another process has found the user's input wrong.
        """
        start = time.monotonic()
        while not condition():
            if self._watch is not None:
                self._watch.look()

            waited = time.monotonic() - start
            if stranger and waited > _QUIET:
                print(f'waiting for {stranger}', file=sys.stderr)
                stranger = ''

            # Less often the longer it takes.
            pause = max(self.poll, waited / 50)
            time.sleep(min(5 * self.poll, pause))

    def _is_claimed(self, folder: Path, key: str) -> bool:
        try:
            return (folder / 'key').read_text(encoding='utf-8') == key
        # Also what a file server says of a folder that another machine has removed.
        except OSError:
            return False

    def _claim(self, folder: Path, key: str) -> None:
        if not self._is_claimed(folder, key):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            (folder / 'key').write_text(key, encoding='utf-8')


class ReadingStore(StageStore):
    """A store for one process that also uses finished stages of another run.

    It writes nothing there.

    Args:
        root: see ``StageStore``.
        also: the folder ``stages/`` of the other run.
    """

    def __init__(self, root: str | Path, also: str | Path) -> None:
        super().__init__(root)
        self.also = StageStore(also)

    def record(self, name: str) -> dict[str, Any]:
        return super().record(name) or self.also.record(name)

    def run(self, name: str, key: str, work: Work, inputs: dict[str, Any] | None = None) -> Path:
        if self.also.is_finished(name, key):
            return self.also.root / name
        return super().run(name, key, work, inputs)


def _is_taken(lock: IO[str]) -> bool:
    """Whether a lock could be taken; a holder's death frees it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _kept(shared: Path, name: str, key: str) -> Path:
    """Where a stage is kept for other runs."""
    return shared / f'{name}-{key[:16]}'


def _link_files(source: Path, target: Path) -> None:
    """Gives all files of a stage further names below ``target``; copies where links cannot be.

    Files of stages are replaced, never written to in place, so that the runs cannot disturb each
    other.
    """
    # Who sees the key must not find the stage unfinished.
    last = [source / 'done.json', source / 'key']
    files = [file for file in source.rglob('*') if file.is_file()]
    first = [file for file in files if file not in last]
    for file in [*first, *last]:
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        try:
            os.link(file, place)
        except OSError:
            shutil.copy2(file, place)
