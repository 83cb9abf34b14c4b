"""Classifiers of MMPretrain with dynamic pruning."""

import copy
import inspect
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from mmengine.registry import init_default_scope
from torch.nn.functional import cross_entropy

pytest.importorskip('mmpretrain')
pytest.importorskip('sklearn')

from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from mmpretrain.utils import register_all_modules

from adadedup_mm.base.errors import UserError
from adadedup_mm.benchmark.config import load_benchmark
from adadedup_mm.benchmark.jobs import make_jobs
from adadedup_mm.dynamic import Digits, DynamicPruningRunner, SampleLosses, apply_dynamic
from adadedup_mm.settings.load import load_config

ROOT = Path(__file__).parents[1]


def classifier(**change):
    register_all_modules(False)
    init_default_scope('mmpretrain')
    config = load_config(ROOT / 'configs/dynamic/resnet_digits.py')
    config.merge_from_dict({f'model.{key}': value for key, value in change.items()})
    torch.manual_seed(0)
    return MODELS.build(dict(config.model, data_preprocessor=dict(config.data_preprocessor)))


def digits(count=6):
    images = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return images, [DataSample().set_gt_label(i % 10) for i in range(count)]


@pytest.mark.parametrize('smooth', [0.0, 0.2])
def test_losses_come_from_the_training_step(smooth):
    loss = dict(type='LabelSmoothLoss', label_smooth_val=smooth, num_classes=10, loss_weight=2.0)
    model = classifier(**{'head.loss': loss} if smooth else {}).eval()
    images, samples = digits()
    labels = torch.arange(6)
    expected = cross_entropy(model(images), labels, reduction='none', label_smoothing=smooth) * (
        2.0 if smooth else 1.0
    )
    losses, weights = SampleLosses(model), torch.tensor([1.0, 2.0, 0.0, 1.0, 1.0, 3.0])
    assert losses.mode == 'element'
    losses.start(torch.ones(6))
    total = model.loss(images, samples)['loss']
    torch.testing.assert_close(losses.take(), expected)
    torch.testing.assert_close(total, expected.mean())
    losses.start(weights)
    torch.testing.assert_close(model.loss(images, samples)['loss'], (weights * expected).mean())
    losses.detach()
    torch.testing.assert_close(model.loss(images, samples)['loss'], expected.mean())


def losses_of_classifiers():
    """All registered losses that can be built, also with a memory and as a sum."""
    for name, kind in sorted(MODELS.module_dict.items()):
        if not kind.__module__.startswith('mmpretrain.models.losses'):
            continue
        known = inspect.signature(kind.__init__).parameters
        needed = {
            key: value
            for key, value in dict(
                num_classes=10,
                label_smooth_val=0.1,
                loss_weight=3.0,
                feat_dim=10,
                sinkhorn_iterations=2,
            ).items()
            if key in known
        }
        for change in (
            {},
            dict(use_sigmoid=True),
            dict(use_soft=True),
            dict(reduction='sum'),
            dict(class_weight=list(range(1, 11))),
        ):
            if set(change) <= set(known):
                try:
                    yield f'{name}{change}', kind(**needed, **change)
                except (AssertionError, TypeError):
                    continue


HEADS = [
    dict(type='LinearClsHead'),
    dict(type='StackedLinearClsHead', mid_channels=[8]),
    dict(type='MultiLabelLinearClsHead'),
    dict(type='ArcFaceClsHead'),
    dict(type='CSRAClsHead', num_heads=1, lam=0.1),
]


@pytest.mark.parametrize('head', HEADS, ids=lambda head: head['type'])
def test_every_loss_of_mmpretrain_in_every_head(head):
    register_all_modules(False)
    model = classifier()
    channels = model.head.fc.in_features
    model.head = MODELS.build(dict(head, num_classes=10, in_channels=channels))
    if head['type'] == 'CSRAClsHead':
        model.neck = None
    images, samples = digits()
    modes = {}
    for name, loss in losses_of_classifiers():
        model.head.loss_module = loss
        steps = []
        for watched in (False, True):
            trained = copy.deepcopy(model)
            losses = SampleLosses(trained) if watched else None
            if losses is not None:
                losses.start(torch.ones(6))
            torch.manual_seed(0)
            try:
                total = trained.parse_losses(trained.loss(images, samples))[0]
            except UserError as error:
                assert '\n' not in str(error) and 'policy random' in str(error)
                modes[name] = 'refused'
                break
            except Exception:
                assert not watched, name
                break  # The head does not take that loss.
            steps.append((total, trained.state_dict()))
        if len(steps) < 2 or not steps[0][0].isfinite():
            continue
        (plain, before), (total, after) = steps
        values = losses.take()
        modes[name] = losses.mode
        torch.testing.assert_close(values.mean(), total, rtol=1e-4, atol=0)
        assert torch.equal(plain, total)
        assert all(torch.equal(before[key], after[key]) for key in before)
    if head['type'] == 'LinearClsHead':
        assert {
            modes[name]
            for name in ('CrossEntropyLoss{}', 'FocalLoss{}', 'SeesawLoss{}')
            if name in modes
        } == {'element'}
    assert len(modes) >= 3


