"""Running jobs, several at a time."""

import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from .jobs import Job


@dataclass(frozen=True)
class Running:
    """A job that is being trained.

    Attributes:
        job: the job.
        process: of its training.
        started: ``time.monotonic()`` of its start.
    """

    job: Job
    process: subprocess.Popen[bytes]
    started: float


class Watcher(Protocol):
    """Who is told what happens."""

    def tick(self, running: Sequence[Running]) -> None:
        """Called several times a second."""


def run_jobs(
    jobs: Sequence[Job],
    start: Callable[[Job, int], subprocess.Popen[bytes]],
    finish: Callable[[Job, int, float], None],
    side_by_side: int,
    watcher: Watcher,
    poll: float = 0.2,
) -> None:
    """Runs all jobs in order, at most ``side_by_side`` at a time.

    Ends those that run if anything is raised.

    Args:
        jobs: what to run.
        start: starts a job in a slot, 0 .. side_by_side - 1.
        finish: called with job, exit code and seconds when its process has ended.
        side_by_side: number of slots.
        watcher: is told about the running jobs.
        poll: seconds between two looks.
    """
    waiting = deque(jobs)
    slots: list[Running | None] = [None] * side_by_side
    try:
        while waiting or any(slots):
            for number, running in enumerate(slots):
                if running and running.process.poll() is not None:
                    slots[number] = None
                    seconds = time.monotonic() - running.started
                    finish(running.job, running.process.returncode, seconds)

                if slots[number] is None and waiting:
                    job = waiting.popleft()
                    process = start(job, number)
                    slots[number] = Running(
                        job=job,
                        process=process,
                        started=time.monotonic(),
                    )

            watcher.tick(_occupied(slots))
            time.sleep(poll)
    finally:
        _end([running.process for running in _occupied(slots)])


def _occupied(slots: Sequence[Running | None]) -> list[Running]:
    return [running for running in slots if running]


def _end(processes: Sequence[subprocess.Popen[bytes]], patience: float = 10.0) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
