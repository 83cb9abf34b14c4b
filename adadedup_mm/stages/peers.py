"""The processes of one run: who is there, who has failed, who is gone.

All of it goes through small files in ``stages/processes``, because processes share nothing but a
file system:

- ``<rank>-<token>.json``, written anew every few seconds: signs of life, and why the process
  stopped.
- ``<rank>-<token>.<stage>.json`` of the first process: the stage's keys and what they are made of.

A token is new for every start of a process. Another process counts as met once its file has
changed, or come up, while one looks: what earlier attempts left behind never changes. One that has
met another process of this rank is of another run: it may come back after a long pause. Clocks of
two machines are never compared.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..base.errors import ProcessError, UserError
from ..base.files import read_object, write_array
from ..base.words import one_line
from .differences import first_difference

# The folder's name below ``stages/``.
PROCESSES = 'processes'
_COUNT = 'beats'


@dataclass(frozen=True)
class Patience:
    """How long processes wait for each other, in seconds.

    Attributes:
        beat: between two signs of life of a process; shorter while it looks for the others.
        gone: after so long without one, a process counts as gone. More than a file system may serve
            old file contents, and than a library may hold Python's lock.
        appear: how much later than a waiting process another one may start.
    """

    beat: float = 5.0
    gone: float = 90.0
    appear: float = 600.0


class Peers:
    """This process among the ``world`` processes of a run.

    Args:
        folder: ``stages/processes``, made on demand.
        rank: index of this process.
        world: number of processes.
        patience: see ``Patience``.
        poll: seconds between two looks at the others while they are awaited.
    """

    def __init__(
        self, folder: Path, rank: int, world: int, patience: Patience, poll: float
    ) -> None:
        self.folder = folder
        self.rank = rank
        self.world = world
        self.patience = patience
        self.poll = poll
        self.name = f'{rank}-{uuid.uuid4().hex[:12]}'
        self.others = [other for other in range(world) if other != rank]
        # The names of those that were met, by rank.
        self.met: dict[int, str] = {}
        # The ranks of those that were met and are gone.
        self.lost: set[int] = set()
        self._seen: dict[str, Any] | None = None
        self._beats = 0
        self._failure: dict[str, Any] | None = None
        self._has_left = False
        self._stop = threading.Event()
        self._writing = threading.Lock()
        self._thread = threading.Thread(
            target=self._live,
            name='signs of life',
            daemon=True,
        )

    # Being there.

    def join(self) -> None:
        """Begins to give signs of life.

        Raises:
            OSError: the folder cannot be written.
        """
        self._show()
        self._meet()
        self._thread.start()

    def leave(self) -> None:
        """Ends the signs of life; the last one to leave puts out the light."""
        self._end_signs()
        if self.rank == 0 and self._failure is None:
            self.clear()
        if not any(self._is_there(rank) for rank in self.met):
            for name in [*self.met.values(), self.name]:
                self._remove(name)
        elif self._failure is None:
            self._remove(self.name)
        else:
            self._has_left = True
            with contextlib.suppress(OSError):
                self._show()

        for ending in ('json', 'npy'):
            for file in self.folder.glob(f'{self.name}.*.{ending}'):
                file.unlink(missing_ok=True)

        self._remove_empty_folders()

    def _remove_empty_folders(self) -> None:
        """Folders that hold anything stay."""
        with contextlib.suppress(OSError):
            for folder in (self.folder, self.folder.parent, self.folder.parent.parent):
                folder.rmdir()

    def clear(self) -> None:
        """Removes what earlier attempts left.

        Those of this run that are alive show themselves again.
        """
        own = {self.name, *self.met.values()}
        for file in self.folder.glob('*'):
            name, _, _ = file.name.lstrip('.').partition('.')
            if name not in own:
                file.unlink(missing_ok=True)

    def _live(self) -> None:
        """Shows itself until the end; more often while it looks for the others."""
        while not self._stop.wait(self._pause()):
            # A full disk or a lost connection may pass.
            with contextlib.suppress(OSError):
                self._meet()
                self._show()

    def _pause(self) -> float:
        """Seconds until the next sign of life."""
        if len(self.met) == len(self.others):
            return self.patience.beat
        return min(self.patience.beat, 3 * self.poll)

    def _end_signs(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _show(self) -> None:
        """Gives a sign of life, with what the others are to know."""
        with self._writing:
            self._beats += 1
            content = {
                'host': socket.gethostname(),
                'process': os.getpid(),
                'met': self.met,
                'failure': self._failure,
                'left': self._has_left,
                _COUNT: self._beats,
            }
            _write(self._file(self.name), content)

    def _meet(self) -> None:
        """Looks for those who have not been met yet."""
        missing = set(self.others) - self.met.keys()
        if not missing:
            return

        found = {}
        for file in self.folder.glob('*-*.json'):
            is_of_stage = file.name.count('.') > 1
            if is_of_stage or _rank_of(file.name) not in missing:
                continue
            content = read_object(file)
            of_this_rank = content.get('met', {}).get(str(self.rank), self.name)
            if of_this_rank == self.name:
                found[file.stem] = content.get(_COUNT)

        if self._seen is not None:
            for name, beats in found.items():
                has_changed = beats is not None and self._seen.get(name) != beats
                if has_changed:
                    self.met.setdefault(_rank_of(name), name)

        self._seen = (self._seen or {}) | found

    def _file(self, name: str) -> Path:
        return self.folder / f'{name}.json'

    def _remove(self, name: str) -> None:
        with contextlib.suppress(OSError):
            self._file(name).unlink(missing_ok=True)

    def _is_there(self, rank: int) -> bool:
        """Whether a process that was met has not left, as far as one can see.

        One that failed by itself stays until the others have heard of it.
        """
        if rank in self.lost:
            return False
        content = read_object(self._file(self.met[rank]))
        failure = content.get('failure')
        if failure is None:
            return bool(content)
        return bool(failure.get('first_hand')) and not content.get('left')

    # Failing.

    def fail(self, error: BaseException) -> None:
        """Tells the others why this process stops, and stays until they have heard of it.

        The longest wait is ``patience.gone``: for a process that has not appeared by then.
        """
        if self._failure is not None:
            return
        is_from_other = isinstance(error, ProcessError) or isinstance(error.__cause__, ProcessError)
        line = str(error)
        if not is_from_other:
            line = f'{self._called(self.rank)} stopped: {_words(error)}'
        self._failure = dict(
            line=line,
            user_error=isinstance(error, UserError),
            first_hand=not is_from_other,
        )

        with contextlib.suppress(OSError):
            if is_from_other:
                self._end_signs()
                self._show()
            else:
                self._show()
                self._stay(self._is_known)
                self._end_signs()

    def wait_until_alone(self) -> bool:
        """Whether the others have left; waits for them for ``patience.gone`` at most."""
        return self._stay(lambda rank: rank not in self.met or not self._is_there(rank))

    def _is_known(self, rank: int) -> bool:
        """Whether another process will find this one's failure."""
        if rank not in self.met:
            return False
        content = read_object(self._file(self.met[rank]))
        has_ended = not content or content.get('failure') is not None
        its_met = content.get('met', {})
        return has_ended or its_met.get(str(self.rank)) == self.name

    def _stay(self, is_done: Callable[[int], bool]) -> bool:
        """Waits until something holds of all others; False where that took too long."""
        end = time.monotonic() + self.patience.gone
        while not all(rank in self.lost or is_done(rank) for rank in self.others):
            if time.monotonic() > end:
                return False
            time.sleep(self.poll)

        return True

    def _called(self, rank: int, content: dict[str, Any] | None = None) -> str:
        """What messages call a process: this one, or another with the content of its file."""
        host = socket.gethostname()
        if content is not None:
            host = content.get('host', 'an unknown machine')
        return f'process {rank} (of 0 to {self.world - 1}) on {host}'

    # Looking at the others.

    def look_at(self, rank: int) -> Any:
        """What shows whether a process is alive: its count, or None where it is not to be seen.

        Raises:
            ProcessError, UserError: the process has failed.
        """
        if rank not in self.met:
            return None
        content = read_object(self._file(self.met[rank]))
        failure = content.get('failure')
        if not isinstance(failure, dict):
            return content.get(_COUNT)

        line = failure.get('line', f'{self._called(rank, content)} stopped')
        error = ProcessError(line)
        if failure.get('user_error'):
            raise UserError(line) from error
        raise error

    def lose(self, rank: int) -> None:
        """Notes, and says on standard error, that a process is gone."""
        self.lost.add(rank)
        content = read_object(self._file(self.met[rank]))
        print(
            f'warning: {self._called(rank, content)} is gone: no sign of life for '
            f'{self.patience.gone:g} seconds; the others do its work',
            file=sys.stderr,
        )

    def report_gone(self, rank: int) -> None:
        """Raises ProcessError for a process that has been silent for too long."""
        if rank in self.met:
            content = read_object(self._file(self.met[rank]))
            raise ProcessError(
                f'{self._called(rank, content)} is gone: no sign of life for '
                f'{self.patience.gone:g} seconds (it was ended, or its machine is lost); start all '
                'processes again with --resume to go on'
            )

        raise ProcessError(
            f'process {rank} (of 0 to {self.world - 1}) has not appeared within '
            f'{self.patience.appear:g} seconds: start as many processes as the launcher says, on '
            'machines that see the same work dir'
        )

    # What the first process works on.

    def publish(self, stage: str, key: str, inputs: dict[str, Any]) -> None:
        """Says, as the first process, which key a stage has.

        Args:
            stage: its name.
            key: its key.
            inputs: what that is made of, as from ``shortened``.
        """
        file = self._stage_file(self.name, stage)
        entries = read_object(file).get('keys', [])
        is_said = any(entry['key'] == key for entry in entries)
        if not is_said:
            entries.append(dict(key=key, inputs=inputs))
            _write(file, dict(keys=entries))

    def agrees(self, stage: str, key: str, inputs: dict[str, Any], known: set[str]) -> bool:
        """Whether the first process works on the same; False until it has said so.

        Args:
            stage: its name.
            key: its key here.
            inputs: what that is made of, as from ``shortened``.
            known: keys that both have worked on before.

        Raises:
            UserError: it works on something else.
        """
        if 0 not in self.met:
            return False
        entries = read_object(self._stage_file(self.met[0], stage)).get('keys', [])
        if any(entry['key'] == key for entry in entries):
            return True
        other = [entry for entry in entries if entry['key'] not in known]
        if other:
            self.refuse(first_difference(inputs, other[0]['inputs']))
        return False

    def refuse(self, difference: str) -> None:
        """Raises UserError: this process would work on something else than the first one."""
        raise UserError(
            f'{self._called(self.rank)} cannot work with the first process: {difference}; all '
            'processes need the same config, data, software and kind of device'
        )

    def publish_rows(self, name: str, rows: np.ndarray) -> None:
        """Says, as the first process, what an array holds that the work depends on."""
        file = self._rows_file(self.name, name)
        if not file.exists():
            write_array(file, rows)

    def published_rows(self, name: str) -> np.ndarray | None:
        """That array; None until the first process has said so."""
        if 0 not in self.met:
            return None
        try:
            return np.load(self._rows_file(self.met[0], name))
        except FileNotFoundError:
            return None

    def _stage_file(self, name: str, stage: str) -> Path:
        return self.folder / f'{name}.{stage.replace("/", "_")}.json'

    def _rows_file(self, name: str, rows: str) -> Path:
        return self.folder / f'{name}.{rows}.npy'


