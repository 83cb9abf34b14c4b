"""Starting the training of a job as a process: ``tools/train.py`` with the launcher that was asked for."""

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
# glibc keeps freed memory, as in features/cpu.py: faulting its pages in again is a sixth of a
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
        if self.kind == 'pytorch' and visible and self.gpus * self.side_by_side > visible:
            raise UserError(
                f'--jobs {self.side_by_side} with --gpus {self.gpus} needs '
                f'{self.gpus * self.side_by_side} '
                f'GPUs, but {visible} are visible'
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
        flags = ['--work-dir', str(job.folder), '--resume']
        if self.kind == 'pytorch':
            return ['bash', str(_TOOLS / 'dist_train.sh'), str(config), str(self.gpus), *flags]
        if self.kind == 'slurm':
            return [
                'bash',
                str(_TOOLS / 'slurm_train.sh'),
                str(self.partition),
                job.folder.name,
                str(config),
                *flags[1:],
            ]
        return [sys.executable, str(_TOOLS / 'train.py'), str(config), *flags]

    def environment(self, slot: int) -> dict[str, str]:
        """Environment variables: GPUs and port of the slot's own, this Python first, and a fair share of the cores.

        Raises:
            UserError: PORT is no number.
        """
        python = str(Path(sys.executable).parent)
        env = dict(
            os.environ,
            PATH=f'{python}{os.pathsep}{os.environ.get("PATH", "")}',
            GPUS=str(self.gpus),
            PORT=str(_first_port() + slot),
        )
        processes = self.side_by_side * (self.gpus if self.kind == 'pytorch' else 1)
        if self.kind == 'slurm':
            env.setdefault('MASTER_PORT', env['PORT'])
        else:  # the cores of the machine where a Slurm job is started say nothing about those where it runs
            env.setdefault(
                'OMP_NUM_THREADS', str(max(1, len(os.sched_getaffinity(0)) // processes))
            )
        visible = _visible_gpus()
        if not visible:
            env = {**_KEEP_FREED_PAGES, **env}
        if self.kind != 'slurm' and len(visible) > 1:
            own = self.gpus if self.kind == 'pytorch' else 1
            env['CUDA_VISIBLE_DEVICES'] = ','.join(
                visible[(slot * own + i) % len(visible)] for i in range(own)
            )
        return env


def _first_port() -> int:
    port = os.environ.get('PORT', '29500')
    if not port.isdecimal():
        raise UserError(
            f'the environment variable PORT is {port!r}, but must be a whole number: set it to a '
            'free port '
            'or unset it'
        )
    return int(port)


def drop_broken_checkpoints(folder: Path) -> None:
    """Removes a training's checkpoints if the one to go on from is missing or incomplete."""
    pointer = folder / 'last_checkpoint'
    if pointer.exists() and not zipfile.is_zipfile(pointer.read_text().strip()):
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
    """In the child: a benchmark that is killed leaves no trainings behind, which the next one would start again."""
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGTERM)
