"""The proxy trained by two processes together, with gloo."""

import contextlib
import os

import pytest
import torch
from test_proxy_training import dataset, small_config, trained  # noqa: F401
from test_ranks import in_processes

from adadedup_mm.base.errors import UserError
from adadedup_mm.detectors.checkpoint import load_weights
from adadedup_mm.proxy import train_proxy
from adadedup_mm.proxy.train import _ProxyHook


def train_together(config, dataset, folder, error=None):  # noqa: F811
    """The exit statuses of two processes, which are 0 if they end with ``error``, or with none."""

    def train(rank):
        os.environ['LOCAL_RANK'] = str(rank)  # as launchers do
        torch.distributed.init_process_group(
            'gloo', f'file://{folder}.group', rank=rank, world_size=2
        )
        with contextlib.nullcontext() if error is None else pytest.raises(UserError, match=error):
            train_proxy(config, dataset, folder, seed=5, distributed=True)

    return in_processes(2, train)


@pytest.fixture(scope='module')
def together(dataset, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp('together') / 'proxy'
    assert train_together(small_config(), dataset, folder) == [0, 0]
    return folder / 'proxy.pth'


def test_processes_share_the_batches_and_make_as_many_steps_as_one(together, trained):  # noqa: F811
    log = (together.parent / 'training.log').read_text()
    assert (
        'Epoch(train) [3][3/3]' in log
        and 'Epoch(train) [3][3/3]' in (trained.parent / 'training.log').read_text()
    )
    weights, alone = load_weights(together), load_weights(trained)
    assert weights.keys() == alone.keys()
    assert not torch.equal(weights['rpn_head.rpn_conv.weight'], alone['rpn_head.rpn_conv.weight'])


def test_an_interrupted_training_of_two_ends_with_identical_weights(
    together,
    dataset,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    original = _ProxyHook.after_train_iter

    def interrupt(self, runner, batch_idx, data_batch=None, outputs=None):
        original(self, runner, batch_idx, data_batch, outputs)
        if (runner.epoch, batch_idx) == (1, 1):
            raise UserError('interrupted')

    monkeypatch.setattr(_ProxyHook, 'after_train_iter', interrupt)
    folder = tmp_path / 'proxy'
    assert train_together(small_config(), dataset, folder, 'interrupted') == [0, 0]
    assert not (folder / 'proxy.pth').exists()
    monkeypatch.undo()
    (tmp_path / 'proxy.group').unlink()
    assert train_together(small_config(), dataset, folder) == [0, 0]
    weights, expected = load_weights(folder / 'proxy.pth'), load_weights(together)
    assert all(torch.equal(weights[key], value) for key, value in expected.items())


def test_all_processes_stop_where_one_diverges(dataset, tmp_path, monkeypatch):  # noqa: F811
    original = _ProxyHook.after_train_iter

    def diverge(self, runner, batch_idx, data_batch=None, outputs=None):
        if torch.distributed.get_rank() == 1:
            outputs = dict(outputs, loss=outputs['loss'] * float('nan'))
        original(self, runner, batch_idx, data_batch, outputs)

    monkeypatch.setattr(_ProxyHook, 'after_train_iter', diverge)
    assert train_together(small_config(), dataset, tmp_path / 'proxy', 'diverged in epoch 1') == [
        0,
        0,
    ]


def test_without_a_process_group_it_says_what_to_call(dataset, tmp_path):  # noqa: F811
    with pytest.raises(
        UserError, match=r'needs a process group: call adadedup_mm.engine.open_group'
    ):
        train_proxy(small_config(), dataset, tmp_path, distributed=True)
