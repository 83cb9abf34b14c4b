"""Configs as Python text that mmengine loads again: every value as it is, or a line naming it."""

import builtins
import copyreg
import functools
import importlib
import keyword
import re
import reprlib
import sys
import tempfile
import textwrap
import types
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.config.lazy import LazyAttr, LazyObject

from ..base.errors import UserError
from ..base.files import atomic_open
from ..base.words import error_words

Place = tuple[Any, ...]

_WIDTH = 96
_ATOMS = (type(None), bool, int, str, bytes, type(...))
_DICTS = (dict, ConfigDict, OrderedDict)
_NAMED = (type, types.FunctionType, types.BuiltinFunctionType)
_REMEDY = 'write it as text, numbers, lists and dicts, or take it out'


def config_text(config: Config) -> str:
    """The config as Python text from which mmengine loads an equal one.

    Classes that a ``type`` names become their dotted names, as in mmengine's own dump; what a
    pure-Python config only imports is left out, and so are functions and modules at the top level.

    Args:
        config: any config, loaded or made.

    Raises:
        UserError: a value cannot be written; the message names its key.
    """
    tree = _written(config)
    # A key such as `dict` must not hide the name that the text of another value calls.
    keys = sorted(tree, key=lambda key: key in vars(builtins))
    return ''.join(f'{_target(key)} = {_expression(tree[key], (key,))}\n' for key in keys)


def check_writable(config: Config) -> None:
    """Writes a config into a temporary file and loads it back.

    Raises:
        UserError: what is loaded is not the config; the message names the key.
    """
    with tempfile.TemporaryDirectory(prefix='adadedup_') as folder:
        write_config(config, Path(folder) / 'config.py')


def write_config(config: Config, path: Path) -> None:
    """Writes a config atomically, unless the file has this text already, and loads it back.

    Raises:
        UserError: a value cannot be written, or what is loaded is not the config.
    """
    text = config_text(config)
    if not path.exists() or path.read_bytes() != text.encode():
        with atomic_open(path, 'w') as file:
            file.write(text)

    try:
        loaded = Config.fromfile(path)
    except Exception as error:  # a config is code, which may raise anything
        raise UserError(
            f'{_unloadable(config)} cannot be written so that it loads again '
            f'({error_words(error, 200)}): {_REMEDY}'
        ) from error

    place = _difference(_written(config), loaded.to_dict(), ())
    if place is not None:
        raise UserError(
            f'config value {shown_place(place)} does not load again as it is: {_REMEDY}'
        )


def check_printable(config: Config) -> None:
    """Raises UserError for a config that mmengine cannot print, so that no Runner can start."""
    try:
        _ = config.pretty_text
    except Exception as error:
        place = _unprintable(config.to_dict(), ())
        what = f'config value {shown_place(place)}' if place else 'a value of the config'
        raise UserError(
            f"{what} is nothing that mmengine's Runner can print, so that no training can start: "
            f'{_REMEDY}'
        ) from error


def json_like(value: Any) -> Any:
    """What stands for a value of a config in a hash: JSON's own values, Python text for others.

    Raises:
        UserError: it cannot be written.
    """
    if isinstance(value, Mapping):
        items = {key: json_like(item) for key, item in value.items() if key != '_scope_'}
        if all(isinstance(key, str) for key in items):
            return items
        pairs = [[_expression(key, ()), item] for key, item in items.items()]
        return sorted(pairs)

    if isinstance(value, (list, tuple)):
        return [json_like(item) for item in value]
    if value is None or isinstance(value, (str, int, float)):
        return value

    if isinstance(value, type):
        return str(value)
    return _expression(value, ())


def shown_place(place: Place) -> str:
    """The keys that lead to a value of a config, as users write them."""
    shown = []
    for key in place:
        is_plain = isinstance(key, int) or str(key).isidentifier()
        shown.append(str(key) if is_plain else repr(key))
    return '.'.join(shown)


def _written(config: Config) -> dict[Any, Any]:
    """The config as plain values: what its text stands for."""
    imported: set[str] = getattr(config, '_imported_names', set())
    functions = (types.FunctionType, types.ModuleType)
    written = {}
    try:
        for key, value in dict.items(config._cfg_dict):
            if key not in imported and not isinstance(value, functions):
                written[key] = _settled(value, (key,), key)
        return written
    except RecursionError:
        raise UserError('the config is nested too deeply to be written: take a level out') from None