def test_a_criterion_that_a_hook_switches_is_trained_on(tmp_path):
    config = load_config(
        ROOT / 'configs/dynamic/resnet_digits_infobatch.py', {'train_cfg.max_epochs': 3}
    )
    config.work_dir = str(tmp_path)
    config.train_dataloader.dataset.indices = 60
    config.launcher, config.log_level = 'none', 'ERROR'
    config.val_dataloader = config.val_cfg = config.val_evaluator = None
    config.test_dataloader = config.test_cfg = config.test_evaluator = None
    recipe = dict(
        action_epoch=2, loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, num_classes=10)
    )
    config.custom_hooks = [dict(type='SwitchRecipeHook', schedule=[recipe])]
    runner = DynamicPruningRunner.from_cfg(config)
    runner.train()
    table = pq.read_table(tmp_path / 'dynamic_samples.parquet').to_pydict()
    assert type(runner.model.head.loss_module).__name__ == 'LabelSmoothLoss'
    assert table['losses_seen'] == table['epochs_used'] and runner.epoch == 3


@pytest.mark.parametrize('policy', ['random', 'infobatch'])
def test_a_stock_config_trains_with_one_line(policy, tmp_path):
    config = load_config(
        ROOT / f'configs/dynamic/resnet_digits_{policy}.py', {'train_cfg.max_epochs': 3}
    )
    config.work_dir = str(tmp_path)
    config.train_dataloader.dataset.indices = 120
    config.train_dataloader.collate_fn = dict(type='default_collate')
    config.launcher, config.log_level = 'none', 'ERROR'
    runner = DynamicPruningRunner.from_cfg(config)
    runner.train()
    table = pq.read_table(tmp_path / 'dynamic_samples.parquet').to_pydict()
    assert table['sample_id'] == [str(i) for i in range(120)]
    assert table['losses_seen'] == ([0] * 120 if policy == 'random' else table['epochs_used'])
    assert 120 < sum(table['epochs_used']) < 360 or sum(table['epochs_used']) == 180
    [log] = tmp_path.glob('*/vis_data/scalars.json')
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert (
        len([row for row in rows if 'dynamic/sometimes' in row]) == 3
        and 'accuracy/top1' in rows[-1]
    )


def test_digits_are_split_by_writers():
    train, test = Digits(split='train', pipeline=[]), Digits(split='test', pipeline=[])
    assert (len(train), len(test)) == (1438, 359)
    ids = [
        [dataset.get_data_info(i)['img_id'] for i in range(len(dataset))]
        for dataset in (train, test)
    ]
    assert ids[0] + ids[1] == list(range(1797))
    with pytest.raises(UserError, match='the split of Digits'):
        Digits(split='val', pipeline=[])


@pytest.mark.parametrize(
    'path', sorted((ROOT / 'configs/dynamic').glob('resnet*_*_*.py')), ids=lambda path: path.stem
)
def test_configs_of_classifiers(path):
    config = load_config(path)
    apply_dynamic(config)
    assert config.model.type == 'ImageClassifier' and config.train_dataloader.batch_size in (
        32,
        128,
    )


@pytest.mark.parametrize('name, count', [('digits', 80), ('minidrive', 18), ('cifar', 220)])
def test_benchmarks_of_dynamic_pruning(name, count, tmp_path):
    jobs = make_jobs(load_benchmark(ROOT / f'configs/benchmarks/{name}_dynamic.py'), {}, tmp_path)
    assert len(jobs) == count
    for job in jobs:
        assert 'dynamic' in job.config or job.variant.startswith(('full', 'static'))
        if 'dynamic' in job.config:
            apply_dynamic(job.config)
