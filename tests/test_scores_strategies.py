"""Strategies that rank the images of a detection dataset by a score: whole runs on ten small
pictures."""

import json
import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
from pruning_runs import fails, option, quick, run, samples  # noqa: F401

from adadedup_mm.datasets.outlines import outline
from adadedup_mm.pruning.prune import prune
from adadedup_mm.settings.load import load_config
from adadedup_mm.settings.options import resolve_options
from adadedup_mm.strategies import trainings

ROOT = Path(__file__).parents[1]
TRAINED = ['el2n', 'grand', 'forgetting', 'loss_topk']
CONFIG = """
_base_ = ['{root}/configs/proxy/faster_rcnn_tiny.py', 'adadedup_mm::_base_/adadedup_offline.py']
adadedup = dict(keep_ratio=.5, strategy=dict(type='el2n', runs=1, epochs=1),
    proxy=dict(config='{proxy}'))
train_dataloader = dict(dataset=dict(_delete_=True, type='CocoDataset', data_root='{root_of_data}',
                                     ann_file='train.json', data_prefix=dict(img=''),
                                     metainfo=dict(classes=('square', 'other')),
                                     filter_cfg=dict(filter_empty_gt=False), pipeline=[]))
"""
PROXY = """
_base_ = '{root}/configs/proxy/faster_rcnn_tiny.py'
model = dict(neck=dict(out_channels=16),
             rpn_head=dict(in_channels=16, feat_channels=16),
             roi_head=dict(bbox_roi_extractor=dict(out_channels=16),
                           bbox_head=dict(in_channels=16, fc_out_channels=16)))
pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
            dict(type='Resize', scale=(96, 64), keep_ratio=True), dict(type='PackDetInputs')]
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=pipeline))
test_dataloader = dict(dataset=dict(pipeline=pipeline))
train_cfg = dict(max_epochs=3)
"""


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    root = tmp_path_factory.mktemp('pictures')
    generator = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(10):
        image = generator.integers(100, 130, (64, 96, 3), dtype=np.uint8)
        for _ in range(i % 4):
            x, y, size = *generator.integers(0, 20, 2).tolist(), int(generator.integers(8, 20))
            label = int(generator.integers(2))
            cv2.rectangle(image, (x, y), (x + size, y + size), (255 * label, 30, 200), -1)
            annotations.append(
                dict(
                    id=len(annotations),
                    image_id=i,
                    category_id=label,
                    bbox=[x, y, 2 * size, size],
                    area=size * size,
                    iscrowd=0,
                )
            )
        cv2.imwrite(str(root / f'{i}.png'), image)
        images.append(dict(id=i, file_name=f'{i}.png', height=64, width=96))
    categories = [dict(id=i, name=name) for i, name in enumerate(('square', 'other'))]
    (root / 'train.json').write_text(
        json.dumps(dict(images=images, annotations=annotations, categories=categories))
    )
    (root / 'proxy.py').write_text(PROXY.format(root=ROOT))
    path = root / 'config.py'
    path.write_text(CONFIG.format(root=ROOT, proxy=root / 'proxy.py', root_of_data=root))
    return path


@pytest.fixture(scope='module')
def finished(config, tmp_path_factory):
    """A finished run of el2n with two trainings; do not write into it."""
    return run(config, tmp_path_factory.mktemp('runs') / 'finished', *option(runs=2))


@pytest.fixture(scope='module')
def forgotten(config, tmp_path_factory):
    """The samples of a finished run of forgetting."""
    return samples(
        run(
            config,
            tmp_path_factory.mktemp('runs') / 'forgotten',
            *option(type='forgetting', epochs=2),
        )
    )


