import json
import pickle
import random
from pathlib import Path

import cv2
import mmdet
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import HistoryBuffer, MessageHub, MMLogger
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.visualization import Visualizer
from shared_work import do_pieces, do_work

from adadedup_mm.base.errors import UserError
from adadedup_mm.base.files import write_array
from adadedup_mm.detectors.checkpoint import load_detector, load_weights
from adadedup_mm.detectors.config import scoring_dataset, training_dataset
from adadedup_mm.proxy import (
    loss_shards,
    per_sample_losses,
    proxy_config,
    train_proxy,
)
from adadedup_mm.proxy.train import _ProxyHook

MMDET = Path(mmdet.__file__).parent / '.mim' / 'configs'
OURS = Path(__file__).parents[1] / 'configs' / 'proxy'
SIZES = [(40, 60), (60, 40), (48, 60)]
CLASSES = ('square', 'other')


@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    """The config of a COCO dataset of ten images of three sizes; the first has no objects."""
    root = tmp_path_factory.mktemp('world')
    generator = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(10):
        height, width = SIZES[i % 3]
        image = generator.integers(100, 130, (height, width, 3), dtype=np.uint8)
        for _ in range(i % 4):
            x, y, size = *generator.integers(0, 20, 2).tolist(), int(generator.integers(8, 20))
            label = int(generator.integers(2))
            cv2.rectangle(image, (x, y), (x + size, y + size), (255 * label, 30, 200), -1)
            annotations.append(
                dict(
                    id=len(annotations),
                    image_id=i,
                    category_id=label,
                    bbox=[x, y, size, size],
                    area=size * size,
                    iscrowd=0,
                )
            )
        cv2.imwrite(str(root / f'{i}.png'), image)
        images.append(dict(id=i, file_name=f'{i}.png', height=height, width=width))
    categories = [dict(id=i, name=name) for i, name in enumerate(CLASSES)]
    (root / 'train.json').write_text(
        json.dumps(dict(images=images, annotations=annotations, categories=categories))
    )
    return dict(
        type='CocoDataset',
        data_root=str(root),
        ann_file='train.json',
        data_prefix=dict(img=''),
        metainfo=dict(classes=CLASSES),
        filter_cfg=dict(filter_empty_gt=False),
        pipeline=[dict(type='Unused')],
    )


def small_config(epochs=3, **changes):
    """The small default proxy, smaller."""
    config = proxy_config(Config.fromfile(OURS / 'faster_rcnn_tiny.py'), len(CLASSES), epochs)
    config.merge_from_dict({'train_dataloader.batch_size': 4} | changes)
    for loader in (config.train_dataloader, config.test_dataloader):
        next(step for step in loader.dataset.pipeline if step.type == 'Resize').scale = (96, 64)
    return config


@pytest.fixture(scope='module')
def trained(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp('trained')
    return train_proxy(small_config(), dataset, folder, seed=5)


def sizes_of(dataset):
    images = json.loads(Path(dataset['data_root'], 'train.json').read_text())['images']
    return np.array([[image['height'], image['width']] for image in images])


@pytest.mark.parametrize('stop', [(0, 1), (1, 2)])
def test_interrupted_training_ends_with_identical_weights(
    stop, trained, dataset, tmp_path, monkeypatch
):
    original = _ProxyHook.after_train_iter

    def interrupt(self, runner, batch_idx, data_batch=None, outputs=None):
        original(self, runner, batch_idx, data_batch, outputs)
        if (runner.epoch, batch_idx) == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr(_ProxyHook, 'after_train_iter', interrupt)
    with pytest.raises(KeyboardInterrupt):
        train_proxy(small_config(), dataset, tmp_path, seed=5)
    assert not (tmp_path / 'proxy.pth').exists()
    monkeypatch.undo()
    np.random.rand(3)
    weights = load_weights(train_proxy(small_config(), dataset, tmp_path, seed=5))
    expected = load_weights(trained)
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[key], value) for key, value in expected.items())


def test_finished_training_is_not_repeated(trained, dataset, monkeypatch):
    monkeypatch.setattr('adadedup_mm.proxy.train.Runner', None)
    assert train_proxy(small_config(), dataset, trained.parent, seed=5) == trained


