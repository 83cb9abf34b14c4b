"""Nothing is written beside the data, whatever a dataset class would leave there."""

import json
import os
import shutil
from pathlib import Path

import pytest
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS
from PIL import Image
from test_datasets import config_of, make_coco, make_crowd_human
from test_pipeline import fails

from adadedup_mm.base.errors import UserError
from adadedup_mm.cli.prune import main as prune_main
from adadedup_mm.datasets import read_pool
from adadedup_mm.datasets.originals import untouched

COUNT = 6


def snapshot(folder):
    return {
        path.relative_to(folder): path.is_file() and path.read_bytes() for path in folder.rglob('*')
    }


def crowd_human(root, cache=False, **options):
    """A folder of CrowdHuman's, and a config on disk that prunes it."""
    root.mkdir(exist_ok=True)
    dataset = make_crowd_human(root / 'data', COUNT)
    if not cache:
        (root / 'data/id_hw_train.json').unlink()
    for i in range(COUNT):
        Image.new('RGB', (20, 10), (40 * i, 0, 0)).save(root / f'data/images/person{i}.jpg')
    return write(root, dataset, **options)


def write(root, dataset, **options):
    adadedup = (
        dict(keep_ratio=0.5, strategy='clip_dedup', embedder=dict(type='PixelEmbedder')) | options
    )
    config_of(dataset, adadedup=adadedup).dump(root / 'config.py')
    return root / 'config.py'


@pytest.mark.parametrize(
    'arguments', [['--dry-run'], [], ['--strategy', 'tfdp'], ['--strategy', 'random']]
)
def test_the_cache_of_crowd_human_is_not_left_beside_the_data(arguments, tmp_path):
    config = crowd_human(tmp_path / 'in')
    before = snapshot(tmp_path / 'in')
    prune_main([str(config), '--work-dir', str(tmp_path / 'run'), *arguments])
    assert snapshot(tmp_path / 'in') == before
    assert (tmp_path / 'run').exists() == ('--dry-run' not in arguments)


def test_a_proxy_that_reads_the_data_leaves_nothing_there(tmp_path):
    config = crowd_human(
        tmp_path / 'in',
        strategy=dict(type='el2n', runs=1, epochs=1),
        proxy=dict(config='adadedup_mm::proxy/faster_rcnn_tiny.py'),
    )
    before = snapshot(tmp_path / 'in')
    prune_main([str(config), '--work-dir', str(tmp_path / 'run')])
    assert snapshot(tmp_path / 'in') == before


def test_neither_is_it_left_in_the_current_folder(tmp_path, monkeypatch):
    config = crowd_human(tmp_path / 'in')
    text = config.read_text().replace(f"data_root='{tmp_path}/in/data/'", "data_root=''")
    config.write_text(
        text.replace("img='images/'", f"img='{tmp_path}/in/data/images/'").replace(
            "ann_file='annotation", f"ann_file='{tmp_path}/in/data/annotation"
        )
    )
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    prune_main([str(config), '--work-dir', 'run'])
    assert [path.name for path in Path().iterdir()] == ['run']


def older_subset(root):
    (root / 'id_hw_train.json').write_text(
        json.dumps({f'person{i}': [10, 20] for i in range(COUNT - 2)})
    )


def other_images(root):
    (root / 'id_hw_train.json').write_text(
        json.dumps({f'person{i}': [100, 20] for i in range(COUNT)})
    )


@pytest.mark.parametrize(
    'damage, words',
    [(older_subset, 'lacks 2 of 6, first person4'), (other_images, 'person0 has 20 x 10 pixels')],
)
def test_a_cache_of_another_file_is_not_taken(damage, words, tmp_path, capsys):
    config = crowd_human(tmp_path / 'in', cache=True)
    prune_main([str(config), '--work-dir', str(tmp_path / 'run')])
    damage(tmp_path / 'in/data')
    line = fails([config, '--work-dir', tmp_path / 'other'], capsys)
    assert words in line and 'id_hw_train.json' in line and 'remove it' in line


def test_a_cache_of_more_images_serves(tmp_path):
    config = crowd_human(tmp_path / 'in', cache=True)
    file = tmp_path / 'in/data/id_hw_train.json'
    file.write_text(json.dumps(json.loads(file.read_text()) | dict(stranger=[1, 2])))
    prune_main([str(config), '--work-dir', str(tmp_path / 'run')])


