"""Starting the training of a job as a process: ``tools/train.py`` with the wanted launcher."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch

from ..base.errors import UserError
from .jobs import Job

_TOOLS = Path(__file__).parents[1] / '.mim' / 'tools'
_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
# glibc keeps freed memory, as in base/cpu.py: faulting its pages in again is a sixth of a
# training on a CPU.
_KEEP_FREED_PAGES = {'MALLOC_MMAP_MAX_': '0', 'MALLOC_TRIM_THRESHOLD_': str(1 << 40)}


@dataclass(frozen=True)
class Launcher:
    """How trainings are started.

    Attributes:
        kind: ``'none'``, ``'pytorch'`` or ``'slurm'``.
        gpus: of each training, with a launcher.
        side_by_side: how many trainings run at a time.
        partition: of Slurm.
    """

    kind: str = 'none'
    gpus: int = 1
    side_by_side: int = 1
    partition: str | None = None

    def check(self) -> None:
        """Raises UserError where trainings could not be started like this."""
        if self.gpus < 1 or self.side_by_side < 1:
            raise UserError('--gpus and --jobs must be at least 1')
        if self.kind == 'slurm' and not self.partition:
            raise UserError('--launcher slurm needs --partition NAME')
        if self.kind == 'slurm' and shutil.which('srun') is None:
            raise UserError(
                '--launcher slurm needs srun, which is not on the PATH: start it on the cluster'
            )

        visible = len(_visible_gpus())
        needed = self.gpus * self.side_by_side
        if self.kind == 'pytorch' and visible and needed > visible:
            raise UserError(
                f'--jobs {self.side_by_side} with --gpus {self.gpus} needs {needed} GPUs, '
                f'but {visible} are visible'
            )

        _first_port()

    def start(self, job: Job, slot: int) -> subprocess.Popen[bytes]:
        """Starts or goes on with a job's training.

        Args:
            job: its work dir gets the output, ``log.txt``.
            slot: 0 .. side_by_side - 1; no two running jobs have the same.
        """
        config = job.write_config()
        job.folder.mkdir(parents=True, exist_ok=True)
        drop_broken_checkpoints(job.folder)
        with (job.folder / 'log.txt').open('wb') as log:
            return subprocess.Popen(
                self.command(job, config),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment(slot),
                preexec_fn=_end_with_parent,
            )

    def command(self, job: Job, config: Path) -> list[str]:
        """The command line of a job's training."""
        folder = str(job.folder)
        if self.kind == 'pytorch':
            script = str(_TOOLS / 'dist_train.sh')
            start = ['bash', script, str(config), str(self.gpus), '--work-dir', folder]
        elif self.kind == 'slurm':
            script = str(_TOOLS / 'slurm_train.sh')
            name = job.folder.name
            start = ['bash', script, str(self.partition), name, str(config), folder]
        else:
            script = str(_TOOLS / 'train.py')
            start = [sys.executable, script, str(config), '--work-dir', folder]

        return [*start, '--resume']

    def environment(self, slot: int) -> dict[str, str]:
        """Environment variables of the training in a slot.

        They have GPUs and port of its own, this Python first, and a fair share of the cores.

        Raises:
            UserError: PORT is no number.
        """
        python = str(Path(sys.executable).parent)
        path = os.environ.get('PATH', '')
        env = dict(
            os.environ,
            PATH=f'{python}{os.pathsep}{path}',
            GPUS=str(self.gpus),
            PORT=str(_first_port() + slot),
        )
        # Processes of one training on this machine.
        own = self.gpus if self.kind == 'pytorch' else 1
        visible = _visible_gpus()
        if not visible:
            env = {**_KEEP_FREED_PAGES, **env}
        if self.kind == 'slurm':
            # Cores and GPUs of the machine where a Slurm job is started say nothing about those
            # where it runs.
            env.setdefault('MASTER_PORT', env['PORT'])
            return env

        cores = len(os.sched_getaffinity(0))
        threads = max(1, cores // (self.side_by_side * own))
        env.setdefault('OMP_NUM_THREADS', str(threads))
        if len(visible) > 1:
            first = slot * own
            gpus = [visible[(first + i) % len(visible)] for i in range(own)]
            env['CUDA_VISIBLE_DEVICES'] = ','.join(gpus)

        return env


def _first_port() -> int:
    port = os.environ.get('PORT', '29500')
    if not port.isdecimal():
        raise UserError(
            f'the environment variable PORT is {port!r}, but must be a whole number: '
            'set it to a free port or unset it'
        )
    return int(port)


def drop_broken_checkpoints(folder: Path) -> None:
    """Removes a training's checkpoints if the one to go on from is missing or incomplete."""
    pointer = folder / 'last_checkpoint'
    if not pointer.exists():
        return
    latest = pointer.read_text().strip()
    if not zipfile.is_zipfile(latest):
        pointer.unlink()
        remove_checkpoints(folder)


def remove_checkpoints(folder: Path) -> None:
    """Removes the checkpoints of a training."""
    for checkpoint in [*folder.glob('*.pth'), folder / 'last_checkpoint']:
        checkpoint.unlink(missing_ok=True)


def _visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may hold."""
    listed = os.environ.get('CUDA_VISIBLE_DEVICES')
    if listed is not None:
        return [name for name in listed.split(',') if name]
    return [str(index) for index in range(torch.cuda.device_count())]


def _end_with_parent() -> None:
    """In the child: a benchmark that is killed leaves no trainings behind.

    The next one would start them again.
    """
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGTERM)
