"""A new annotation format is one file outside the package, which a config names."""

import json
import sys

import pytest
from mmengine.config import Config
from test_contributing import examples
from test_datasets import make_image

from adadedup_mm.cli.prune import main as prune_main
from adadedup_mm.datasets import read_pool
from adadedup_mm.settings.load import load_config

MODULE = examples()['An annotation format'].code
COUNT = 8


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A config on disk, whose training set is in a format that the package does not know."""
    monkeypatch.syspath_prepend(tmp_path / 'code')
    monkeypatch.delitem(sys.modules, 'line_format', raising=False)
    (tmp_path / 'code').mkdir()
    (tmp_path / 'code/line_format.py').write_text(MODULE)
    lines = []
    for number in range(COUNT):
        make_image(tmp_path / f'images/{number}.jpg')
        lines.append(f'{number}.jpg 1 2 9 8 {number % 2} 3 3 7 7 1')
    (tmp_path / 'boxes.txt').write_text('\n'.join(lines) + '\n')
    dataset = dict(
        type='LineDataset',
        ann_file=str(tmp_path / 'boxes.txt'),
        data_prefix=dict(img_path=str(tmp_path / 'images')),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='PackDetInputs'),
        ],
    )
    content = Config(
        dict(
            default_scope='mmdet',
            custom_imports=dict(imports=['line_format']),
            train_dataloader=dict(batch_size=2, dataset=dataset),
            adadedup=dict(keep_ratio=0.5, strategy='random', embedder=dict(type='PixelEmbedder')),
        )
    )
    content.dump(tmp_path / 'config.py')
    yield tmp_path / 'config.py'
    forget()


def forget():
    """Takes the classes of the module out of the registries."""
    from mmengine.registry import DATASETS

    from adadedup_mm.annotations import FORMATS

    FORMATS.module_dict.pop('BoxLines', None)
    DATASETS.module_dict.pop('LineDataset', None)


def test_a_format_of_ones_own_is_pruned(config, tmp_path):
    prune_main([str(config), '--work-dir', str(tmp_path / 'run')])
    [file] = (tmp_path / 'run/annotations').iterdir()
    assert file.name == 'boxes.txt'
    kept = file.read_text().splitlines()
    before = (tmp_path / 'boxes.txt').read_text().splitlines()
    assert len(kept) == COUNT // 2
    # The lines are as they were, in their order.
    assert kept == [line for line in before if line in kept]
    manifest = json.loads((tmp_path / 'run/manifest.json').read_text())
    assert [file['kept'] for file in manifest['files']] == [COUNT // 2]


def test_the_pruned_config_trains_on_the_pruned_file(config, tmp_path):
    prune_main([str(config), '--work-dir', str(tmp_path / 'run')])
    pruned = load_config(tmp_path / 'run/config.py')
    dataset = pruned.train_dataloader.dataset
    assert dataset.type == 'LineDataset'
    assert dataset.ann_file == str(tmp_path / 'run/annotations/boxes.txt')
    pool, [source] = read_pool(pruned)
    assert source.kind == 'BoxLines'
    names = [line.split()[0] for line in (tmp_path / 'run/annotations/boxes.txt').open()]
    assert list(pool.sample_ids) == names
