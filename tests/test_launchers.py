"""Several processes: the scripts that start them, and the GPU of each."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pruning_runs import samples
from test_pipeline import config, finished, selection  # noqa: F401

from adadedup_mm.base.errors import UserError
from adadedup_mm.cli.prune import main as prune_main
from adadedup_mm.engine import open_group, rank_and_world, take_gpu

TOOLS = Path(__file__).parents[1] / 'tools'


def start(script, *arguments, path='', **environment):
    variables = {
        name: value for name, value in os.environ.items() if name not in ('GPUS', 'PORT', 'NNODES')
    }
    variables |= dict(
        PATH=f'{path}{os.pathsep}{os.environ["PATH"]}',
        OMP_NUM_THREADS='1',
        CUDA_VISIBLE_DEVICES='',
        PYTHONPATH=str(TOOLS.parent),
        **environment,
    )
    return subprocess.run(
        ['bash', TOOLS / script, *map(str, arguments)],
        env=variables,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def echo(tmp_path):
    """A folder with an ``srun`` and a ``python`` that only print what they are asked to do."""
    for name in ('srun', 'python'):
        (tmp_path / name).write_text('#!/bin/sh\necho "$@"\n')
        (tmp_path / name).chmod(0o755)
    return tmp_path


@pytest.mark.parametrize('tool', ['prune', 'train'])
def test_torchrun_starts_a_process_for_each_gpu(tool, echo):
    line = start(
        f'dist_{tool}.sh', 'my config.py', 4, '--work-dir', 'out', path=echo
    ).stdout.split()
    assert line == [
        '-m',
        'torch.distributed.run',
        '--nnodes',
        '1',
        '--node_rank',
        '0',
        '--master_addr',
        '127.0.0.1',
        '--master_port',
        '29500',
        '--nproc_per_node',
        '4',
        str(TOOLS / f'{tool}.py'),
        'my',
        'config.py',
        '--launcher',
        'pytorch',
        '--work-dir',
        'out',
    ]
    several = dict(NNODES='2', NODE_RANK='1', MASTER_ADDR='head', PORT='3')
    nodes = start(f'dist_{tool}.sh', 'c.py', 8, path=echo, **several).stdout
    assert '--nnodes 2 --node_rank 1 --master_addr head --master_port 3 --nproc_per_node 8' in nodes


@pytest.mark.parametrize('tool', ['prune', 'train'])
def test_slurm_starts_a_task_for_each_gpu(tool, echo):
    line = start(
        f'slurm_{tool}.sh',
        'part',
        'job',
        'c.py',
        'out',
        '--resume',
        path=echo,
        GPUS='16',
        SRUN_ARGS='--exclude bad --time 60',
    ).stdout.split()
    assert line == [
        '--partition',
        'part',
        '--job-name',
        'job',
        '--ntasks',
        '16',
        '--ntasks-per-node',
        '8',
        '--gres',
        'gpu:8',
        '--cpus-per-task',
        '5',
        '--kill-on-bad-exit=1',
        '--exclude',
        'bad',
        '--time',
        '60',
        'python',
        '-u',
        str(TOOLS / f'{tool}.py'),
        'c.py',
        '--work-dir',
        'out',
        '--launcher',
        'slurm',
        '--resume',
    ]


@pytest.mark.parametrize(
    'script', ['dist_prune.sh', 'dist_train.sh', 'slurm_prune.sh', 'slurm_train.sh']
)
def test_too_few_arguments_show_the_usage(script, echo):
    done = start(script, 'c.py', path=echo)
    assert done.returncode == 2 and done.stderr.startswith(f'usage: {script} ') and not done.stdout


def test_two_processes_of_the_script_select_what_one_does(config, finished, tmp_path):  # noqa: F811
    done = start(
        'dist_prune.sh',
        config,
        2,
        '--work-dir',
        tmp_path,
        path=Path(sys.executable).parent,
        PORT='29531',
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert selection(tmp_path) == selection(finished)
    for stage in ('features', 'clusters', 'density'):
        files = [
            {path.name: path.read_bytes() for path in (work_dir / 'stages' / stage).glob('*.npy')}
            for work_dir in (tmp_path, finished)
        ]
        assert files[0] == files[1]


def test_two_processes_of_the_script_train_the_proxy_together(config, finished, tmp_path):  # noqa: F811
    done = start(
        'dist_prune.sh',
        config,
        2,
        '--work-dir',
        tmp_path,
        '--cfg-options',
        'adadedup.proxy.distributed=True',
        path=Path(sys.executable).parent,
        PORT='29532',
    )
    assert done.returncode == 0, done.stderr[-3000:]
    logs = [
        (work_dir / 'stages/proxy/training.log').read_text() for work_dir in (tmp_path, finished)
    ]
    assert [log.count('Distributed training: True') for log in logs] == [1, 0]
    assert len(samples(tmp_path)) == len(samples(finished))
    keys = [
        json.loads((work_dir / 'stages/proxy/done.json').read_text())['key']
        for work_dir in (tmp_path, finished)
    ]
    assert keys[0] != keys[1]
    assert (
        json.loads((tmp_path / 'manifest.json').read_text())['options']['proxy']['distributed']
        is True
    )


@pytest.mark.parametrize(
    'launcher, environment, gpu',
    [
        ('none', dict(LOCAL_RANK='1'), None),
        ('pytorch', dict(RANK='5', WORLD_SIZE='8', LOCAL_RANK='1'), 1),
        ('pytorch', dict(RANK='6', WORLD_SIZE='8', LOCAL_RANK='6'), 2),
        ('slurm', dict(SLURM_PROCID='9', SLURM_NTASKS='16', SLURM_LOCALID='3'), 3),
        ('slurm', dict(SLURM_PROCID='6', SLURM_NTASKS='16'), 2),
    ],
)
def test_every_process_has_a_gpu_of_its_own(launcher, environment, gpu, monkeypatch):
    taken = []
    for name in ('RANK', 'LOCAL_RANK', 'SLURM_LOCALID'):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 4)
    monkeypatch.setattr(torch.cuda, 'set_device', taken.append)
    take_gpu(launcher)
    assert taken == ([] if gpu is None else [gpu])


@pytest.mark.parametrize('local_rank', ['abc', '', '-1'])
def test_an_index_on_its_machine_that_is_none_is_named(local_rank, monkeypatch):
    for name, value in dict(RANK='0', WORLD_SIZE='1', LOCAL_RANK=local_rank).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    with pytest.raises(UserError, match=f"LOCAL_RANK is '{local_rank}'"):
        take_gpu('pytorch')


@pytest.mark.parametrize(
    'rank, world', [('abc', '1'), ('0', '0'), ('0', ''), ('2', '2'), ('-1', '2'), (None, '2')]
)
@pytest.mark.parametrize(
    'launcher, names',
    [('pytorch', ('RANK', 'WORLD_SIZE')), ('slurm', ('SLURM_PROCID', 'SLURM_NTASKS'))],
)
def test_variables_of_a_launcher_that_say_nothing_are_named(
    launcher, names, rank, world, monkeypatch
):
    for name, value in zip(names, (rank, world), strict=True):
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(
            name, value
        )
    with pytest.raises(UserError, match=f'{names[0]} .*{names[1]}.* start it with'):
        rank_and_world(launcher)


@pytest.mark.parametrize(
    'launcher, gpu, opened',
    [('none', True, []), ('slurm', True, ['slurm']), ('pytorch', False, [('gloo', 1, 2)])],
)
def test_the_process_group_is_that_of_the_launcher(launcher, gpu, opened, monkeypatch):
    from adadedup_mm.engine import launchers

    calls = []
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    monkeypatch.setattr(launchers, 'init_dist', calls.append)
    monkeypatch.setattr(
        torch.distributed,
        'init_process_group',
        lambda backend, rank, world_size: calls.append((backend, rank, world_size)),
    )
    monkeypatch.setenv('RANK', '1')
    monkeypatch.setenv('WORLD_SIZE', '2')
    open_group(launcher)
    assert calls == opened
    monkeypatch.setattr(launchers, 'is_distributed', lambda: True)
    open_group(launcher)
    assert calls == opened


def test_the_tool_takes_its_gpu_before_it_makes_the_embedder(config, tmp_path, monkeypatch):  # noqa: F811
    from adadedup_mm.cli import prune
    from adadedup_mm.pruning import prune as pipeline

    calls = []
    monkeypatch.setattr(prune, 'take_gpu', lambda launcher: calls.append(f'GPU of {launcher}'))
    monkeypatch.setattr(pipeline, 'Run', lambda *args: calls.append('embedder') or sys.exit(0))
    monkeypatch.setenv('RANK', '0')
    monkeypatch.setenv('WORLD_SIZE', '1')
    with pytest.raises(SystemExit):
        prune_main([str(config), '--work-dir', str(tmp_path / 'run'), '--launcher', 'pytorch'])
    assert calls == ['GPU of pytorch', 'embedder']
