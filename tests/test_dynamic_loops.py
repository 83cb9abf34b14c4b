"""Dynamic pruning beside gradient accumulation, ``drop_last``, and hooks on the dataset."""

import copy
import math
import pickle
import socket
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import DATASETS, HOOKS, TRANSFORMS
from test_dynamic_losses import Hardest
from test_dynamic_training import (
    Clouds,
    Perceptron,
    make_config,
    sampler_of,
    train,
    without_seconds,
)
from torch import nn

from adadedup_mm.base.errors import UserError
from adadedup_mm.dynamic import IndexedDataset, SampleLosses
from adadedup_mm.dynamic.accumulation import accumulated, expect_iterations, restore_accumulated


@HOOKS.register_module(force=True)
class CountSteps(Hook):
    """The iterations after which the optimizer stepped."""

    def before_train(self, runner):
        self.stepped = []
        step = runner.optim_wrapper.optimizer.step

        def counted(*args, **kwargs):
            self.stepped.append(runner.iter + 1)
            return step(*args, **kwargs)

        runner.optim_wrapper.optimizer.step = counted


def accumulating(tmp_path, policy, counts=4, **change):
    config = make_config(tmp_path, policy, **change)
    config['optim_wrapper']['accumulative_counts'] = counts
    config['custom_hooks'].append(dict(type='CountSteps'))
    return config


@pytest.mark.parametrize('policy', ['ucb', 'infobatch', 'seta'])
@pytest.mark.parametrize('counts', [3, 4])
def test_the_optimizer_steps_in_the_last_iteration_with_what_has_accumulated(
    policy, counts, tmp_path
):
    runner, steps = train(accumulating(tmp_path / 'run', policy, counts))
    [hook] = [hook for hook in runner.hooks if isinstance(hook, CountSteps)]
    assert len(hook.stepped) == math.ceil(len(steps) / counts) and hook.stepped[-1] == len(steps)


@pytest.mark.parametrize(
    'policy, change, checkpoint',
    [
        ('infobatch', {}, 'epoch_2'),
        ('seta', {}, 'epoch_3'),
        (
            'ucb',
            dict(iters=20, checkpoint=dict(type='CheckpointHook', interval=5, by_epoch=False)),
            'iter_10',
        ),
    ],
)
def test_resuming_between_two_steps_is_bit_for_bit_the_same(policy, change, checkpoint, tmp_path):
    change = dict(change, dataset=dict(type='Clouds', size=39))
    runner, steps = train(accumulating(tmp_path / 'whole', policy, **change))
    state = torch.load(tmp_path / f'whole/{checkpoint}.pth')['dynamic_pruning']['accumulated']
    assert state['counts'][0] % 4 and state['gradients']
    resumed, rest = train(
        accumulating(tmp_path / 'rest', policy, **change), tmp_path / f'whole/{checkpoint}.pth'
    )
    assert without_seconds(rest) == without_seconds(steps[len(steps) - len(rest) :]) and 0 < len(
        rest
    ) < len(steps)
    for one, other in zip(runner.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_each_wrapper_of_an_optim_wrapper_dict_goes_on_where_it_was():
    def make():
        model = nn.ModuleDict(dict(one=nn.Linear(2, 1), two=nn.Linear(2, 1)))
        wrappers = {
            name: OptimWrapper(
                torch.optim.SGD(part.parameters(), lr=0.1), accumulative_counts=counts
            )
            for counts, (name, part) in enumerate(model.items(), 2)
        }
        return SimpleNamespace(
            model=model,
            optim_wrapper=OptimWrapperDict(**wrappers),
            logger=MMLogger.get_current_instance(),
        )

    def steps(runner, count):
        for _ in range(count):
            for name, part in runner.model.items():
                runner.optim_wrapper[name].update_params(part(torch.ones(1, 2)).sum())

    first = make()
    steps(first, 4)
    second = make()
    second.model.load_state_dict(first.model.state_dict())
    restore_accumulated(second, accumulated(first))
    steps(first, 3)
    steps(second, 3)
    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)
    # They do not know how long the training is, with mmengine either.
    expect_iterations(first.optim_wrapper, 7)
    assert first.optim_wrapper['one']._max_counts == -1


