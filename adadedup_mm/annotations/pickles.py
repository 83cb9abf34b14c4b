"""Reading pickles that hold plain data only.

A pickle may name any function, and loading it would call that.
"""

import builtins
import collections
import contextlib
import datetime
import gc
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from mmengine.fileio.handlers import PickleHandler, file_handlers
from mmengine.structures import InstanceData

from ..base.errors import UserError

_BUILTINS = (
    'bool',
    'bytearray',
    'bytes',
    'complex',
    'dict',
    'float',
    'frozenset',
    'int',
    'list',
    'range',
    'set',
    'slice',
    'str',
    'tuple',
)
_DATETIME = ('date', 'datetime', 'time', 'timedelta', 'timezone')
# What arrays and scalars are rebuilt with; the modules have moved between versions of numpy.
_ARRAY_BUILDERS = {
    '_reconstruct': np.empty(0).__reduce_ex__(2)[0],
    '_frombuffer': np.empty(0).__reduce_ex__(5)[0],
    'scalar': np.float64(0).__reduce__()[0],
    'ndarray': np.ndarray,
    'dtype': np.dtype,
}
_ALLOWED: dict[tuple[str, str], Any] = {
    **{
        (module, name): getattr(builtins, name)
        for module in ('builtins', '__builtin__')
        for name in _BUILTINS
    },
    **{('datetime', name): getattr(datetime, name) for name in _DATETIME},
    ('collections', 'OrderedDict'): collections.OrderedDict,
    # What MMDetection writes proposals as: a class with attributes, which loading fills in and
    # nothing more.
    ('mmengine.structures.instance_data', 'InstanceData'): InstanceData,
}
_FORMATS = ('pkl', 'pickle')


class _Refused(Exception):
    """The pickle names something that is no plain data."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if (module, name) == ('_codecs', 'encode'):
            return _encode

        package = module.partition('.')[0]
        if package == 'numpy' and name in _ARRAY_BUILDERS:
            return _ARRAY_BUILDERS[name]
        if module == 'numpy':
            scalar = getattr(np, name, None)
            if isinstance(scalar, type) and issubclass(scalar, np.generic):
                return scalar

        raise _Refused(f'{module}.{name}')


def _encode(text: str, encoding: str) -> bytes:
    """How old protocols write bytes; the only encoding they use is latin1."""
    if encoding not in ('latin1', 'latin-1'):
        raise _Refused(f'_codecs.encode to {encoding}')
    return text.encode('latin-1')


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Inside, no garbage is looked for.

    Loading makes millions of objects that all stay; looking for garbage among them doubles the
    time or worse.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@collector_paused()
def load_pickle(path: str | Path, trust: bool = False) -> Any:
    """Loads a pickle of dicts, lists, strings, numbers, dates and arrays of any version of numpy.

    Instance data of mmengine, as MMDetection's files of proposals hold it, is plain data too.

    Args:
        path: the file.
        trust: whether anything else may be loaded too, which may run code that the file brings
            along.

    Raises:
        UserError: the file is missing, is no pickle, or holds anything else.
    """
    try:
        with open(path, 'rb') as file:
            return _load(file, path, trust)
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}') from error


def _load(file: IO[bytes], path: str | Path, trust: bool) -> Any:
    if trust:
        return pickle.load(file)
    return _load_plain(file, path)


def _load_plain(file: IO[bytes], path: str | Path) -> Any:
    try:
        return _PlainUnpickler(file).load()
    except _Refused as error:
        raise UserError(
            f'{path} holds {error}, which is no plain data and may run code: make the file anew '
            'without it, or set trust_pickles=True in the adadedup dict and in our datasets if '
            'you trust where it comes from'
        ) from error
    except Exception as error:
        # What a damaged pickle raises depends on the byte that is damaged.
        raise UserError(
            f'{path} is no valid pickle ({type(error).__name__}): make it anew'
        ) from error


@contextlib.contextmanager
def plain_pickles(
    path: str | Path, trust: bool = False, check: Callable[[Any], None] | None = None
) -> Iterator[None]:
    """Inside, ``mmengine.load`` reads pickles as ``load_pickle`` does, whichever class calls it.

    Args:
        path: what messages call the file.
        trust: as for ``load_pickle``.
        check: called with what was loaded.
    """
    saved = {name: file_handlers[name] for name in _FORMATS}
    checking = {name: _CheckingHandler(path, trust, check) for name in _FORMATS}
    try:
        file_handlers.update(checking)
        yield
    finally:
        file_handlers.update(saved)


class _CheckingHandler(PickleHandler):
    def __init__(self, path: str | Path, trust: bool, check: Callable[[Any], None] | None) -> None:
        self.path = path
        self.trust = trust
        self.check = check

    def load_from_fileobj(self, file: IO[bytes], **kwargs: Any) -> Any:
        content = _load(file, self.path, self.trust)
        if self.check is not None:
            self.check(content)
        return content
