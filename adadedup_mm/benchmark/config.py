"""What a benchmark compares, read from its config (docs/BENCHMARKS.md describes the format)."""

import ast
import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..base.checks import choose
from ..base.errors import UserError
from ..settings.load import load_config

# The kind of a model that is not trained: its selections are measured by the probe.
PROBE = 'probe'
# Variants of these names are what the shares of recovered degradation refer to.
# Variants that tables look for by name; what they are is the config's business.
FULL, RANDOM, DENSITY = 'full', 'random', 'clip_dedup'


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """The keys of a benchmark config.

    Attributes:
        models: name -> training config: a path, or a dict with the path as ``_base_`` and settings
            beside it. ``type='probe'`` among these takes its data alone and trains nothing;
            ``probe`` beside it holds the options of the probe.
        variants: name -> settings merged into the training config; ``_base_`` names config files to
            merge before them.
        keep_ratios: each variant that can be told a keep ratio is trained at all of them.
        seeds: of training and pruning.
        metric: name of the evaluation's result that is compared, e.g. ``'coco/bbox_mAP'``; larger
            is better.
        pruning_base: config file merged into variants that have an ``adadedup`` dict.
        common: settings merged into every training config.
        data: how the data comes about (see ``adadedup_mm.benchmark.data``).
        compare_with: the variant that all others are compared with, paired by seed.
        gpu_hours: model's name -> GPU hours of one training on all samples, where that is worth a
            warning.
    """

    models: dict[str, str | dict[str, Any]]
    variants: dict[str, dict[str, Any]]
    keep_ratios: list[float]
    seeds: list[int]
    metric: str
    pruning_base: str = 'adadedup_mm::_base_/adadedup_offline.py'
    common: dict[str, Any] = dataclasses.field(default_factory=dict)
    data: dict[str, Any] = dataclasses.field(default_factory=lambda: dict(type='none'))
    compare_with: str = DENSITY
    gpu_hours: dict[str, float] = dataclasses.field(default_factory=dict)

    def is_probe(self, model: str) -> bool:
        """Whether a model's jobs are no trainings, but selections that the probe measures."""
        part = self.models[model]
        return isinstance(part, dict) and part.get('type') == PROBE


def load_benchmark(path: str | Path, overrides: dict[str, Any] | None = None) -> Benchmark:
    """Reads a benchmark config; names that begin with an underscore are the config's own helpers.

    Raises:
        UserError: the file is no config, or a key is missing, unknown or has an impossible value.
    """
    config = load_config(path, overrides)
    folders = _folders(Path(config.filename))
    settings = config.to_dict()
    values = {key: value for key, value in settings.items() if not key.startswith('_')}
    _check_keys(values, path)
    _check_types(values, path)

    keep_ratios = _listed(values['keep_ratios'])
    seeds = _listed(values['seeds'])
    values['keep_ratios'] = [_ratio(value, path) for value in keep_ratios]
    values['seeds'] = [_seed(value, path) for value in seeds]
    _check_texts(values, path)
    _check_choices(values, path)

    values['models'] = _found_in(values['models'], folders)
    values['variants'] = _found_in(values['variants'], folders)
    benchmark = Benchmark(**values)
    pruning_base = _found(benchmark.pruning_base, folders)

    return dataclasses.replace(benchmark, pruning_base=pruning_base)


def _check_keys(values: dict[str, Any], path: str | Path) -> None:
    """Raises UserError where a key is unknown or one that must be there is missing."""
    fields = dataclasses.fields(Benchmark)
    for key in values:
        choose(key, (field.name for field in fields), f'a key of {path}')
    for field in fields:
        required = field.default is field.default_factory is dataclasses.MISSING
        if required and field.name not in values:
            raise UserError(f'{path} has no {field.name!r}: docs/BENCHMARKS.md describes the keys')


def _check_types(values: dict[str, Any], path: str | Path) -> None:
    """Raises UserError where a dict is something else, or names in one fit no file."""
    for name in ('models', 'variants', 'common', 'data', 'gpu_hours'):
        if not isinstance(values.get(name, {}), dict):
            raise UserError(f'{path}: {name} is {values[name]!r}, but must be a dict')
    for name in [*values['models'], *values['variants']]:
        if not names_files(name):
            raise UserError(
                f'{path}: {name!r} names files, so that it may hold letters, digits '
                'and . + = - _ only, at most 100 bytes of them'
            )


