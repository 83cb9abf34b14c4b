"""Training with dynamic pruning: loops, losses, checkpoints, processes."""

import json
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATA_SAMPLERS, DATASETS, HOOKS, MODELS, RUNNERS
from mmengine.structures import BaseDataElement
from torch import nn

from adadedup_mm.base.errors import UserError
from adadedup_mm.dynamic import (
    DynamicPruningRunner,
    DynamicPruningSampler,
    SampleLosses,
    apply_dynamic,
)
from adadedup_mm.dynamic.sampler import IndexedDataset
from adadedup_mm.settings.load import load_config

ROOT = Path(__file__).parents[1]


@DATASETS.register_module(force=True)
class Clouds(BaseDataset):
    """Points of two classes; with ``digits``, scikit-learn's hand-written digits."""

    def __init__(self, size=41, digits=False, **kwargs):
        self.size, self.digits = size, digits
        super().__init__(serialize_data=False, **kwargs)

    def load_data_list(self):
        if self.digits:
            data = pytest.importorskip('sklearn.datasets').load_digits()
            points, labels = data.data.astype(np.float32) / 16, data.target
        else:
            rng = np.random.default_rng(0)
            labels = rng.integers(2, size=self.size)
            points = rng.normal(size=(self.size, 64)).astype(np.float32) + labels[:, None]
        return [
            dict(img_id=f'p{i}', point=point, label=int(label), width=1 + i % 2, height=1.5)
            for i, (point, label) in enumerate(zip(points, labels, strict=True))
        ]

    def prepare_data(self, index):
        info = self.get_data_info(index)
        noise = np.random.normal(size=64).astype(np.float32) * 0.01
        return dict(
            inputs=torch.from_numpy((info['point'] + noise).astype(np.float32)),
            data_samples=BaseDataElement(label=torch.tensor(info['label'])),
        )

    def get_cat_ids(self, index):
        return [self.data_list[index]['label']]


@MODELS.register_module(force=True)
class Perceptron(BaseModel):
    def __init__(self, classes=2):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, classes)
        )
        self.criterion = nn.CrossEntropyLoss()

    def forward(self, inputs, data_samples=None, mode='tensor'):
        scores = self.layers(torch.stack(inputs) if isinstance(inputs, list) else inputs)
        if mode == 'tensor':
            return scores
        return dict(
            loss=self.criterion(scores, torch.stack([sample.label for sample in data_samples]))
        )


@HOOKS.register_module(force=True)
class Recorder(Hook):
    """What every step trained on: epoch, iteration, indices, learning rate, loss."""

    steps: ClassVar[list] = []
    priority = 'LOWEST'

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.lr = runner.optim_wrapper.get_lr()['lr'][0]

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        samples = [sample.metainfo['dynamic_index'] for sample in data_batch['data_samples']]
        Recorder.steps.append((runner.epoch, runner.iter, samples, self.lr, float(outputs['loss'])))


POLICIES = dict(
    random=dict(keep_ratio=0.5, period=2),
    epsilon_greedy=dict(keep_ratio=0.5, period=2),
    ucb=dict(keep_ratio=0.5, period=2),
    infobatch={},
    seta=dict(groups=4),
)


def make_config(
    work_dir, policy='epsilon_greedy', dataset=None, epochs=6, iters=None, checkpoint=None, **loader
):
    schedulers = [
        dict(type='CosineAnnealingLR', T_max=epochs, by_epoch=True, convert_to_iter_based=True)
    ]
    return dict(
        work_dir=str(work_dir),
        model=dict(type='Perceptron'),
        launcher='none',
        train_dataloader=dict(
            dict(
                batch_size=4,
                num_workers=0,
                sampler=dict(type='DefaultSampler', shuffle=True),
                dataset=dataset or dict(type='Clouds'),
            ),
            **loader,
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=iters)
        if iters
        else dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        param_scheduler=[] if iters else schedulers,
        randomness=dict(seed=3),
        custom_hooks=[dict(type='Recorder')],
        default_hooks=dict(
            checkpoint=checkpoint or dict(type='CheckpointHook', interval=1, by_epoch=not iters)
        ),
        experiment_name=f'{Path(work_dir).name}-{time.time_ns()}',
        log_level='ERROR',
        dynamic=dict(policy=policy, **POLICIES[policy]),
    )