def test_training_learns_and_follows_its_seed(trained, dataset, tmp_path):
    log = (trained.parent / 'training.log').read_text()
    assert 'Epoch(train) [3][3/3]' in log
    other = load_weights(train_proxy(small_config(epochs=1), dataset, tmp_path, seed=6))
    assert not torch.equal(
        other['rpn_head.rpn_conv.weight'], load_weights(trained)['rpn_head.rpn_conv.weight']
    )


def test_the_process_is_as_it_was(dataset, tmp_path, capsys):
    def state():
        kinds = (MMLogger, MessageHub, Visualizer, DefaultScope)
        return [
            random.getstate(),
            np.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist(),
            [list(kind._instance_dict) for kind in kinds],
            cv2.getNumThreads(),
            torch.backends.cudnn.benchmark,
            torch.multiprocessing.get_start_method(allow_none=True),
            torch.distributed.is_initialized,
        ]

    MessageHub.get_instance('mine')
    DefaultScope.get_instance('mine', scope_name='mmengine')
    before = state()
    config = small_config(epochs=1, env_cfg=dict(cudnn_benchmark=True))
    checkpoint = train_proxy(config, dataset, tmp_path)
    shards = loss_shards(
        config, checkpoint, lambda folder: dataset, np.arange(2), np.zeros((2, 2)), write_array
    )
    do_work(shards, tmp_path / 'losses')
    assert state() == before
    assert DefaultScope.get_current_instance().scope_name == 'mmengine'
    assert capsys.readouterr().out == ''
    assert not list(tmp_path.rglob('*.tmp')) and not (tmp_path / 'last_epoch.pth').exists()


def test_training_runs_alone_in_one_of_several_processes(dataset, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError('a collective operation')

    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: True)
    for name in ('get_rank', 'get_world_size', 'broadcast', 'all_reduce', 'barrier'):
        monkeypatch.setattr(torch.distributed, name, fail)
    assert train_proxy(small_config(epochs=1), dataset, tmp_path).exists()


def test_hooks_with_weights_of_their_own_survive_an_interruption(dataset, tmp_path, monkeypatch):
    config = small_config(epochs=2, custom_hooks=[dict(type='EMAHook', momentum=0.5)])
    weights = load_weights(train_proxy(config, dataset, tmp_path / 'whole'))
    original = _ProxyHook.before_train_epoch

    def interrupt(self, runner):
        if runner.epoch == 1:
            raise KeyboardInterrupt
        original(self, runner)

    monkeypatch.setattr(_ProxyHook, 'before_train_epoch', interrupt)
    with pytest.raises(KeyboardInterrupt):
        train_proxy(config, dataset, tmp_path / 'resumed')
    monkeypatch.undo()
    resumed = load_weights(train_proxy(config, dataset, tmp_path / 'resumed'))
    assert all(torch.equal(resumed[key], value) for key, value in weights.items())


def test_configs_that_count_iterations_train(dataset, tmp_path):
    config = small_config(epochs=None)
    config.train_cfg = dict(type='IterBasedTrainLoop', max_iters=2)
    config.train_dataloader.sampler = dict(type='InfiniteSampler')
    config.param_scheduler = None
    assert load_weights(train_proxy(config, dataset, tmp_path))


def test_diverging_training_says_so(dataset, tmp_path):
    config = small_config(param_scheduler=None, **{'optim_wrapper.optimizer.lr': 1e30})
    with pytest.raises(UserError, match='diverged in epoch 1.*lower the learning rate'):
        train_proxy(config, dataset, tmp_path)
    assert not (tmp_path / 'proxy.pth').exists()


def test_fewer_samples_than_a_batch_train(dataset, tmp_path):
    config = small_config(
        epochs=1, **{'train_dataloader.batch_size': 64, 'train_dataloader.drop_last': True}
    )
    train_proxy(config, dataset, tmp_path)
    assert 'Epoch(train) [1][1/1]' in (tmp_path / 'training.log').read_text()


