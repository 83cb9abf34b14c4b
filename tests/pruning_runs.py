"""Runs of tools/prune.py inside the test's own process."""

from unittest import mock

import pyarrow.parquet as pq
import pytest

from adadedup_mm.cli.prune import main as prune_main
from adadedup_mm.datasets import read_pool


@pytest.fixture(scope='module', autouse=True)
def quick():
    """Without formatting configs and collecting garbage, half of the time of such short trainings.

    A module that imports it has it for all of its tests.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mmengine.config.config.FormatCode', lambda text, **options: (text, True))
        patch.setattr('gc.collect', lambda *arguments: 0)
        yield


def read_without_images(config):
    """The pool and the sources of a training set whose pictures are nowhere."""
    reading = 'adadedup_mm.datasets.reading'
    with mock.patch(f'{reading}.check_folders'), mock.patch(f'{reading}.check_images'):
        return read_pool(config)


def run(config, work_dir, *arguments):
    prune_main([str(config), '--work-dir', str(work_dir), *map(str, arguments)])
    return work_dir


def samples(work_dir):
    return pq.read_table(work_dir / 'samples.parquet').to_pandas()


def fails(capsys, config, work_dir, *arguments):
    with pytest.raises(SystemExit) as stop:
        run(config, work_dir, *arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    [line] = [line for line in error.splitlines() if line.startswith('error: ')]
    assert 'Traceback' not in error and not work_dir.exists()
    return line


def option(**strategy):
    return [
        '--cfg-options',
        *(f'adadedup.strategy.{name}={value}' for name, value in strategy.items()),
    ]