@pytest.mark.parametrize('iters', [None, 8])
def test_a_subset_that_fills_no_batch_is_told_before_the_training(iters, tmp_path):
    config = make_config(
        tmp_path,
        'ucb',
        dataset=dict(type='Clouds', size=20),
        iters=iters,
        batch_size=16,
        drop_last=True,
    )
    with pytest.raises(
        UserError, match='subset of 10 samples makes no batch of 16 with drop_last=True'
    ) as error:
        train(config)
    assert '\n' not in str(error.value)
    with pytest.raises(UserError, match='subset of 9 samples makes no batch'):
        train(
            make_config(
                tmp_path,
                'infobatch',
                dataset=dict(type='Clouds', size=9),
                batch_size=16,
                drop_last=True,
            )
        )


@pytest.mark.parametrize('policy', ['infobatch', 'seta'])
@pytest.mark.parametrize('iters', [None, 8])
@pytest.mark.parametrize(
    'batch_sampler', [None, dict(type='mmdet.AspectRatioBatchSampler', drop_last=True)]
)
def test_epochs_that_shrink_never_fall_below_a_full_batch(policy, iters, batch_sampler, tmp_path):
    import mmdet.datasets  # noqa: F401

    loader = dict(batch_size=16, drop_last=True) if batch_sampler is None else dict(batch_size=16)
    config = make_config(
        tmp_path,
        policy,
        dataset=dict(type='Clouds', size=20),
        iters=iters,
        batch_sampler=batch_sampler,
        **loader,
    )
    config['dynamic'].update(dict(ratio=0.9) if policy == 'infobatch' else {})
    runner, steps = train(config)
    assert len(steps) == (iters or 6) and all(len(batch) == 16 for _, _, batch, _, _ in steps)
    assert sampler_of(runner).least == 16 + (batch_sampler is not None)
    table = sampler_of(runner).used
    assert table.sum() >= 16 * len(steps)


@TRANSFORMS.register_module(force=True)
class Shift(BaseTransform):
    def __init__(self, by=0):
        self.by = by

    def transform(self, results):
        results['data_samples'].set_metainfo(dict(shift=self.by))
        return results


@DATASETS.register_module(force=True)
class Piped(Clouds):
    def prepare_data(self, index):
        return self.pipeline(super().prepare_data(index))


@HOOKS.register_module(force=True)
class LookThrough(Hook):
    """Goes through all wrappers, by what it is told of each, and changes the pipeline in place."""

    def __init__(self, epoch):
        self.epoch = epoch
        self.seen = set()

    def before_train_epoch(self, runner):
        dataset = runner.train_dataloader.dataset
        if runner.epoch == self.epoch:
            if not isinstance(dataset, BaseDataset):
                dataset = dataset.dataset
            dataset.pipeline.transforms[0].by = 7
            dataset.marked = True

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.seen |= {
            (runner.epoch, sample.metainfo['shift']) for sample in data_batch['data_samples']
        }


PIPED = dict(type='Piped', size=12, pipeline=[dict(type='Shift')])


@pytest.mark.parametrize(
    'dataset',
    [
        PIPED,
        dict(type='RepeatDataset', times=2, dataset=PIPED),
        dict(type='ClassBalancedDataset', oversample_thr=0.1, dataset=PIPED),
    ],
)
@pytest.mark.parametrize('policy', ['random', 'ucb'])
def test_hooks_that_take_one_step_through_a_wrapper_find_the_pipeline(dataset, policy, tmp_path):
    config = make_config(tmp_path, policy, dataset=dataset, epochs=3)
    config['custom_hooks'].append(dict(type='LookThrough', epoch=1))
    runner, _ = train(config)
    [hook] = [hook for hook in runner.hooks if isinstance(hook, LookThrough)]
    assert hook.seen == {(0, 0), (1, 7), (2, 7)}
    kind = DATASETS.get(dataset['type'])
    found = runner.train_dataloader.dataset
    assert isinstance(found, kind) and type(found).__name__ == kind.__name__


