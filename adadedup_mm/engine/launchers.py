"""What launchers tell each of several processes: its index, its GPU, and how to form a group."""

import os
from typing import Any

import torch
import torch.distributed
from mmengine.dist import init_dist, is_distributed

from ..base.errors import ProcessError, UserError
from ..detectors.isolation import WRAPPER_WITHOUT_GPU

_VARIABLES = {'pytorch': ('RANK', 'WORLD_SIZE'), 'slurm': ('SLURM_PROCID', 'SLURM_NTASKS')}
_LOCAL_RANK = {'pytorch': 'LOCAL_RANK', 'slurm': 'SLURM_LOCALID'}


def rank_and_world(launcher: str) -> tuple[int, int]:
    """Index of this process and number of processes, from the launcher's environment variables.

    Args:
        launcher: ``'none'``, ``'pytorch'`` (torchrun) or ``'slurm'``.

    Raises:
        UserError: the launcher is unknown, or its variables are not set or no such numbers.
    """
    if launcher == 'none':
        return 0, 1
    if launcher not in _VARIABLES:
        raise UserError(f"launcher {launcher!r} is not supported: use 'none', 'pytorch' or 'slurm'")
    rank_name, world_name = _VARIABLES[launcher]
    rank = os.environ.get(rank_name)
    world = os.environ.get(world_name)
    start = 'torchrun --nproc_per_node=N' if launcher == 'pytorch' else 'srun'
    if rank is None or world is None:
        raise UserError(
            f'--launcher {launcher} needs {rank_name} and {world_name}: start it with {start}'
        )
    if not (rank.isdecimal() and world.isdecimal() and int(rank) < int(world)):
        raise UserError(
            f'{rank_name} is {rank!r} and {world_name} {world!r}, but must be the index of this '
            f'process and how many there are: start it with {start}'
        )

    return int(rank), int(world)


def take_gpu(launcher: str) -> None:
    """Makes a GPU of its own this process's current one; more processes than GPUs share them.

    mmengine does so when it opens a process group, which pruning has none of.

    Args:
        launcher: as for ``rank_and_world``.

    Raises:
        UserError: the launcher's variable for this process on its machine is no index.
    """
    if launcher == 'none' or not torch.cuda.is_available():
        return
    name = _LOCAL_RANK[launcher]
    rank, _ = rank_and_world(launcher)
    local_rank = os.environ.get(name, str(rank))
    if not local_rank.isdecimal():
        raise UserError(
            f'{name} is {local_rank!r}, but must be the index of this process on its machine: '
            'unset it, or leave it to the launcher'
        )

    gpu = int(local_rank) % torch.cuda.device_count()
    torch.cuda.set_device(gpu)


def open_group(launcher: str) -> None:
    """Opens the group of a launcher's processes, unless there is one: gloo where there is no GPU.

    mmengine opens one only where it finds a GPU. The group stays open, as launchers cannot open a
    second one.

    Args:
        launcher: as for ``rank_and_world``; nothing is done for ``'none'``.

    Raises:
        ProcessError: the processes do not find each other within torch's own time.
    """
    if launcher == 'none' or is_distributed():
        return
    try:
        if torch.cuda.is_available():
            init_dist(launcher)
        else:
            rank, world = rank_and_world(launcher)
            torch.distributed.init_process_group('gloo', rank=rank, world_size=world)
    except RuntimeError as error:
        lines = str(error).splitlines()
        reason = lines[0] if lines else type(error).__name__
        raise ProcessError(f'this process cannot form a group with the others: {reason}') from error


def use_gloo_without_gpu(config: Any) -> None:
    """Prepares a training of several processes without a GPU, which mmengine's Runner asks for.

    Args:
        config: a training config; its ``model_wrapper_cfg`` is set unless the user has set one.
    """
    launcher = config.get('launcher', 'none')
    if launcher == 'none' or torch.cuda.is_available():
        return
    open_group(launcher)
    config.setdefault('model_wrapper_cfg', dict(WRAPPER_WITHOUT_GPU))