@pytest.mark.parametrize('strategy', TRAINED)
def test_the_highest_scores_stay_and_any_other_ratio_is_free(
    strategy, config, tmp_path, monkeypatch
):
    settings = option(type=strategy, epochs=2 if strategy == 'forgetting' else 1)
    work_dir = run(config, tmp_path / 'run', *settings)
    table = samples(work_dir)
    assert 'score' in table.columns
    assert table.kept.sum() == 5
    assert table.score[table.kept].min() >= table.score[~table.kept].max()
    assert list(json.loads((work_dir / 'manifest.json').read_text())['stages']) == [
        'images',
        'score_runs',
        'scores',
    ]
    if strategy in ('el2n', 'forgetting'):
        assert (table.score[[0, 4, 8]] == 0).all() and (table.score[[1, 2, 3]] > 0).all()
    else:
        assert (table.score > 0).all()

    def fail(*args, **kwargs):
        raise AssertionError('trained or measured again')

    monkeypatch.setattr(trainings, 'train_proxy', fail)
    monkeypatch.setattr('adadedup_mm.scores.measure._measure', fail)
    for ratio in (0.2, 1.0):
        again = samples(run(config, work_dir, *settings, '--resume', '--keep-ratio', ratio))
        assert again.kept.sum() == round(10 * ratio)
        assert (again.score == table.score).all()
        assert not list(work_dir.rglob('rows_*.npy')) and not list(work_dir.rglob('epoch_*.pth'))


def test_the_seed_decides_and_other_scores_of_the_same_trainings_need_no_new_ones(
    config, tmp_path, monkeypatch
):
    table = samples(run(config, tmp_path / 'run'))
    assert samples(run(config, tmp_path / 'same')).equals(table)
    other = samples(run(config, tmp_path / 'other', '--cfg-options', 'adadedup.seed=1'))
    assert (other.score != table.score).any()
    monkeypatch.setattr(trainings, 'train_proxy', None)
    gradients = samples(run(config, tmp_path / 'run', '--resume', *option(type='grand')))
    assert (gradients.score != table.score).all()


@pytest.mark.parametrize('stage', ['score_runs', 'scores'])
def test_a_killed_run_resumes_to_the_identical_scores(stage, config, forgotten, tmp_path):
    settings = option(type='forgetting', epochs=2)
    child = os.fork()
    if not child:
        from adadedup_mm import stages

        write = stages.store.write_json
        stages.store.write_json = lambda path, value: (
            os.kill(os.getpid(), signal.SIGKILL)
            if path.parent.name == stage
            else write(path, value)
        )
        run(config, tmp_path / 'killed', *settings)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert samples(run(config, tmp_path / 'killed', *settings, '--resume')).equals(forgotten)


def test_two_processes_find_the_same_scores(config, finished, tmp_path):
    def work(rank):
        settings = load_config(config, {'adadedup.strategy.runs': 2})
        prune(settings, resolve_options(settings), tmp_path / 'two', rank=rank, world=2)

    child = os.fork()
    if not child:
        work(1)
        os._exit(0)
    work(0)
    assert os.waitpid(child, 0)[1] == 0
    assert samples(tmp_path / 'two').equals(samples(finished))
    assert any(
        'rank correlation' in note
        for note in json.loads((finished / 'manifest.json').read_text())['notes']
    )


def test_own_weights_replace_the_trainings(config, finished, tmp_path, capsys):
    weights = finished / 'stages/score_runs/run_0/proxy.pth'
    work_dir = run(
        config, tmp_path / 'run', '--cfg-options', f'adadedup.proxy.checkpoint={weights}'
    )
    assert (samples(work_dir).score > 0).sum() == 7
    assert not list(work_dir.rglob('proxy.pth'))
    assert str(weights) in {
        entry['path'] for entry in json.loads((work_dir / 'manifest.json').read_text())['inputs']
    }
    line = fails(
        capsys,
        config,
        tmp_path / 'no',
        *option(type='forgetting', epochs=2),
        f'adadedup.proxy.checkpoint={weights}',
    )
    assert 'proxy.checkpoint' in line