def _settled(value: Any, place: Place, key: Any) -> Any:
    """A value without mmengine's classes; ``key`` is the one that it stands under."""
    if isinstance(value, (LazyObject, LazyAttr)):
        return _of_import(value, place, key)
    if key == 'type' and isinstance(value, _NAMED) and _is_importable(value):
        return f'{value.__module__}.{_qualified(value)}'
    kind = type(value)
    if kind in _DICTS:
        return {name: _settled(item, (*place, name), name) for name, item in dict.items(value)}
    if kind in (list, tuple):
        items = [_settled(item, (*place, index), None) for index, item in enumerate(value)]
        return kind(items)

    return value


def _of_import(value: LazyObject | LazyAttr, place: Place, key: Any) -> Any:
    if key == 'type':
        return f'{value.module}.{value}'
    try:
        return value.build()
    except Exception as error:
        raise UserError(
            f'config value {shown_place(place)} cannot be imported: {error_words(error, 200)}'
        ) from error


def _target(key: Any) -> str:
    return key if _is_name(key) else f'globals()[{_expression(key, (key,))}]'


def _is_name(key: Any) -> bool:
    return isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key)


def _expression(value: Any, place: Place) -> str:
    """Python text of a value."""
    kind = type(value)
    if kind in _ATOMS:
        return _atom(value)
    if kind is float:
        return repr(value) if np.isfinite(value) else f"float('{value}')"
    if kind is complex:
        real = _expression(value.real, place)
        imaginary = _expression(value.imag, place)
        return f'complex({real}, {imaginary})'
    if kind in _DICTS:
        return _of_dict(value, place)
    if kind in (list, tuple):
        return _of_sequence(value, place)
    if kind in (set, frozenset):
        items = sorted(_expression(item, place) for item in value)
        return _bracket(f'{kind.__name__}([', items, '])')
    if isinstance(value, np.generic) or kind in (np.ndarray, torch.Tensor):
        return _of_array(value, place)
    if kind is re.Pattern:
        return f'{_reference("re", "compile")}({_atom(value.pattern)}, {value.flags})'
    if isinstance(value, np.dtype):
        return _of_dtype(value, place)
    if isinstance(value, _NAMED) and _is_importable(value):
        return _reference(value.__module__, _qualified(value))

    return _of_parts(value, place)


def _atom(value: Any) -> str:
    is_too_long = type(value) is int and abs(value) >= 10**4000
    text = hex(value) if is_too_long else repr(value)
    # mmengine substitutes what stands in double braces, wherever it is in the file.
    return text.replace('{{', '{\\x7b')


def _of_sequence(value: list[Any] | tuple[Any, ...], place: Place) -> str:
    items = [_expression(item, (*place, index)) for index, item in enumerate(value)]
    if isinstance(value, list):
        return _bracket('[', items, ']')
    closing = ',)' if len(items) == 1 else ')'
    return _bracket('(', items, closing)


def _of_dict(value: dict[Any, Any], place: Place) -> str:
    texts = {}
    for key, item in dict.items(value):
        texts[key] = _expression(item, (*place, key))
    if all(map(_is_name, texts)):
        arguments = [f'{key}={text}' for key, text in texts.items()]
        return _bracket('dict(', arguments, ')')

    entries = []
    for key, text in texts.items():
        key_text = _expression(key, (*place, key))
        entries.append(f'{key_text}: {text}')
    return _bracket('{', entries, '}')


def _bracket(opening: str, items: Sequence[str], closing: str) -> str:
    """The items in one line if they fit, else one below the other."""
    line = opening + ', '.join(items) + closing
    if len(line) <= _WIDTH and '\n' not in line:
        return line
    body = textwrap.indent(',\n'.join(items), '    ')
    return f'{opening}\n{body}\n{closing}'


def _of_tensor(value: torch.Tensor, place: Place) -> str:
    """A plain tensor by its items."""
    is_plain = (
        not value.requires_grad
        and value.layout is torch.strided
        and value.device.type == 'cpu'
        and not value.is_quantized
    )
    if not is_plain:
        raise _refusal(value, place)

    items = _plain_items(value.reshape(-1).tolist(), value, place)
    dtype = _expression(value.dtype, place)
    shape = tuple(value.shape)
    return f'{_reference("torch", "tensor")}({items}, dtype={dtype}).reshape({shape})'


def _of_array(value: Any, place: Place) -> str:
    """Numpy arrays and scalars of numbers and text, and plain tensors, by their items."""
    if isinstance(value, torch.Tensor):
        return _of_tensor(value, place)

    dtype = _of_dtype(value.dtype, place)
    if isinstance(value, np.generic):
        return f'{dtype}.type({_plain_items(value.item(), value, place)})'

    items = _plain_items(value.reshape(-1).tolist(), value, place)

    return f'{_reference("numpy", "array")}({items}, dtype={dtype}).reshape({value.shape})'


