"""What a benchmark shows while it runs."""

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
from .results import Row
from .schedule import Running

_TAIL = 400  # bytes of a log that hold its last line


class Overview:
    """Counts, expected time and the running trainings, live on a terminal; in a file one line for each that ends.

    Args:
        jobs: all of them.
        rows: of those that have ended before.
        side_by_side: how many run at a time.
    """

    def __init__(self, jobs: Sequence[Job], rows: Sequence[Row], side_by_side: int) -> None:
        self.left = {job.folder.name: _work(job.keep_ratio) for job in jobs} | {
            folder_name(row): 0.0 for row in rows
        }
        self.total = len(jobs)
        self.side_by_side = side_by_side
        self.rows = list(rows)
        self.console = Console(file=sys.stderr)
        self.live = (
            Live(console=self.console, auto_refresh=False, transient=True)
            if self.console.is_terminal
            else None
        )
        self.shown = 0.0

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
        mark = 'done' if row['status'] == 'done' else 'FAILED'
        result = f'{row["metric"]} {row["value"]:.4g}' if row['status'] == 'done' else row['error']
        self.console.print(
            Text(
                f'[{len(self.rows)}/{self.total}] {mark} {job.name}: {result} '
                f'({in_words(row["job_seconds"])}{self._rest()})'
            ),
            soft_wrap=True,
        )

    def tick(self, running: Sequence[Running]) -> None:
        """Shows the state; called several times a second."""
        if self.live and time.monotonic() - self.shown > 0.9:
            self.shown = time.monotonic()
            self.live.update(self.picture(running), refresh=True)

    def _rest(self) -> str:
        pace = [
            (_work(row['keep_ratio']), row['job_seconds'])
            for row in self.rows
            if row['status'] == 'done'
        ]
        seconds = remaining_seconds(pace, sum(self.left.values()), self.side_by_side)
        return '' if not seconds else f'; about {in_words(seconds)} left'

    def picture(self, running: Sequence[Running]) -> Group:
        """The counts, and a line for each running training with the end of its output."""
        failed = sum(row['status'] == 'failed' for row in self.rows)
        head = Text(
            f'{len(self.rows) - failed} done, {failed} failed, {len(running)} running, '
            f'{self.total - len(self.rows) - len(running)} to come{self._rest()}',
            style='bold',
        )
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for item in running:
            tail = Text(
                _last_line(item.job.folder / 'log.txt'),
                style='dim',
                no_wrap=True,
                overflow='ellipsis',
            )
            table.add_row(item.job.name, in_words(time.monotonic() - item.started), tail)
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
    work = sum(amount for amount, _ in pace)
    return left * sum(seconds for _, seconds in pace) / work / side_by_side if work else None


def in_words(seconds: float) -> str:
    """A duration for people."""
    if seconds < 90:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    return f'{minutes} min' if minutes < 90 else f'{minutes // 60} h {minutes % 60:02} min'


def _last_line(path: Path) -> str:
    with path.open('rb') as log:
        log.seek(max(0, log.seek(0, 2) - _TAIL))
        lines = log.read().decode('utf-8', 'replace').replace('\r', '\n').split('\n')
    return next((line.strip() for line in reversed(lines) if line.strip()), '')


def _work(keep_ratio: float | None) -> float:
    """A training's share of a training on all samples, and a tenth for everything that does not depend on them."""
    return (1.0 if keep_ratio is None else keep_ratio) + 0.1