def cache_in_json(dataset):
    Path(dataset.data_root, 'cache.json').write_text('{}')


def cache_in_a_folder(dataset):
    os.makedirs(Path(dataset.data_root, 'cache/deep'))


def changed_annotations(dataset):
    with open(dataset.ann_file, 'a') as file:
        file.write(' ')


def image_moved(dataset):
    os.rename(Path(dataset.data_root, 'images/1.png'), Path(dataset.data_root, 'images/one.png'))


def image_removed(dataset):
    Path(dataset.data_root, 'images/1.png').unlink()


def copy_beside(dataset):
    shutil.copy(dataset.ann_file, Path(dataset.data_root, 'images/train.json'))


def link_beside(dataset):
    Path(dataset.data_root, 'link').symlink_to('train.json')


@pytest.mark.parametrize(
    'act',
    [
        cache_in_json,
        cache_in_a_folder,
        changed_annotations,
        image_moved,
        image_removed,
        copy_beside,
        link_beside,
    ],
)
@pytest.mark.parametrize('swallows', [True, False])
def test_a_dataset_class_that_writes_is_kept_from_it(act, swallows, tmp_path, capsys):
    from mmdet.datasets import CocoDataset

    @DATASETS.register_module(force=True)
    class WritingDataset(CocoDataset):
        def load_data_list(self):
            try:
                act(self)
            except OSError:
                if not swallows:
                    raise
            return super().load_data_list()

    try:
        (tmp_path / 'in').mkdir()
        dataset = make_coco(tmp_path / 'in/data', ids=range(COUNT))
        config = write(tmp_path / 'in', dict(dataset, type='WritingDataset'))
        before = snapshot(tmp_path / 'in')
        arguments = [str(config), '--work-dir', str(tmp_path / 'run'), '--strategy', 'random']
        for more in ([], ['--dry-run']):
            if swallows:
                prune_main([*arguments, *more])
            else:
                assert 'beside the originals, which are never written to' in fails(
                    [*arguments, *more], capsys
                )
            assert snapshot(tmp_path / 'in') == before
    finally:
        DATASETS.module_dict.pop('WritingDataset')


def test_a_dataset_that_writes_while_it_is_built_is_one_line_too(tmp_path):
    @DATASETS.register_module(force=True)
    class EagerDataset(BaseDataset):
        def __init__(self, **settings):
            cache_in_json(type('Place', (), dict(data_root=settings['data_root'])))
            super().__init__(**settings)

    try:
        make_coco(tmp_path / 'data')
        with pytest.raises(UserError, match='never written to'):
            read_pool(
                config_of(
                    dict(
                        type='EagerDataset', data_root=str(tmp_path / 'data'), ann_file='train.json'
                    )
                )
            )
        assert not (tmp_path / 'data/cache.json').exists()
    finally:
        DATASETS.module_dict.pop('EagerDataset')


def test_a_work_dir_among_the_data_can_be_written(tmp_path):
    dataset = make_coco(tmp_path / 'data', ids=range(COUNT))
    for i in range(COUNT):
        Image.new('RGB', (20, 10), (40 * i, 0, 0)).save(tmp_path / f'data/images/{i}.png')
    config = write(tmp_path, dataset, shared_stages=str(tmp_path / 'data/new/shared'))
    prune_main([str(config), '--work-dir', str(tmp_path / 'data/pruned/a')])
    assert (tmp_path / 'data/pruned/a/manifest.json').exists()


def test_only_what_is_inside_is_kept_and_only_for_as_long(tmp_path):
    (tmp_path / 'data/own').mkdir(parents=True)
    with untouched([tmp_path / 'data'], but=[tmp_path / 'data/own', tmp_path]):
        (tmp_path / 'beside').write_text('')
        (tmp_path / 'data-beside').write_text('')
        (tmp_path / 'data/own/a').write_text('')
        with pytest.raises(PermissionError):
            (tmp_path / 'data/a').write_text('')
        with (
            pytest.raises(UserError, match='data/a would be written'),
            untouched([tmp_path / 'other']),
        ):
            (tmp_path / 'data/a').write_text('')
        assert (tmp_path / 'data/own/a').read_text() == ''
    (tmp_path / 'data/a').write_text('')
    with pytest.raises(UserError, match='data/b would be written'), untouched([tmp_path / 'data']):
        (tmp_path / 'data/b').write_text('')
