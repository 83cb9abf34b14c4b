"""The inner datasets of a training config, and writing configs and files with fewer samples."""

import copy
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config, ConfigDict

from ..annotations import format_of
from ..annotations.frame_index import InfoPart
from ..base.errors import UserError
from .databases import Database, write_databases
from .frames import ViewObjects
from .pruned_dataset import write_ids

ConfigPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Source:
    """An inner dataset, and how to write it with fewer samples.

    Attributes:
        kind: the name of its annotation file's format in ``FORMATS``; ``'ids'`` where none
            recognises it and ``PrunedDataset`` wraps the dataset instead.
        path: keys that lead to the dataset's dict from the top of the config.
        ann_file: absolute; None if the dataset has none.
        native_ids: what addresses each of its L lines in the file (see ``Format.addresses``), or
            sample ids; a tuple for a frame of several images. A line is an entry of its own; an
            image may have several.
        names: what ``PrunedDataset`` calls each of its lines.
        samples: (L,) int64, the pool's sample that each line belongs to.
        item_samples: (I,) int64, the pool's sample of each item of the dataset.
        relabel: for each label of the dataset the pool's, where they are not the same; None for
            frames.
        labelled: whether the training knows what its samples show.
        objects: what the pictures of its frames show; None for plain images.
        items: how many items of the dataset make up a sample: 1, or the cameras of a frame.
        databases: the ground-truth databases that its pipeline draws objects from.
        temporal: what becomes of links between frames (see ``rewrite_infos``).
        trust: whether its pickles may hold more than plain data.
        records: hash of all that it has loaded from its annotations (see ``records_digest``).
    """

    kind: str
    path: ConfigPath
    ann_file: Path | None
    native_ids: tuple[Any, ...]
    names: tuple[str, ...] = ()
    samples: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    item_samples: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    relabel: tuple[int, ...] | None = None
    labelled: bool = True
    objects: ViewObjects | None = None
    items: int = 1
    databases: tuple[Database, ...] = ()
    temporal: str = 'relink'
    trust: bool = False
    records: str = ''

    @property
    def has_item_ids(self) -> bool:
        """Whether a line is addressed by a tuple, with an id for each of its items."""
        return self.objects is not None and isinstance(self.native_ids[0], tuple)


def dotted(path: ConfigPath) -> str:
    """A path in a config as users write it."""
    return '.'.join(map(str, path))


def type_name(settings: Mapping[str, Any]) -> str:
    """The name of the class that a dict of a config is for."""
    return class_name(settings.get('type'))


def class_name(kind: Any) -> str:
    """The bare name of a class, given as the class or as text."""
    return str(getattr(kind, '__name__', kind)).rpartition('.')[-1]


def value_at(config: Any, path: ConfigPath) -> Any:
    """What is under ``path`` in a config."""
    for key in path:
        config = config[key]
    return config


def inner_datasets(config: Mapping[str, Any]) -> list[ConfigPath]:
    """Finds the datasets inside the wrappers (``datasets``, ``dataset``) of a training set.

    Raises:
        UserError: the config has no training set, or it is pruned already.
    """
    loader = config.get('train_dataloader')
    if not isinstance(loader, Mapping) or 'dataset' not in loader:
        raise UserError(
            "the config has no 'train_dataloader' with a 'dataset': there is no training set to "
            'prune'
        )

    return list(_walk(loader['dataset'], ('train_dataloader', 'dataset')))


def _walk(settings: Any, path: ConfigPath) -> Iterator[ConfigPath]:
    if not isinstance(settings, Mapping):
        raise UserError(f'{dotted(path)} must be a dict, but is a {type(settings).__name__}')
    if type_name(settings) == 'PrunedDataset':
        raise UserError(
            f'{dotted(path)} is a PrunedDataset: prune the config that it was made from'
        )

    if isinstance(settings.get('datasets'), Sequence):
        for index, inner in enumerate(settings['datasets']):
            yield from _walk(inner, (*path, 'datasets', index))
    elif 'dataset' in settings:
        yield from _walk(settings['dataset'], (*path, 'dataset'))
    else:
        yield path