def _of_dtype(value: np.dtype, place: Place) -> str:
    if value.kind not in 'biufcSU':
        raise _refusal(value, place)
    return f'{_reference("numpy", "dtype")}({value.str!r})'


def _plain_items(items: Any, value: Any, place: Place) -> str:
    """Text of one item or a list of them; raises UserError where Python has no such number."""
    for item in items if isinstance(items, list) else [items]:
        if type(item) not in (*_ATOMS, float, complex):
            raise _refusal(value, place)
    return _expression(items, place)


def _of_parts(value: Any, place: Place) -> str:
    """Text of an object that says, as for pickle, which call makes it; not of one with a state."""
    reduce = copyreg.dispatch_table.get(type(value))
    try:
        parts = reduce(value) if reduce else value.__reduce_ex__(2)
    except Exception:
        raise _refusal(value, place) from None

    if isinstance(parts, str):
        module = getattr(value, '__module__', None)
        if isinstance(module, str) and _found(module, parts) is value:
            return _reference(module, parts)
        raise _refusal(value, place)

    call, arguments, *state = parts
    if any(part is not None for part in state) or not _is_importable(call):
        raise _refusal(value, place)

    try:
        items = [_expression(item, place) for item in arguments]
    except UserError:
        raise _refusal(value, place) from None

    return _bracket(f'{_reference(call.__module__, _qualified(call))}(', items, ')')


def _reference(module: str, name: str) -> str:
    return name if module == 'builtins' else f'{_import(module)}.{name}'


def _import(module: str) -> str:
    # An import statement would make it a pure-Python config, which mmengine reads otherwise.
    return (
        f"__import__('importlib').import_module({module!r})"
        if '.' in module
        else f'__import__({module!r})'
    )


def _qualified(value: Any) -> str:
    return getattr(value, '__qualname__', None) or value.__name__


def _is_importable(value: Any) -> bool:
    """Whether a class or function is found under its own name; not so those of a config file."""
    module = getattr(value, '__module__', None)
    return isinstance(module, str) and _found(module, _qualified(value)) is value


def _found(module: str, name: str) -> Any:
    if module == '__main__':
        return None
    try:
        return functools.reduce(
            getattr, name.split('.'), sys.modules.get(module) or importlib.import_module(module)
        )
    except (AttributeError, ImportError, ValueError):
        return None


def _refusal(value: Any, place: Place) -> UserError:
    return UserError(
        f'config value {shown_place(place)} is {_shown(value)}, which cannot be written into a '
        f'config file: {_REMEDY}'
    )


def _shown(value: Any) -> str:
    short = reprlib.Repr()
    short.maxother = short.maxstring = 60
    try:
        return ' '.join(short.repr(value).split())
    except Exception:  # of any class
        return f'a {type(value).__name__}'


def _difference(first: Any, second: Any, place: Place) -> Place | None:
    """The keys to the first place where two trees of values differ; None where they are equal."""
    if type(first) is not type(second):
        return place
    if isinstance(first, dict):
        for key in [*first, *second]:
            if key not in first or key not in second:
                return (*place, key)

        pairs = {key: (first[key], second[key]) for key in first}
    elif isinstance(first, (list, tuple)):
        if len(first) != len(second):
            return place
        pairs = dict(enumerate(zip(first, second, strict=True)))
    else:
        return None if _expression(first, place) == _expression(second, place) else place

    for key, (one, other) in pairs.items():
        found = _difference(one, other, (*place, key))
        if found is not None:
            return found

    return None


def _unloadable(config: Config) -> str:
    """In words, the first key at the top whose text is no Python, like endless lists in lists."""
    for key, value in _written(config).items():
        try:
            compile(f'{_target(key)} = {_expression(value, (key,))}', 'config.py', 'exec')
        except Exception:
            return f'config value {shown_place((key,))}'
    return 'the config'


def _unprintable(value: Any, place: Place) -> Place | None:
    """The keys to the first value that mmengine prints as what is no Python."""
    if isinstance(value, dict):
        for key, item in value.items():
            if keyword.iskeyword(key) or not isinstance(key, str):
                return (*place, key)
            found = _unprintable(item, (*place, key))
            if found is not None:
                return found

        return None

    if isinstance(value, (list, tuple)):
        places = (_unprintable(item, (*place, index)) for index, item in enumerate(value))
        return next((found for found in places if found is not None), None)

    try:
        compile(repr(value) if isinstance(value, str) else str(value), 'config.py', 'eval')
    except (SyntaxError, ValueError):
        return place

    return None