@pytest.mark.parametrize(
    'settings, words',
    [
        (dict(type='el2n', runs=0), 'adadedup.strategy.runs is 0'),
        (dict(type='grand', epochs=1.5), 'adadedup.strategy.epochs is 1.5'),
        (dict(type='forgetting', epochs=1), 'of at least 2'),
        (dict(type='el2n', rounds=3), 'rounds'),
        (dict(type='el2m'), "'el2n'"),
    ],
)
def test_wrong_arguments_are_named(settings, words, config, tmp_path, capsys):
    assert words in fails(capsys, config, tmp_path / 'run', *option(**settings))


def test_a_proxy_without_assigned_objects_is_refused_before_any_training(
    config, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(trainings, 'train_proxy', None)
    proxy = tmp_path / 'fcos.py'
    proxy.write_text(f"""
_base_ = '{ROOT}/configs/proxy/faster_rcnn_tiny.py'
model = dict(_delete_=True, type='FCOS',
             data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=32),
             backbone=dict(type='ResNet', depth=18, base_channels=4, norm_eval=False),
             neck=dict(type='FPN', in_channels=[4, 8, 16, 32], out_channels=8, num_outs=5),
             bbox_head=dict(type='FCOSHead', num_classes=2, in_channels=8, feat_channels=8,
             stacked_convs=1,
                            norm_cfg=None, strides=[4, 8, 16, 32, 64]))
""")
    line = fails(
        capsys, config, tmp_path / 'run', '--cfg-options', f'adadedup.proxy.config={proxy}'
    )
    assert 'FCOS' in line and 'adadedup.proxy.config' in line


def test_a_proxy_that_counts_iterations_is_refused(config, tmp_path, capsys):
    proxy = tmp_path / 'iterations.py'
    proxy.write_text(
        f"_base_ = '{config.parent}/proxy.py'\n"
        "train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=4)"
    )
    line = fails(
        capsys,
        config,
        tmp_path / 'run',
        '--cfg-options',
        f'adadedup.proxy.config={proxy}',
        'adadedup.strategy.epochs=None',
    )
    assert 'iterations' in line and 'max_epochs' in line


def test_shapes_need_no_training_and_every_class_weighs_the_same(config, tmp_path):
    table = samples(run(config, tmp_path / 'run', '--strategy', 'tfdp'))
    annotations = json.loads((config.parent / 'train.json').read_text())['annotations']
    # All boxes have the same shape here, so that an object's share is one by the number of its
    # class.
    numbers = np.bincount([item['category_id'] for item in annotations])
    expected = np.zeros(10)
    for item in annotations:
        expected[item['image_id']] += 1 / numbers[item['category_id']]
    assert table.score.to_numpy() == pytest.approx(expected)
    assert table.kept.sum() == 5
    notes = json.loads((tmp_path / 'run/manifest.json').read_text())['notes']
    assert any(note.startswith(f'0 of {len(annotations)} objects have a mask') for note in notes)


def test_outlines_are_those_of_the_largest_part_of_a_mask():
    square, small = [0, 0, 10, 0, 10, 10, 0, 10], [20, 20, 22, 20, 22, 22, 20, 22]
    assert outline(dict(mask=[small, square], bbox=[0, 0, 99, 99])) == (40, 100)
    assert outline(dict(bbox=[5, 5, 15, 10])) == (30, 50)
    assert outline(dict(bbox=[5, 5, 5, 10])) == (10, 0)
    assert outline(dict(bbox=[np.nan] * 4)) == outline({}) == (0, 0)
    from pycocotools import mask as coco_masks

    pixels = np.zeros((20, 30), np.uint8)
    pixels[3:14, 5:16] = 1
    pixels[18, 28] = 1
    assert outline(dict(mask=coco_masks.encode(np.asfortranarray(pixels)))) == (40, 100)
    runs = np.flatnonzero(np.diff(pixels.ravel(order='F'), prepend=0, append=0))
    assert outline(dict(mask=dict(size=[20, 30], counts=np.diff([0, *runs, 600]).tolist()))) == (
        40,
        100,
    )
