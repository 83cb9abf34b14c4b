"""What a benchmark shows while it runs."""

import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from .jobs import Job, folder_name
from .results import Row, is_done, percent
from .schedule import Running

_TAIL = 400  # bytes of a log that hold its last line
# What a line of mmengine's log says of the time to come.
_ETA = re.compile(r'eta: (?:(\d+) days?, )?(\d+):(\d\d):(\d\d)')


class Overview:
    """Counts, expected time and the running trainings.

    They are shown live on a terminal; a file gets one line for each training that ends.

    Args:
        jobs: all of them.
        rows: of those that have ended before.
        side_by_side: how many run at a time.
    """

    def __init__(self, jobs: Sequence[Job], rows: Sequence[Row], side_by_side: int) -> None:
        self.left = {job.folder.name: _work(job.keep_ratio) for job in jobs}
        for row in rows:
            self.left[folder_name(row)] = 0.0
        self.total = len(jobs)
        self.side_by_side = side_by_side
        self.rows = list(rows)
        self.console = Console(file=sys.stderr)
        self.live: Live | None = None
        if self.console.is_terminal:
            self.live = Live(
                console=self.console,
                auto_refresh=False,
                transient=True,
            )
        self.shown = 0.0
        self.has_estimate = any(map(is_done, rows))

    def __enter__(self) -> 'Overview':
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.live:
            self.live.stop()

    def finished(self, job: Job, row: Row) -> None:
        """Notes that a job has ended."""
        self.left[job.folder.name] = 0.0
        self.rows.append(row)
        if is_done(row):
            mark = 'done'
            self.has_estimate = True
            result = f'{row["metric"]} {self._as_in_tables(row["value"])}'
        else:
            mark = 'FAILED'
            result = row['error']

        took = in_words(row['job_seconds'])
        line = Text(
            f'[{len(self.rows)}/{self.total}] {mark} {job.name}: {result} ({took}{self._rest()})'
        )
        self.console.print(line, soft_wrap=True)

    def measured(self, jobs: Sequence[Job], rows: Sequence[Row]) -> None:
        """Notes that jobs have ended that were measured together."""
        for job in jobs:
            self.left[job.folder.name] = 0.0
        self.rows.extend(rows)
        took = in_words(sum(row['job_seconds'] for row in rows))
        seeds = sorted({job.seed for job in jobs})
        named = f'seed {seeds[0]}' if len(seeds) == 1 else f'seeds {seeds[0]} to {seeds[-1]}'
        done = sum(map(is_done, rows))
        line = Text(
            f'[{len(self.rows)}/{self.total}] {jobs[0].model} {named}: {done} selections measured '
            f'({took}{self._rest()})'
        )
        self.console.print(line, soft_wrap=True)
        for job, row in zip(jobs, rows, strict=True):
            if not is_done(row):
                self.console.print(Text(f'FAILED {job.name}: {row["error"]}'), soft_wrap=True)

    def tick(self, running: Sequence[Running]) -> None:
        """Shows the state; called several times a second."""
        now = time.monotonic()
        if now - self.shown <= 0.9:
            return
        self.shown = now
        if not self.has_estimate:
            self._estimate(running)
        if self.live is not None:
            self.live.update(self.picture(running), refresh=True)

    def _estimate(self, running: Sequence[Running]) -> None:
        """Says once what all trainings will take, by the log of the first one."""
        for item in running:
            to_come = seconds_to_come(_tail(item.job.folder / 'log.txt'))
            if to_come is None:
                continue
            own = time.monotonic() - item.started + to_come
            seconds = remaining_seconds(
                [(_work(item.job.keep_ratio), own)],
                left=sum(self.left.values()),
                side_by_side=self.side_by_side,
            )
            self.has_estimate = True
            words = in_words(seconds or own)
            line = f'all of it takes about {words}, by what {item.job.name} says of itself'
            self.console.print(Text(line), soft_wrap=True)
            return

    def _as_in_tables(self, value: float) -> str:
        """A metric as the tables show it: shares in per cent."""
        values = [row['value'] for row in self.rows if is_done(row)]
        scale = percent(values)
        return f'{value * scale:.4g}{" %" if scale == 100 else ""}'

    def _rest(self) -> str:
        """What is left, in words; empty where nothing is known or left."""
        done = [row for row in self.rows if is_done(row)]
        pace = [(_work(row['keep_ratio']), row['job_seconds']) for row in done]
        seconds = remaining_seconds(
            pace,
            left=sum(self.left.values()),
            side_by_side=self.side_by_side,
        )
        if not seconds:
            return ''
        return f'; about {in_words(seconds)} left'

    def picture(self, running: Sequence[Running]) -> Group:
        """The counts, and a line for each running training with the end of its output."""
        done = sum(is_done(row) for row in self.rows)
        failed = len(self.rows) - done
        to_come = self.total - len(self.rows) - len(running)
        head = Text(
            f'{done} done, {failed} failed, {len(running)} running, '
            f'{to_come} to come{self._rest()}',
            style='bold',
        )
        table = Table(
            box=None,
            show_header=False,
            padding=(0, 2, 0, 0),
        )
        for item in running:
            tail = Text(
                _last_line(item.job.folder / 'log.txt'),
                style='dim',
                no_wrap=True,
                overflow='ellipsis',
            )
            seconds = time.monotonic() - item.started
            table.add_row(item.job.name, in_words(seconds), tail)

        return Group(head, table)


def remaining_seconds(
    pace: Sequence[tuple[float, float]], left: float, side_by_side: int
) -> float | None:
    """Expected seconds until all is done; None while nothing is known.

    Args:
        pace: work and seconds of the jobs that have ended.
        left: work of those that have not.
        side_by_side: how many run at a time.
    """
    done = sum(work for work, _ in pace)
    took = sum(seconds for _, seconds in pace)
    if not done:
        return None
    return left * took / done / side_by_side


def in_words(seconds: float) -> str:
    """A duration for people."""
    if seconds < 90:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    if minutes < 90:
        return f'{minutes} min'
    hours, rest = divmod(minutes, 60)
    return f'{hours} h {rest:02} min'


def seconds_to_come(log: str) -> float | None:
    """What a training expects to take from now on; None where its log does not say.

    Args:
        log: the end of its output.
    """
    found = _ETA.findall(log)
    if not found:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found[-1])
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def _tail(path: Path) -> str:
    """The end of a file; empty without one."""
    if not path.exists():
        return ''
    with path.open('rb') as log:
        size = log.seek(0, os.SEEK_END)
        log.seek(max(0, size - _TAIL))
        return log.read().decode('utf-8', 'replace')


def _last_line(path: Path) -> str:
    tail = _tail(path)
    for line in reversed(tail.replace('\r', '\n').split('\n')):
        if line.strip():
            return line.strip()
    return ''


def _work(keep_ratio: float | None) -> float:
    """A training's share of a training on all samples.

    A tenth is added for everything that does not depend on the samples.
    """
    share = 1.0 if keep_ratio is None else keep_ratio
    return share + 0.1
