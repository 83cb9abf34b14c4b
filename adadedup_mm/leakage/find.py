"""A leakage run, from the config to its tables and its page."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
from mmengine.config import Config

from ..base.errors import UserError
from ..base.files import atomic_open
from ..datasets import read_pool
from ..features.alike import NEARLY_ALL, same_features_note
from ..features.stage import ImageStages
from ..images import Reader
from ..images.training import training_reader
from ..pool import Pool
from ..registry import EMBEDDERS, build
from ..report import build_report
from ..settings.options import Options
from ..stages import Ledger, ReadingStore
from ..workdir.claim import held
from ..workdir.leakage import FOLDER, PAIRS, LeakageSummary, SplitSummary, write_summary
from .page import leakage_page
from .pairs import Pairs, similar_pairs

# Similarities of equal pixels, up to rounding in the network.
IDENTICAL = 0.9999


def find_leakage(
    config: Config, options: Options, work_dir: Path, threshold: float | None = None, most: int = 5
) -> LeakageSummary:
    """Compares the validation and test sets of a config with its training set.

    Results go to ``work_dir/leakage``: ``pairs.parquet`` and ``pairs.csv`` (every pair at least as
    similar as the threshold, the ``most`` similar ones of each sample), ``summary.json``,
    ``leakage.html``, and features under ``stages/``, which a later call uses again. Features of the
    training set come from a pruning run in ``work_dir`` if they are the same. The pruning run's
    report is made again, with a section about this.

    Args:
        config: a training config.
        options: its ``adadedup`` dict, of which the embedder and the views count.
        work_dir: where results go, maybe that of a pruning run.
        threshold: similarity from which a pair counts; None takes the embedder's
            ``near_duplicate``.
        most: pairs of a sample at most.

    Raises:
        UserError: there is nothing to compare, images are no files, an image folder or file is
            wrong, or ``work_dir`` cannot be written.
    """
    if threshold is not None and not 0 < threshold <= 1:
        raise UserError(
            f'--threshold is {threshold}, but must be a similarity above 0 and at most 1'
        )

    pools = {'train': _read_split(config, 'train')} | _evaluation_pools(config)
    folder = work_dir / FOLDER
    splits = _image_stages(config, options, pools, folder / 'stages', work_dir / 'stages')
    train = splits.pop('train')
    level = train.embedder.near_duplicate if threshold is None else threshold
    tables, summaries = [], []
    with held(folder, 'run'):
        for name, split in splits.items():
            _require_same_cameras(name, split, train)
            pairs = similar_pairs(split.features, train.features, level, most)
            tables.append(_pairs_table(name, split, train, pairs))
            summaries.append(_summarise(name, split, train, pairs))

        if train.same_features >= NEARLY_ALL:
            print(f'warning: {same_features_note(train.same_features)}')
        summary = LeakageSummary(level, options.embedder['type'], len(train.pool), summaries)
        _write(work_dir, summary, pa.concat_tables(tables), train.reader)

    if (work_dir / 'report.html').exists():
        build_report(work_dir)
    return summary


def _image_stages(
    config: Config, options: Options, pools: Mapping[str, Pool], stages: Path, also: Path
) -> dict[str, ImageStages]:
    """What is known of the images of each split.

    Args:
        config: the training config.
        options: its ``adadedup`` dict.
        pools: the splits by name.
        stages: the folder where each split's stages live.
        also: the stages of a pruning run, whose features are used if they are the same.
    """
    embedder = build(EMBEDDERS, options.embedder, 'adadedup.embedder')
    reader = training_reader(config)
    splits = {}
    for name, pool in pools.items():
        ledger = Ledger(ReadingStore(stages / name, also=also), options.seed)
        splits[name] = ImageStages(
            ledger, pool, embedder, reader, options.views, options.on_bad_image
        )
    return splits


def _require_same_cameras(name: str, split: ImageStages, train: ImageStages) -> None:
    """Raises UserError if the features of a split cannot be compared with the training set's."""
    if split.features.shape[1] != train.features.shape[1]:
        raise UserError(
            f'{name} has {len(split.columns)} cameras to compare, train has '
            f"{len(train.columns)}: set adadedup.views to 'front' or to cameras that both have"
        )


