"""Strategies for image classification: whole runs on digits, on folders of classes, and on made-up
CIFAR files."""

import pickle
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from pruning_runs import fails, option, quick, run, samples  # noqa: F401

from adadedup_mm.datasets import read_pool
from adadedup_mm.settings.load import load_config

pytest.importorskip('mmpretrain')

ROOT = Path(__file__).parents[1]
TRAINED = ['el2n', 'grand', 'forgetting', 'loss_topk']
DIGITS = """
_base_ = ['{root}/configs/dynamic/resnet_digits.py', 'adadedup_mm::_base_/adadedup.py']
adadedup = dict(keep_ratio=.3, strategy=dict(type='el2n', runs=1, epochs=1))
train_dataloader = dict(dataset=dict(indices=300))
model = dict(backbone=dict(stem_channels=4, base_channels=4), head=dict(in_channels=32))
train_cfg = dict(max_epochs=2, val_interval=2)
"""


@pytest.fixture
def digits(tmp_path):
    pytest.importorskip('sklearn')
    path = tmp_path / 'digits.py'
    path.write_text(DIGITS.format(root=ROOT))
    return path


@pytest.mark.parametrize('strategy', [*TRAINED, 'random'])
def test_classifiers_are_trained_by_their_own_config(strategy, digits, tmp_path):
    arguments = (
        ['--strategy', strategy] if strategy == 'random' else option(type=strategy, epochs=2)
    )
    work_dir = run(digits, tmp_path / 'run', *arguments)
    table = samples(work_dir)
    assert table.kept.sum() == 90
    if strategy == 'el2n':
        assert table.score.between(0, np.sqrt(2)).all()
    if strategy == 'forgetting':
        assert set(table.score) <= {0, 1, 2}
    config = load_config(work_dir / 'config.py')
    from mmengine.registry import DATASETS, DefaultScope

    with DefaultScope.overwrite_default_scope('mmpretrain'):
        assert len(DATASETS.build(config.train_dataloader.dataset)) == table.kept.sum()


def test_a_classifier_trains_on_the_chosen_samples_through_our_runner(digits, tmp_path):
    from adadedup_mm.cli.train import main as train_main

    train_main(
        [
            str(digits),
            '--work-dir',
            str(tmp_path / 'run'),
            '--cfg-options',
            'default_hooks.checkpoint.interval=2',
        ]
    )
    assert (tmp_path / 'run/epoch_2.pth').exists()
    assert samples(tmp_path / 'run/adadedup').kept.sum() == 90
    # 90 samples in batches of 32.
    assert load_state(tmp_path / 'run/epoch_2.pth')['iter'] + 1 == 2 * 3


def load_state(path):
    import torch

    return torch.load(path, map_location='cpu')['message_hub']['runtime_info']


@pytest.mark.parametrize(
    'strategy, words', [('clip_dedup', 'arrays, not files'), ('tfdp', 'neither')]
)
def test_strategies_that_need_more_than_labels_say_so(strategy, words, digits, tmp_path, capsys):
    line = fails(capsys, digits, tmp_path / 'run', '--strategy', strategy)
    assert (words if strategy == 'clip_dedup' else 'mask or a box') in line


def cifar(root, count=20):
    """CIFAR-100's files with random pictures; their checksums leave the dataset class."""
    from mmpretrain.datasets import CIFAR100

    folder = root / CIFAR100.base_folder
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name in ('train', 'test'):
        (folder / name).write_bytes(
            pickle.dumps(
                dict(
                    data=generator.integers(0, 255, (count, 3072), dtype=np.uint8),
                    fine_labels=[i % 7 for i in range(count)],
                )
            )
        )
    (folder / 'meta').write_bytes(
        pickle.dumps(dict(fine_label_names=[f'c{i}' for i in range(100)]))
    )
    return dict(
        train_list=[['train', None]], test_list=[['test', None]], meta=dict(CIFAR100.meta, md5=None)
    )


def test_cifar_is_a_pool_of_arrays(tmp_path, monkeypatch):
    from mmpretrain.datasets import CIFAR100

    for name, value in cifar(tmp_path).items():
        monkeypatch.setattr(CIFAR100, name, value)
    path = tmp_path / 'config.py'
    path.write_text(
        "_base_ = ['mmpretrain::resnet/resnet18_8xb16_cifar10.py', "
        "'adadedup_mm::_base_/adadedup.py']\n"
        'model = dict(head=dict(num_classes=100))\n'
        f"train_dataloader = dict(dataset=dict(type='CIFAR100', data_root='{tmp_path}'))"
    )
    pool, [source] = read_pool(load_config(path))
    assert pool.sample_ids == tuple(map(str, range(20))) and source.kind == 'ids'
    assert pool.labels.tolist() == [i % 7 for i in range(20)] and len(pool.classes) == 100
    work_dir = run(path, tmp_path / 'run', '--strategy', 'uniform_stride', '--keep-ratio', 0.25)
    assert (work_dir / 'annotations/dataset_ids.txt').read_text().split() == [
        '0',
        '4',
        '8',
        '12',
        '16',
    ]
    assert pq.read_table(work_dir / 'classes.parquet')['images'].to_pylist()[:8] == [
        3,
        3,
        3,
        3,
        3,
        3,
        2,
        0,
    ]


def test_missing_cifar_files_are_named(tmp_path, capsys):
    path = tmp_path / 'config.py'
    path.write_text(
        "_base_ = ['mmpretrain::resnet/resnet18_8xb16_cifar10.py', "
        "'adadedup_mm::_base_/adadedup.py']\n"
        f"train_dataloader = dict(dataset=dict(data_root='{tmp_path}/none', download=False))"
    )
    assert str(tmp_path / 'none') in fails(capsys, path, tmp_path / 'run', '--strategy', 'random')


@pytest.mark.parametrize('ann_file', ['', 'list.txt'])
def test_folders_of_classes_are_a_pool_of_files(ann_file, tmp_path):
    lines = []
    for i in range(12):
        name = f'{"ab"[i % 2]}/{i:02d}.png'
        (tmp_path / 'images' / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / 'images' / name), np.full((8, 8, 3), i, np.uint8))
        lines.append(f'{name} {i % 2}')
    (tmp_path / 'list.txt').write_text('\n'.join(lines))
    path = tmp_path / 'config.py'
    path.write_text(f"""
_base_ = ['mmpretrain::resnet/resnet18_8xb32_in1k.py', 'adadedup_mm::_base_/adadedup.py']
adadedup = dict(embedder=dict(type='PixelEmbedder', _delete_=True))
model = dict(head=dict(num_classes=2))
train_dataloader = dict(dataset=dict(_delete_=True, type='CustomDataset', data_root='{tmp_path}',
    data_prefix='images',
                                     ann_file='{ann_file}', classes=('a', 'b'),
                                     pipeline=[dict(type='PackInputs')]))
""")
    pool, [source] = read_pool(load_config(path))
    assert (
        len(pool) == 12
        and pool.classes == ('a', 'b')
        and np.bincount(pool.labels).tolist() == [6, 6]
    )
    assert 'images/a/00.png' in pool.sample_ids
    for strategy in ('random', 'clip_dedup'):
        work_dir = run(path, tmp_path / strategy, '--strategy', strategy, '--keep-ratio', 0.5)
        names = (
            work_dir / 'annotations' / f'{source.ann_file.stem if ann_file else "dataset"}_ids.txt'
        ).read_text()
        assert len(names.split()) == 6 and set(names.split()) <= set(pool.sample_ids)