def write_pruned(
    sources: Sequence[Source], kept: np.ndarray, folder: str | Path
) -> list[dict[str, Any]]:
    """Writes every source's annotation file with the kept samples only.

    A file keeps its name; where two sources have files of the same name, each goes into a folder
    named after the source's index. A source of kind ``'ids'`` gets a list of sample ids,
    ``<name>_ids.txt``.

    Args:
        sources: from ``read_pool``.
        kept: (N,) bool.
        folder: where the files go.

    Returns:
        For every source ``input`` and ``output`` (absolute paths as text; ``input`` is None without
        annotation file), and ``records`` and ``kept``: how many records (images, lines, ids) are in
        either.

    Raises:
        UserError: a source has no kept sample, its annotation file changed since it was read, or
            would be overwritten.
    """
    targets = pruned_files(sources, folder)
    keeps = [
        list(itertools.compress(source.native_ids, kept[source.samples])) for source in sources
    ]
    for source, keep in zip(sources, keeps, strict=True):
        _require_samples(source, keep)

    _check_targets(sources, [*targets, *itertools.chain(*database_files(sources, folder))])
    # They may be refused, so that they come before anything is written.
    databases = _write_databases(sources, kept, folder)
    files = []
    for source, target, keep in zip(sources, targets, keeps, strict=True):
        records, count = _write(source, target, keep)
        files.append(
            dict(
                input=source.ann_file and str(source.ann_file),
                output=str(target),
                records=records,
                kept=count,
            )
        )

    return files + databases


def _check_targets(sources: Sequence[Source], targets: Iterable[Path]) -> None:
    """Raises UserError if a file to write is one of the dataset's own."""
    originals = {source.ann_file.resolve() for source in sources if source.ann_file}
    originals |= {database.file.resolve() for source in sources for database in source.databases}
    for target in targets:
        if target.resolve() in originals:
            raise UserError(
                f'{target} is an annotation file of the dataset itself: choose another work dir'
            )


def _write_databases(
    sources: Sequence[Source], kept: np.ndarray, folder: str | Path
) -> list[dict[str, Any]]:
    targets: dict[Path, list[Path]] = {}
    for source, files in zip(sources, database_files(sources, folder), strict=True):
        for database, file in zip(source.databases, files, strict=True):
            targets.setdefault(database.file, []).append(file)

    parts = []
    for source in sources:
        if source.ann_file and source.objects is not None and not source.has_item_ids:
            stays = kept[source.samples].tolist()
            parts.append(InfoPart(source.ann_file, source.native_ids, stays))

    counts = write_databases(targets, parts, any(source.trust for source in sources))

    return [
        dict(
            input=str(file),
            output=str(copy),
            records=counts[file].records,
            kept=counts[file].kept,
            outside=counts[file].outside,
        )
        for file, copies in targets.items()
        for copy in copies
    ]


def _write(source: Source, target: Path, keep: list[Any]) -> tuple[int, int]:
    if source.kind == 'ids' or source.ann_file is None:
        names = dict.fromkeys(keep)
        write_ids(target, names)
        return len(set(source.native_ids)), len(names)
    file_format = format_of(source.kind)
    return file_format.rewrite(source.ann_file, target, keep, source.temporal, source.trust)


def pruned_files(sources: Sequence[Source], folder: str | Path) -> list[Path]:
    """Where ``write_pruned`` puts the file of each source; absolute."""
    folder = Path(folder).absolute()
    names = [_file_name(source) for source in sources]
    return [
        folder / name if names.count(name) == 1 else folder / str(index) / name
        for index, name in enumerate(names)
    ]


def database_files(sources: Sequence[Source], folder: str | Path) -> list[list[Path]]:
    """Where ``write_pruned`` puts the ground-truth databases of each source; absolute."""
    folder = Path(folder).absolute()
    names = [database.file.name for source in sources for database in source.databases]
    return [
        [
            folder / name if names.count(name) == 1 else folder / f'{index}_{number}' / name
            for number, name in enumerate(database.file.name for database in source.databases)
        ]
        for index, source in enumerate(sources)
    ]


def _file_name(source: Source) -> str:
    if source.kind == 'ids' or source.ann_file is None:
        return f'{source.ann_file.stem if source.ann_file else "dataset"}_ids.txt'
    return source.ann_file.name