class Watch:
    """The other processes while one waits. Their silence is measured by this process's own clock.

    Time between two waits hardly counts, because nobody looked.

    Args:
        peers: this process.
    """

    def __init__(self, peers: Peers) -> None:
        self.peers = peers
        # Many processes look less often; a file server answers all of them.
        usual = max(5 * peers.poll, peers.world / 4)
        self.interval = min(usual, peers.patience.gone / 4)
        self.last_look = time.monotonic()
        self.next_look = self.last_look
        self.counts: dict[int, Any] = {}
        self.silence = dict.fromkeys(peers.others, 0.0)

    def look(self) -> None:
        """Looks at all others, unless it has done so shortly before.

        Raises:
            ProcessError: one of them has failed or has not appeared, or the first one is gone.
            UserError: one of them has found that the user's input is wrong.
        """
        now = time.monotonic()
        if now < self.next_look:
            return
        # Where this process itself stood still, the others may have done so too.
        passed = min(now - self.last_look, 3 * self.interval)
        self.last_look, self.next_look = now, now + self.interval
        for rank in self.peers.others:
            if rank not in self.peers.lost:
                self._look_at(rank, passed)

    def _look_at(self, rank: int, passed: float) -> None:
        count = self.peers.look_at(rank)
        is_heard = count is not None and count != self.counts.get(rank)
        if is_heard:
            self.counts[rank] = count
        self.silence[rank] = 0.0 if is_heard else self.silence[rank] + passed

        has_appeared = rank in self.peers.met
        patience = self.peers.patience
        limit = patience.gone if has_appeared else patience.appear
        if self.silence[rank] <= limit:
            return

        # What the first process does, no other can.
        if has_appeared and rank != 0:
            self.peers.lose(rank)
        else:
            self.peers.report_gone(rank)


def _rank_of(name: str) -> int:
    """The rank that the name of a process's file begins with; -1 for other files."""
    rank, _, _ = name.partition('-')
    return int(rank) if rank.isdecimal() else -1


def _words(error: BaseException) -> str:
    """An exception on one line."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return 'interrupted'
    text = one_line(error, 300)
    return f'{type(error).__name__}: {text}' if text else type(error).__name__


def _write(path: Path, content: dict[str, Any]) -> None:
    """Replaces a small file.

    What it says is worth nothing after a crash, so that it need not be on the disk.
    """
    temporary = path.with_name(f'.{path.name}.tmp')
    text = json.dumps(content)
    for is_last in (False, False, True):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(text, encoding='utf-8')
            os.replace(temporary, path)
            return
        except FileNotFoundError:
            # The first process may clear the folder at this moment.
            if is_last:
                raise