def _evaluation_pools(config: Config) -> dict[str, Pool]:
    """The pools of val and test; one for both where they are the same images."""
    pools = {
        name: _read_split(config, name)
        for name in ('val', 'test')
        if config.get(f'{name}_dataloader')
    }
    if not pools:
        raise UserError(
            'the config has neither val_dataloader nor test_dataloader: '
            'there is nothing to compare the training set with'
        )
    if len(pools) == 2 and pools['val'].image_paths == pools['test'].image_paths:
        return {'val and test': pools['val']}
    return pools


def _read_split(config: Config, name: str) -> Pool:
    loader = f'{name}_dataloader'
    settings = config.get(loader)
    if not isinstance(settings, Mapping) or 'dataset' not in settings:
        raise UserError(
            f"the config has no '{loader}' with a 'dataset': there is nothing to compare"
        )

    try:
        pool = read_pool(Config(dict(config._cfg_dict, train_dataloader=settings)))[0]
    except UserError as error:
        raise UserError(str(error).replace('train_dataloader', loader)) from error

    if not all(pool.image_paths):
        raise UserError(
            f'the images of {loader}.dataset are arrays, not files: name a dataset of image files'
        )

    return pool


def _pairs_table(name: str, split: ImageStages, train: ImageStages, pairs: Pairs) -> pa.Table:
    """``pairs.parquet``: a row a pair, the most similar one of each sample with rank 0."""
    paths, train_paths = _first_paths(split), _first_paths(train)
    sample_ids, train_ids = split.pool.sample_ids, train.pool.sample_ids
    count = len(pairs.query)
    # A query's pairs stand together, the most similar one first.
    firsts = np.searchsorted(pairs.query, pairs.query)

    return PAIRS.table(
        {
            'split': [name] * count,
            'sample_id': [sample_ids[i] for i in pairs.query],
            'image_path': [paths[i] for i in pairs.query],
            'train_sample_id': [train_ids[i] for i in pairs.anchor],
            'train_image_path': [train_paths[i] for i in pairs.anchor],
            'similarity': pairs.similarity,
            'rank': np.arange(count) - firsts,
            'matches': pairs.matches[pairs.query],
        }
    )


def _summarise(name: str, split: ImageStages, train: ImageStages, pairs: Pairs) -> SplitSummary:
    """The figures of a split."""
    known = pairs.nearest[np.isfinite(pairs.nearest)]
    return SplitSummary(
        split=name,
        samples=len(split.pool),
        leaked=int((pairs.matches > 0).sum()),
        identical=int((known >= IDENTICAL).sum()),
        same_file=_count_shared(split.pool, train.pool),
        highest=float(known.max()) if len(known) else None,
        unreadable=int(split.unreadable.sum()),
    )


def _count_shared(pool: Pool, train: Pool) -> int:
    """How many samples have an image file that is also in the training set."""
    files = {_real_path(path) for paths in train.image_paths for path in paths}
    count = 0
    for paths in pool.image_paths:
        is_shared = any(_real_path(path) in files for path in paths)
        count += is_shared
    return count


def _real_path(path: str) -> str:
    if '\0' in path:
        # No file has such a name; Python refuses to look for one.
        return path
    return os.path.realpath(path)


def _first_paths(split: ImageStages) -> list[str]:
    column = split.columns[0]
    return [paths[column] for paths in split.pool.image_paths]


def _write(work_dir: Path, summary: LeakageSummary, pairs: pa.Table, reader: Reader) -> None:
    """The files of a leakage run; the summary comes last, which the report goes by."""
    folder = work_dir / FOLDER
    PAIRS.write(folder, pairs)
    with atomic_open(folder / 'pairs.csv') as file:
        pyarrow.csv.write_csv(pairs, file)
    with atomic_open(folder / 'leakage.html', 'w') as file:
        file.write(leakage_page(summary, pairs, reader))
    write_summary(work_dir, summary)