def pruned_config(config: Config, sources: Sequence[Source], folder: str | Path) -> Config:
    """A copy of a config that trains on the files of ``write_pruned``, and prunes nothing itself.

    Only these things differ: ``ann_file`` of the inner datasets, now absolute (datasets of kind
    ``'ids'`` are wrapped in ``PrunedDataset`` instead, and ``custom_imports`` names its module);
    their ``indices`` and ``load_interval``, whose choice is in the files; ``info_path`` of
    ground-truth databases; and the keys ``adadedup`` and ``runner_type``, which are gone.

    Args:
        config: the training config.
        sources: from ``read_pool``.
        folder: that of ``write_pruned``.
    """
    pruned = _without_pruning(config)
    for source, target, databases in zip(
        sources, pruned_files(sources, folder), database_files(sources, folder), strict=True
    ):
        settings = value_at(pruned, source.path)
        for database, file in zip(source.databases, databases, strict=True):
            value_at(pruned, database.path)['info_path'] = str(file)
        if source.kind == 'ids':
            _wrap(settings, target)
        else:
            settings['ann_file'] = str(target)
            settings.pop('indices', None)
            # Waymo's: the frames that it passes over are not in the file.
            if settings.get('load_interval', 1) != 1:
                settings['load_interval'] = 1

    if any(source.kind == 'ids' for source in sources):
        _import_wrapper(pruned)

    return pruned


def subset_config(
    config: Config, sources: Sequence[Source], kept: np.ndarray, folder: str | Path
) -> Config:
    """A copy of a config that trains on some samples of the original files (``PrunedDataset``).

    Args:
        config: the training config.
        sources: from ``read_pool``.
        kept: (N,) bool.
        folder: where the lists of sample ids go.

    Raises:
        UserError: a source has no kept sample.
    """
    subset = _without_pruning(config)
    for index, source in enumerate(sources):
        names = list(dict.fromkeys(itertools.compress(source.names, kept[source.samples])))
        if source.has_item_ids:
            native = itertools.compress(source.native_ids, kept[source.samples])
            names = [str(image) for frame in native for image in frame]

        _require_samples(source, names)
        ids_file = Path(folder).absolute() / f'{index}.txt'
        write_ids(ids_file, names)
        _wrap(value_at(subset, source.path), ids_file)

    _import_wrapper(subset)
    return subset


def inner_dataset(config: Config, source: Source) -> Mapping[str, Any]:
    """The dict of a source's dataset for a proxy, whose labels are those of the pool.

    Args:
        config: the training config, or one of ``subset_config``.
        source: from ``read_pool``.
    """
    settings = value_at(config, source.path)
    if source.relabel is None:
        return settings
    if type_name(settings) != 'PrunedDataset':
        settings = dict(
            type='PrunedDataset', dataset=settings, sample_ids=list(dict.fromkeys(source.names))
        )

    return dict(settings, labels=list(source.relabel))


def _require_samples(source: Source, keep: Sequence[Any]) -> None:
    if not keep:
        raise UserError(
            f'no sample of {dotted(source.path)} would be kept: raise the keep ratio, or take '
            'this dataset out of the config'
        )


def _without_pruning(config: Config) -> Config:
    config = copy.deepcopy(config)
    config.pop('adadedup', None)
    if class_name(config.get('runner_type')) == 'AdaDeDupRunner':
        config.pop('runner_type')
    return config


def _wrap(settings: ConfigDict, ids_file: Path) -> None:
    """Replaces a dataset's dict by that of a ``PrunedDataset`` around it, in place."""
    inner = copy.deepcopy(settings)
    settings.clear()
    settings.update(
        type='PrunedDataset',
        dataset=inner,
        ids_file=str(ids_file),
    )


def _import_wrapper(config: Config) -> None:
    imports = config.get('custom_imports') or {}
    names: str | Iterable[str] = imports.get('imports', [])
    names = [names] if isinstance(names, str) else list(names)
    config.custom_imports = {
        'allow_failed_imports': False,
        **imports,
        'imports': [*names, 'adadedup_mm.datasets.pruned_dataset'],
    }
