"""What a run would remove at several keep ratios, and what it would cost; nothing is written."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmengine.config import Config

from ..datasets import read_pool
from ..datasets.originals import data_folders, untouched
from ..datasets.sources import inner_datasets, value_at
from ..density import nearest_kept
from ..features.alike import NEARLY_ALL, same_features_note
from ..feedback import initial_set, keep_count
from ..pool import print_notes
from ..settings.config_text import check_writable
from ..settings.options import Options
from ..stages import ReadingStore
from ..strategies.run import Run
from .estimate import Estimate, estimate, measure, work_of
from .results import bad_images_note

_BY_DENSITY = ('adadedup', 'clip_dedup')
RATIOS = tuple(round(0.1 * step, 1) for step in range(1, 10))


@dataclass(frozen=True)
class Row:
    """One keep ratio.

    Attributes:
        keep_ratio: in (0, 1].
        kept: number of samples.
        threshold: density score above which samples go; None for strategies that do not go by
            density.
        near_duplicates: share of near-duplicates among what goes; None likewise, where nothing
            goes, and where nearly all features are the same.
        cost: of a whole run.
    """

    keep_ratio: float
    kept: int
    threshold: float | None
    near_duplicates: float | None
    cost: Estimate


@dataclass(frozen=True)
class DryRun:
    """What a dry run found.

    Attributes:
        rows: by rising keep ratio.
        samples: how many there are.
        reused: whether features of the work dir could be used.
        notes: sentences on the images.
    """

    rows: list[Row]
    samples: int
    reused: bool
    notes: list[str]


def dry_run(config: Config, options: Options, work_dir: Path) -> DryRun:
    """Looks at several keep ratios; what density pruning would do, which some strategies start from, is computed.

    Finished stages of ``work_dir`` are used; what is missing is computed in a temporary folder and
    removed with it.

    Args:
        config: a training config.
        options: its ``adadedup`` dict, resolved; its own keep ratio is among those shown.
        work_dir: where the run would work; it need not exist.

    Raises:
        UserError: the config is wrong.
    """
    check_writable(config)
    originals = [
        folder for path in inner_datasets(config) for folder in data_folders(value_at(config, path))
    ]
    with (
        tempfile.TemporaryDirectory(prefix='adadedup_') as folder,
        untouched(originals, but=[tempfile.gettempdir()]),
    ):
        pool, sources = read_pool(config)
        print_notes(pool)
        run = Run(config, options, ReadingStore(folder, also=work_dir / 'stages'), pool, sources)
        ratios = sorted({*RATIOS, options.keep_ratio})
        work = work_of(run, options.keep_ratio)
        reused = work.features and run.store.is_finished('features', run.features_key)
        rates = measure(run, work)
        costs = [estimate(run, work_of(run, ratio), rates, ratio) for ratio in ratios]
        if options.strategy_name in _BY_DENSITY:
            rows = _rows(run, ratios, costs)
        else:
            rows = [
                Row(ratio, keep_count(ratio, len(pool)), None, None, cost)
                for ratio, cost in zip(ratios, costs, strict=True)
            ]
        notes = _notes(run)
    return DryRun(rows, len(pool), reused, notes)


def _notes(run: Run) -> list[str]:
    """What the features say about the images themselves, if they were computed."""
    notes = []
    if run.looked_at_images and run.bad_images:
        notes.append(bad_images_note(run.bad_images))
    if run.looked_at_features and run.same_features >= NEARLY_ALL:
        notes.append(same_features_note(run.same_features))
    return notes


def _rows(run: Run, ratios: Sequence[float], costs: Sequence[Estimate]) -> list[Row]:
    _, similarity = run.density(run.layout)
    compared, usable = run.compared(run.layout), ~run.dropped
    rows = []
    for ratio, cost in zip(ratios, costs, strict=True):
        kept = np.zeros(len(usable), bool)
        count = keep_count(ratio, len(usable))
        kept[usable], threshold = initial_set(similarity[usable], min(1.0, count / usable.sum()))
        partner, _ = nearest_kept(compared, run.clusters, kept)
        gone = run.likeness(np.where(usable, partner, -1))
        if run.same_features >= NEARLY_ALL:
            gone = gone[:0]
        share = float((gone >= run.embedder.near_duplicate).mean()) if len(gone) else None
        rows.append(Row(ratio, int(kept.sum()), threshold, share, cost))
    return rows