def test_a_pipeline_that_is_switched_reaches_persistent_workers(tmp_path):
    from mmdet.engine.hooks import PipelineSwitchHook

    HOOKS.register_module(module=PipelineSwitchHook, force=True)
    config = make_config(
        tmp_path, 'ucb', dataset=PIPED, epochs=3, num_workers=1, persistent_workers=True
    )
    switch = dict(
        type='PipelineSwitchHook', switch_epoch=1, switch_pipeline=[dict(type='Shift', by=5)]
    )
    config['custom_hooks'] += [switch, dict(type='LookThrough', epoch=-1)]
    runner, _ = train(config)
    [hook] = [hook for hook in runner.hooks if isinstance(hook, LookThrough)]
    assert hook.seen == {(0, 0), (1, 5), (2, 5)}


@pytest.mark.parametrize(
    'make',
    [
        lambda: Clouds(size=5),
        lambda: RepeatDataset(Clouds(size=5), times=2),
        lambda: ConcatDataset([Clouds(size=5), Clouds(size=4)]),
    ],
)
def test_an_indexed_dataset_is_the_dataset_itself(make):
    plain = make()
    attributes = set(dir(plain))
    dataset = IndexedDataset(plain)
    assert dataset is plain and attributes <= set(dir(dataset))
    assert hasattr(dataset, 'dataset') == isinstance(dataset, RepeatDataset)
    for copied in (
        dataset,
        copy.copy(dataset),
        copy.deepcopy(dataset),
        pickle.loads(pickle.dumps(dataset)),
        IndexedDataset(dataset),
    ):
        assert copied[3]['data_samples'].metainfo['dynamic_index'] == 3 and len(copied) == len(
            dataset
        )
        copied.marked = 1
    assert dataset.marked == 1 and copy.copy(dataset) is not dataset


def in_a_group(rank, port, results):
    torch.distributed.init_process_group(
        'gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=2
    )
    torch.manual_seed(0)
    model = Perceptron()
    # Only one of them sees that the criterion is no sum.
    model.criterion = Hardest() if rank == 1 else nn.CrossEntropyLoss()
    data = [Clouds().prepare_data(i) for i in range(5)]
    losses = SampleLosses(model)
    losses.start(torch.ones(5))
    try:
        model(
            torch.stack([item['inputs'] for item in data]),
            [item['data_samples'] for item in data],
            mode='loss',
        )
        results.put((rank, None))
    except UserError as error:
        results.put((rank, str(error)))


def test_all_processes_refuse_what_does_not_fit_one_of_them():
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    context = torch.multiprocessing.get_context('fork')
    results = context.Queue()
    processes = [
        context.Process(target=in_a_group, args=(rank, port, results)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    told = dict(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert told[0] == told[1] and 'Hardest' in told[0]


def test_a_checkpoint_of_longer_passes_is_told(tmp_path):
    change = dict(
        iters=12,
        dataset=dict(type='Clouds', size=24),
        checkpoint=dict(type='CheckpointHook', interval=5, by_epoch=False),
    )
    train(make_config(tmp_path / 'whole', 'ucb', **change))
    with pytest.raises(UserError, match='resume with the same train_dataloader'):
        train(
            make_config(tmp_path / 'rest', 'ucb', batch_size=24, **change),
            tmp_path / 'whole/iter_5.pth',
        )
    assert np.isfinite(
        sampler_of(train(make_config(tmp_path / 'more', 'ucb', **change))[0]).state.mean
    ).all()