@pytest.mark.parametrize('name', ['faster_rcnn_r18_small.py', 'faster_rcnn_tiny.py'])
def test_default_proxies_build_with_any_number_of_classes(name):
    config = proxy_config(Config.fromfile(OURS / name), 7)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(config.model)
    assert model.roi_head.bbox_head.fc_cls.out_features == 8
    assert model.rpn_head.num_classes == 1


@pytest.mark.parametrize(
    'path',
    [
        'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
        'retinanet/retinanet_r50_fpn_1x_coco.py',
        'yolox/yolox_tiny_8xb8-300e_coco.py',
    ],
)
def test_heads_of_any_detector_get_the_classes_of_the_dataset(path):
    original = Config.fromfile(MMDET / path)
    text = original.pretty_text
    config = proxy_config(original, 7)
    model = Config(dict(model=config.model)).pretty_text
    assert 'num_classes=7' in model and 'num_classes=80' not in model
    assert original.pretty_text == text


def test_epochs_stretch_the_schedule():
    config = proxy_config(
        Config.fromfile(MMDET / 'retinanet/retinanet_r50_fpn_1x_coco.py'), 3, epochs=6
    )
    assert config.train_cfg.max_epochs == 6
    warmup, steps = config.param_scheduler
    assert (warmup['end'], steps['end'], steps['milestones']) == (500, 6, [4, 6])
    iterations = Config.fromfile(MMDET / 'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py')
    with pytest.raises(UserError, match='counts iterations'):
        proxy_config(iterations, 3, epochs=6)


def test_a_config_that_is_no_training_config():
    with pytest.raises(UserError, match="no 'model'"):
        proxy_config(Config(dict(train_cfg=dict(max_epochs=1))), 3)
    with pytest.raises(UserError, match="no 'test_dataloader'"):
        scoring_dataset(Config(dict(train_dataloader=dict())), {})


def test_user_datasets_lose_their_augmentation_and_repetition(dataset):
    config = proxy_config(Config.fromfile(MMDET / 'yolox/yolox_tiny_8xb8-300e_coco.py'), 2)
    wrapped = dict(
        type='RepeatDataset',
        times=3,
        dataset=dict(type='ConcatDataset', datasets=[dataset, dataset]),
    )
    training = training_dataset(config, wrapped)
    assert (training.type, training.dataset.type) == ('MultiImageMixDataset', 'ConcatDataset')
    own = Config.fromfile(MMDET / 'yolox/yolox_tiny_8xb8-300e_coco.py').train_dataloader.dataset
    assert all(inner.pipeline == own.dataset.pipeline for inner in training.dataset.datasets)
    scoring = scoring_dataset(config, wrapped)
    assert scoring.type == 'ConcatDataset'
    assert [step.type for step in scoring.datasets[0].pipeline] == [
        'LoadImageFromFile',
        'LoadAnnotations',
        'Resize',
        'Pad',
        'PackDetInputs',
    ]
    assert dataset['pipeline'] == [dict(type='Unused')]


def test_scored_images_come_with_boxes_at_their_scale(dataset):
    with DefaultScope.overwrite_default_scope('mmdet'):
        samples = DATASETS.build(scoring_dataset(small_config(), dataset))
    raw = json.loads(Path(dataset['data_root'], 'train.json').read_text())['annotations']
    item = samples[2]
    assert item['inputs'].shape == (3, 64, 80)
    x, y, size, _ = next(annotation['bbox'] for annotation in raw if annotation['image_id'] == 2)
    box = item['data_samples'].gt_instances.bboxes[0].tensor[0].numpy()
    np.testing.assert_allclose(box, np.array([x, y, x + size, y + size]) * 64 / 48, rtol=1e-4)


def score(trained, dataset, folder, indices, world=1, **changes):
    """(10,) losses; the pieces stay."""

    def finish(result, losses):
        by_item = np.full(10, np.nan, np.float32)
        by_item[indices] = losses
        write_array(result, by_item)

    shards = loss_shards(
        small_config(**changes),
        trained,
        lambda folder: dataset,
        indices,
        sizes_of(dataset)[indices],
        finish,
    )
    pieces = range(len(shards.files))
    for rank in range(world):
        do_pieces(shards, folder, pieces[rank::world])
    shards.lead(folder, lambda: None)
    losses = np.load(folder / 'losses.npy')
    (folder / 'losses.npy').unlink()
    return losses