def train(config, resume=None):
    """Trains and returns the runner and the steps."""
    Recorder.steps = []
    config = Config(config)
    if resume:
        config.resume, config.load_from = True, str(resume)
    runner = DynamicPruningRunner.from_cfg(config)
    runner.train()
    return runner, Recorder.steps


def sampler_of(runner):
    loader = runner.train_dataloader
    return next(
        s
        for s in (loader.sampler, getattr(loader.batch_sampler, 'sampler', None))
        if isinstance(s, DynamicPruningSampler)
    )


@pytest.mark.parametrize('policy', POLICIES)
def test_an_epoch_sees_each_chosen_sample_once_and_losses_come_back(policy, tmp_path):
    runner, steps = train(make_config(tmp_path / 'run', policy))
    table = pq.read_table(tmp_path / 'run/dynamic_samples.parquet').to_pydict()
    used = np.zeros(41, int)
    for epoch in range(6):
        samples = [i for e, _, batch, _, _ in steps if e == epoch for i in batch]
        assert len(samples) == len(set(samples)) and (
            policy in ('infobatch', 'seta') or len(samples) == 21
        )
        used[samples] += 1
    assert table['epochs_used'] == used.tolist() and table['sample_id'] == [
        f'p{i}' for i in range(41)
    ]
    assert table['losses_seen'] == ([0] * 41 if policy == 'random' else used.tolist())
    assert (tmp_path / 'run/dynamic_samples.png').read_bytes()[:4] == b'\x89PNG'
    # What the visualizer's backends got: every scalar, in every epoch.
    [log] = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    names = ['kept_share', 'churn', 'sometimes', 'seconds_saved'] + ['mean_score'] * (
        policy != 'random'
    )
    rows = [row for row in rows if 'dynamic/kept_share' in row]
    for epoch, row in enumerate(rows):
        assert all(f'dynamic/{name}' in row for name in names if epoch or name != 'mean_score')
        earlier = [
            np.isin(np.arange(41), [i for e, _, batch, _, _ in steps if e == old for i in batch])
            for old in range(epoch + 1)
        ]
        times = np.sum(earlier, 0)
        assert row['dynamic/sometimes'] == pytest.approx(((times > 0) & (times <= epoch)).mean())
        assert row['dynamic/kept_share'] == pytest.approx(earlier[-1].mean())
        assert row['step'] == sum(e < epoch for e, *_ in steps)
        if epoch:
            assert row['dynamic/seconds_saved'] >= rows[epoch - 1]['dynamic/seconds_saved']
            new = (earlier[-1] & ~earlier[-2]).sum() / earlier[-1].sum()
            # Churn is that of the last selection, which may be some epochs old.
            assert row['dynamic/churn'] == pytest.approx(
                new if new else rows[epoch - 1]['dynamic/churn']
            )
    assert len(rows) == 6
    # Every epoch's first learning rate is the full schedule's, however long the epochs before were.
    full = runner.train_loop.max_epochs
    first = {e: lr for e, _, _, lr, _ in reversed(steps)}
    np.testing.assert_allclose(
        [first[e] for e in range(full)],
        [0.05 * (1 + np.cos(np.pi * e / full)) for e in range(full)],
        atol=1e-9,
    )


def test_periods_keep_their_subset(tmp_path):
    _, steps = train(make_config(tmp_path / 'run', 'random'))
    subsets = [
        frozenset(i for e, _, batch, _, _ in steps if e == epoch for i in batch)
        for epoch in range(6)
    ]
    assert subsets[0] == subsets[1] and subsets[2] == subsets[3] and subsets[4] == subsets[5]
    assert len(set(subsets)) == 3


