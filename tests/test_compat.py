"""A training is resumed with any torch: what mmengine puts into checkpoints is read, no more."""

import builtins
import pickle

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer

from adadedup_mm.base.compat import _method_of_buffer, allow_checkpoints_of_mmengine


class Danger:
    """Calls what it names when it is loaded."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


def test_log_buffers_are_read_from_checkpoints(tmp_path):
    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    buffer.update(4.0)
    torch.save(
        dict(loss=buffer, lr=np.float64(0.1), grad=np.float32(3), epochs=np.int64(2)),
        tmp_path / 'a.pth',
    )
    allow_checkpoints_of_mmengine()
    loaded = torch.load(tmp_path / 'a.pth')
    assert loaded['loss'].statistics('mean', 2) == 3 and loaded['loss'].current() == 4
    assert loaded['lr'] == 0.1 and loaded['grad'] == 3 and loaded['epochs'] == 2


@pytest.mark.skipif(
    not hasattr(torch.serialization, 'add_safe_globals'), reason='this torch loads everything'
)
@pytest.mark.parametrize(
    'call',
    [(getattr, dict, 'fromkeys'), (getattr, HistoryBuffer, '__init__'), (builtins.eval, '1')],
    ids=str,
)
def test_other_attributes_and_functions_are_refused(call, tmp_path):
    torch.save(dict(a=Danger(*call)), tmp_path / 'a.pth')
    allow_checkpoints_of_mmengine()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / 'a.pth')


@pytest.mark.parametrize(
    'owner, name', [(np, 'load'), (HistoryBuffer, '__init__'), (HistoryBuffer([1.0], [1]), 'mean')]
)
def test_only_methods_of_log_buffers_are_looked_up(owner, name):
    assert _method_of_buffer(HistoryBuffer, 'mean') is HistoryBuffer.mean
    with pytest.raises(pickle.UnpicklingError, match=name):
        _method_of_buffer(owner, name)