def _check_texts(values: dict[str, Any], path: str | Path) -> None:
    """Raises UserError where a name is no text."""
    for name in ('metric', 'pruning_base', 'compare_with'):
        if not isinstance(values.get(name, ''), str):
            raise UserError(f'{path}: {name} is {values[name]!r}, but must be a text')


def _check_choices(values: dict[str, Any], path: str | Path) -> None:
    """Raises UserError where something to compare is missing, no dict, or unknown elsewhere."""
    for name, settings in values['variants'].items():
        _check_variant(settings, f'{path}: variants.{name}')
    for name, part in values['models'].items():
        if isinstance(part, dict) and 'type' in part:
            choose(part['type'], (PROBE,), f'{path}: models.{name}.type')
    for name in ('models', 'variants', 'keep_ratios', 'seeds'):
        if not values[name]:
            raise UserError(f'{path}: {name} is empty')

    if 'compare_with' in values:
        choose(values['compare_with'], values['variants'], f'{path}: compare_with')
    for name, hours in values.get('gpu_hours', {}).items():
        choose(name, values['models'], f'{path}: a key of gpu_hours')
        _check_hours(name, hours, path)


def _is_number(value: Any) -> bool:
    """Whether a value is a number; True and False are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_hours(model: str, hours: Any, path: str | Path) -> None:
    if not _is_number(hours) or not 0 <= hours < math.inf:
        raise UserError(f'{path}: gpu_hours.{model} is {hours!r}, but must be a number')


def names_files(name: str) -> bool:
    """Whether a model or variant may be called so, since files are named after both."""
    plain_characters = re.fullmatch(r'[\w.+=-]+', name) is not None
    return plain_characters and len(name.encode()) <= 100


def _listed(value: Any) -> list[Any]:
    """Without repetitions, in order."""
    values = value if isinstance(value, (list, tuple)) else [value]
    return list(dict.fromkeys(values))


def _check_variant(settings: Any, where: str) -> None:
    if not isinstance(settings, dict):
        raise UserError(f'{where} is {settings!r}, but must be a dict of settings')
    for owner in ('adadedup', 'dynamic'):
        if not isinstance(settings.get(owner, {}), dict):
            raise UserError(f'{where}.{owner} is {settings[owner]!r}, but must be a dict')

    for key in ('keep_ratio', 'seed'):
        if key in settings.get('adadedup', {}):
            raise UserError(
                f'{where}.adadedup has {key!r}, which {key}s of the benchmark sets: leave it out'
            )


def _ratio(value: Any, path: str | Path) -> float:
    if not _is_number(value) or not 0 < value <= 1:
        raise UserError(
            f'{path}: keep_ratios holds {value!r}, but must hold numbers above 0 and at most 1'
        )
    return float(value)


def _seed(value: Any, path: str | Path) -> int:
    if not _is_number(value) or not isinstance(value, int) or value < 0:
        raise UserError(f'{path}: seeds holds {value!r}, but must hold whole numbers of at least 0')
    return value


def _folders(path: Path) -> list[Path]:
    """The folder of a config file, then those of the files in its ``_base_``, and of theirs."""
    folders = [path.parent]
    for base in _base_files(path):
        if '::' not in base:
            folders += _folders(path.parent / base)
    return list(dict.fromkeys(folders))


def _base_files(path: Path) -> list[str]:
    """The ``_base_`` of a config in Python that mmengine has read; of no other kind of file."""
    if path.suffix != '.py':
        return []
    for line in ast.parse(path.read_text(encoding='utf-8')).body:
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == '_base_':
            bases = ast.literal_eval(line.value)
            return [bases] if isinstance(bases, str) else list(bases)
    return []


def _found_in(parts: dict[str, Any], folders: Sequence[Path]) -> dict[str, Any]:
    return {name: _found(part, folders) for name, part in parts.items()}


def _found(part: Any, folders: Sequence[Path]) -> Any:
    """Makes paths that are relative to one of the benchmark config's folders absolute.

    ``part`` is one path, several, or a dict with them as ``_base_``.
    """
    if isinstance(part, Mapping):
        bases = _found(part.get('_base_', []), folders)
        return dict(part, _base_=bases)
    if isinstance(part, (list, tuple)):
        return [_found(item, folders) for item in part]
    if isinstance(part, str) and '::' not in part:
        for folder in folders:
            if (folder / part).exists():
                return str((folder / part).resolve())
    return part