def test_recorded_losses_are_those_of_the_samples():
    torch.manual_seed(0)
    model = Perceptron().eval()
    data = [Clouds().prepare_data(i) for i in range(5)]
    inputs, samples = torch.stack([d['inputs'] for d in data]), [d['data_samples'] for d in data]
    expected = [
        model(inputs[i : i + 1], samples[i : i + 1], mode='loss')['loss'].item() for i in range(5)
    ]
    plain = model(inputs, samples, mode='loss')['loss']
    losses = SampleLosses(model)
    losses.start(torch.ones(5))
    assert losses.mode == 'element' and model(inputs, samples, mode='loss')['loss'] == plain
    np.testing.assert_allclose(losses.take(), expected, rtol=1e-5)
    weights = torch.tensor([2.0, 0, 1, 1, 3])
    losses.start(weights)
    weighted = model(inputs, samples, mode='loss')['loss']
    np.testing.assert_allclose(weighted.item(), np.mean(weights.numpy() * expected), rtol=1e-5)
    losses.detach()
    assert 'forward' not in vars(model.criterion)


def without_seconds(steps):
    return [(i, batch, lr, loss) for _, i, batch, lr, loss in steps]


@pytest.mark.parametrize('policy', POLICIES)
def test_resuming_in_the_middle_of_a_period_is_bit_for_bit_the_same(policy, tmp_path):
    runner, steps = train(make_config(tmp_path / 'whole', policy))
    config = make_config(tmp_path / 'rest', policy)
    resumed, rest = train(config, tmp_path / 'whole/epoch_3.pth')
    assert (
        without_seconds(rest) == without_seconds([step for step in steps if step[0] >= 3]) and rest
    )
    for name, value in sampler_of(runner).state_dict().items():
        assert torch.equal(
            torch.as_tensor(value), torch.as_tensor(sampler_of(resumed).state_dict()[name])
        ) or (
            name == 'last'
            and torch.equal(value.nan_to_num(), sampler_of(resumed).state_dict()[name].nan_to_num())
        )
    for a, b in zip(runner.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize('policy, iteration', [('ucb', 8), ('ucb', 12), ('infobatch', 16)])
def test_loops_of_iterations_resume_bit_for_bit(policy, iteration, tmp_path):
    config = dict(
        iters=40,
        dataset=dict(type='Clouds', size=24),
        checkpoint=dict(type='CheckpointHook', interval=4, by_epoch=False),
    )
    runner, steps = train(make_config(tmp_path / 'whole', policy, **config))
    # 12 of 24 samples in batches of 4 with ucb: pass after pass of three steps.
    if policy == 'ucb':
        for first in range(0, 39, 3):
            samples = [i for _, _, batch, _, _ in steps[first : first + 3] for i in batch]
            assert len(samples) == len(set(samples)) == 12
    resumed, rest = train(
        make_config(tmp_path / 'rest', policy, **config), tmp_path / f'whole/iter_{iteration}.pth'
    )
    assert without_seconds(rest) == without_seconds(steps[iteration:]) and len(steps) == 40
    for a, b in zip(runner.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert sampler_of(runner).used.tolist() == sampler_of(resumed).used.tolist()


def test_persistent_workers_and_other_batch_samplers(tmp_path):
    import mmdet.datasets  # noqa: F401

    plain = train(make_config(tmp_path / 'plain'))[1]
    workers = train(make_config(tmp_path / 'workers', num_workers=2, persistent_workers=True))[1]
    assert [step[:2] for step in workers] == [step[:2] for step in plain]
    _, steps = train(
        make_config(tmp_path / 'aspect', batch_sampler=dict(type='mmdet.AspectRatioBatchSampler'))
    )
    samples = [i for e, _, batch, _, _ in steps if e == 4 for i in batch]
    assert len(set(samples)) == len(samples) == 21
    assert sum(len({i % 2 for i in batch}) > 1 for e, _, batch, _, _ in steps if e == 4) <= 2


@pytest.mark.parametrize(
    'wrapper, size',
    [
        (
            dict(
                type='ConcatDataset',
                datasets=[dict(type='Clouds', size=9), dict(type='Clouds', size=7)],
            ),
            16,
        ),
        (dict(type='RepeatDataset', times=3, dataset=dict(type='Clouds', size=9)), 27),
        (
            dict(
                type='ClassBalancedDataset', oversample_thr=0.9, dataset=dict(type='Clouds', size=9)
            ),
            None,
        ),
    ],
)
def test_wrapped_datasets(wrapper, size, tmp_path):
    runner, steps = train(make_config(tmp_path / 'run', 'ucb', dataset=wrapper, epochs=2))
    size = size or len(runner.train_dataloader.dataset)
    samples = [i for e, _, batch, _, _ in steps if e == 1 for i in batch]
    assert len(sampler_of(runner).used) == size and len(set(samples)) == len(samples) == int(
        size / 2 + 0.5
    )


def test_a_policy_learns_the_digits(tmp_path):
    config = make_config(
        tmp_path / 'run',
        'infobatch',
        dataset=dict(type='Clouds', digits=True),
        epochs=6,
        batch_size=32,
    )
    config['model']['classes'] = 10
    runner, _ = train(config)
    data = [Clouds(digits=True).prepare_data(i) for i in range(500)]
    scores = runner.model.eval()(torch.stack([d['inputs'] for d in data]))
    labels = torch.stack([d['data_samples'].label for d in data])
    assert (scores.argmax(1) == labels).float().mean() > 0.9


@pytest.mark.parametrize('policy', POLICIES)
@pytest.mark.parametrize(
    'detector', ['retinanet/retinanet_r50_fpn_1x_coco.py', 'yolox/yolox_s_8xb8-300e_coco.py']
)
def test_one_line_turns_it_on(policy, detector, tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(f"_base_ = ['mmdet::{detector}', 'adadedup_mm::_base_/dynamic_{policy}.py']")
    config = load_config(path)
    hooks = len(config.get('custom_hooks', []))
    inner = config.train_dataloader.dataset.type
    assert RUNNERS.get(config.runner_type) is DynamicPruningRunner
    apply_dynamic(config)
    assert (
        config.train_dataloader.dataset.dataset.type == inner
        and len(config.custom_hooks) == hooks + 1
    )
    assert DATA_SAMPLERS.get(config.train_dataloader.sampler.type) is DynamicPruningSampler


@pytest.mark.parametrize(
    'change, words',
    [
        (dict(dynamic=None), "no 'dynamic' dict"),
        (dict(dynamic=dict(policy='ucb', keep_ratio=2)), 'keep_ratio is 2'),
        (dict(dynamic=dict(policy='ucb', period=9)), 'only 6 epochs'),
        (dict(dynamic=dict(policy='ucb', loss='head', period=2)), 'dynamic.loss'),
        (dict(dynamic=dict(keep_ratio=0.5)), 'dynamic.policy is None'),
        (dict(train_dataloader=dict(sampler=dict(type='ClassAwareSampler'))), 'ClassAwareSampler'),
        (dict(train_dataloader=None), 'must be a dict'),
    ],
)
def test_a_wrong_config_is_named_before_anything_is_built(change, words, tmp_path):
    with pytest.raises(UserError) as error:
        apply_dynamic(Config(dict(make_config(tmp_path), **change)))
    assert words in str(error.value) and '\n' not in str(error.value)


@DATASETS.register_module(force=True)
class Pairs(Clouds):
    def prepare_data(self, index):
        data = super().prepare_data(index)
        return data['inputs'], data['data_samples'].label


def test_hidden_indices_are_told_in_one_line_where_they_are_needed(tmp_path):
    # The losses are those of pairs of inputs and labels, which have no room for an index.
    config = make_config(tmp_path / 'run', 'ucb', dataset=dict(type='Pairs'), num_workers=1)
    with pytest.raises(UserError, match='hides') as error:
        train(config)
    assert '\n' not in str(error.value)
    assert IndexedDataset(dict(type='Pairs', size=3))[0][0].shape == (64,)


def test_a_period_longer_than_a_loop_of_iterations_is_told(tmp_path):
    config = make_config(tmp_path / 'run', 'ucb', iters=12)
    config['dynamic']['period'] = 3
    with pytest.raises(UserError, match='only 2 epochs'):
        train(config)


def test_missing_losses_are_told(tmp_path):
    with pytest.raises(UserError, match='policy random'):
        SampleLosses(nn.Linear(2, 2))
    config = make_config(tmp_path / 'plain', 'random')
    train(config)
    stripped = torch.load(tmp_path / 'plain/epoch_2.pth')
    del stripped['dynamic_pruning']
    torch.save(stripped, tmp_path / 'old.pth')
    with pytest.raises(UserError, match='load_from'):
        train(make_config(tmp_path / 'again', 'random'), tmp_path / 'old.pth')
