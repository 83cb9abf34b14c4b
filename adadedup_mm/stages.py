"""Resumable stages: where intermediate results live, and when they may be used again."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .files import write_json


class StageStore:
    """The folder ``stages/`` of a pruning run.

    A stage is a folder of files plus ``done.json``, which is written last and holds the stage's key: a hash of all its
    inputs and options. A finished stage is used again only under the same key. With several processes the first one
    writes ``done.json`` and the others wait for it, so that no collective operation has to outlast a long stage; all
    processes must see the same file system.

    Args:
        root: the folder, made on demand.
        rank: index of this process.
        world: number of processes.
        poll: seconds between two looks at ``done.json``.
    """

    def __init__(self, root: str | Path, rank: int = 0, world: int = 1, poll: float = .2) -> None:
        self.root = Path(root)
        self.rank = rank
        self.world = world
        self.poll = poll

    def record(self, name: str) -> dict[str, Any]:
        """What ``done.json`` says: key, seconds, bytes; empty while the stage is unfinished."""
        try:
            return json.loads((self.root / name / 'done.json').read_text(encoding='utf-8'))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}

    def is_finished(self, name: str, key: str) -> bool:
        """Whether the stage ended under this key."""
        return self.record(name).get('key') == key

    def run(self, name: str, key: str, compute: Callable[[Path], None],
            share: Callable[[Path], None] | None = None) -> Path:
        """Runs a stage unless it is finished, and returns its folder.

        Files of another key are removed first; files of the same key that an interrupted run left are kept, so that
        ``compute`` and ``share`` can pick up where it stopped.

        Args:
            name: the stage, which is also its folder's name.
            key: hash of everything the result depends on.
            compute: writes the results into the folder; called by the first process only.
            share: the part that is split over the processes, called by all of them before ``compute``. The first
                process may find that others have not written their part yet: ``compute`` waits for it (``wait_for``).
        """
        folder = self.root / name
        if self.is_finished(name, key):
            return folder
        if self.rank == 0:
            self._claim(folder, key)
        else:
            self.wait_for(lambda: self._is_claimed(folder, key) or self.is_finished(name, key))
        start = time.perf_counter()
        if share is not None and not self.is_finished(name, key):
            share(folder)
        if self.rank == 0:
            compute(folder)
            size = sum(file.stat().st_size for file in folder.rglob('*') if file.is_file())
            seconds = time.perf_counter() - start
            write_json(folder / 'done.json', dict(key=key, seconds=round(seconds, 3), bytes=size))
        else:
            self.wait_for(lambda: self.is_finished(name, key))
        return folder

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Returns once ``condition()`` holds; looks every ``poll`` seconds, for as long as it takes."""
        while not condition():
            time.sleep(self.poll)

    def _is_claimed(self, folder: Path, key: str) -> bool:
        try:
            return (folder / 'key').read_text(encoding='utf-8') == key
        except FileNotFoundError:
            return False

    def _claim(self, folder: Path, key: str) -> None:
        if not self._is_claimed(folder, key):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            (folder / 'key').write_text(key, encoding='utf-8')
        for leftover in folder.rglob('.*.tmp'):
            leftover.unlink()