def test_losses_do_not_depend_on_processes_or_batches(trained, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr('adadedup_mm.proxy.score.SHARD_SIZE', 4)
    indices = np.array([9, 0, 3, 4, 7, 2, 1, 8, 5])
    losses = score(trained, dataset, tmp_path / 'one', indices)
    assert losses.shape == (10,) and losses.dtype == np.float32
    assert np.flatnonzero(np.isnan(losses)).tolist() == [6]
    np.testing.assert_array_equal(
        score(trained, dataset, tmp_path / 'two', indices, world=2), losses
    )
    other = score(
        trained, dataset, tmp_path / 'batches', indices[:5], **{'train_dataloader.batch_size': 1}
    )
    np.testing.assert_allclose(other[indices[:5]], losses[indices[:5]], rtol=1e-5)
    workers = score(
        trained, dataset, tmp_path / 'workers', indices, **{'train_dataloader.num_workers': 1}
    )
    np.testing.assert_array_equal(workers, losses)


def test_losses_are_those_of_the_samples(trained, dataset, tmp_path):
    config = small_config()
    losses = score(trained, dataset, tmp_path, np.arange(10))
    with DefaultScope.overwrite_default_scope('mmdet'):
        samples = DATASETS.build(scoring_dataset(config, dataset))
    expected = per_sample_losses(
        load_detector(config, trained), pseudo_collate([samples[i] for i in range(10)])
    )
    np.testing.assert_allclose(losses, expected.numpy(), rtol=1e-5)


def test_finished_parts_are_not_computed_again(trained, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr('adadedup_mm.proxy.score.SHARD_SIZE', 4)
    losses = score(trained, dataset, tmp_path, np.arange(10))
    parts = sorted(tmp_path.glob('losses_*.npy'))
    assert len(parts) == 3
    parts[1].unlink()
    stamp = parts[0].stat().st_mtime_ns
    np.testing.assert_array_equal(score(trained, dataset, tmp_path, np.arange(10)), losses)
    assert parts[0].stat().st_mtime_ns == stamp
    monkeypatch.setattr('adadedup_mm.proxy.score.load_detector', None)
    np.testing.assert_array_equal(score(trained, dataset, tmp_path, np.arange(10)), losses)


class Harmful:
    def __reduce__(self):
        return print, ('code from a checkpoint',)


@pytest.mark.parametrize('zipped', [True, False])
def test_checkpoints_run_no_code(zipped, trained, tmp_path, capsys):
    weights = load_weights(trained)
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    path = tmp_path / 'epoch_12.pth'
    torch.save(
        dict(
            meta=dict(harm=Harmful(), names=np.array(['a'])),
            message_hub=dict(loss=history),
            state_dict={f'module.{key}': value for key, value in weights.items()},
        ),
        path,
        _use_new_zipfile_serialization=zipped,
    )
    loaded = load_weights(path)
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[key], value) for key, value in weights.items())
    assert capsys.readouterr().out == ''


def test_checkpoints_that_cannot_be_used(trained, tmp_path):
    with pytest.raises(UserError, match=r'no\.pth does not exist'):
        load_weights(tmp_path / 'no.pth')
    broken = tmp_path / 'broken.pth'
    broken.write_bytes(trained.read_bytes()[:1000])
    with pytest.raises(UserError, match=r'broken\.pth cannot be read'):
        load_weights(broken)
    broken.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(UserError, match=r'broken\.pth'):
        load_weights(broken)
    torch.save(dict(state_dict={}), broken)
    with pytest.raises(UserError, match='holds no weights'):
        load_weights(broken)
    config = proxy_config(small_config(), 5)
    with pytest.raises(
        UserError,
        match=r'does not fit the proxy FasterRCNN: 4 weights .* first roi_head\.bbox_head',
    ):
        load_detector(config, trained)
