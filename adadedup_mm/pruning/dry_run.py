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
from ..strategies.needs import needs_of
from ..strategies.run import Run
from .estimate import Estimate, estimate, measure_rates
from .results import bad_images_note

RATIOS = tuple(round(0.1 * step, 1) for step in range(1, 10))


@dataclass(frozen=True)
class Row:
    """One keep ratio.

    Attributes:
        keep_ratio: in (0, 1].
        kept: number of samples.
        threshold: density score above which samples go; None for strategies that do not go by
            density, and where no more samples stay than there are clusters.
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
    """Looks at several keep ratios.

    What density pruning would do, which some strategies start from, is computed.

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
        needs = needs_of(run, ratios[0])  # What the others need, the smallest needs too.
        reused = needs.features and _has_features(run)
        rates = measure_rates(run, needs)
        costs = [estimate(run, needs_of(run, ratio), rates, ratio) for ratio in ratios]
        if needs.by_density:
            rows = _rows_by_density(run, needs.layout, ratios, costs)
        else:
            rows = _rows(len(pool), ratios, costs)

        notes = _notes(run)
        if needs.by_density and any(row.threshold is None for row in rows):
            notes.append(_no_threshold_note(run))

    return DryRun(rows, len(pool), reused, notes)


def _has_features(run: Run) -> bool:
    return run.ledger.is_finished('features', run.image_stages.features_key)


def _notes(run: Run) -> list[str]:
    """What the features say about the images themselves, if they were computed."""
    images = run.image_stages
    notes = []
    if images.looked_at_images and images.bad_images:
        notes.append(bad_images_note(images.bad_images))
    if images.looked_at_features and images.same_features >= NEARLY_ALL:
        notes.append(same_features_note(images.same_features))
    return notes


def _no_threshold_note(run: Run) -> str:
    clusters = int(run.clusters.max()) + 1
    return (
        f'keep ratios without a threshold leave no more samples than there are clusters, {clusters}'
    )


def _rows(samples: int, ratios: Sequence[float], costs: Sequence[Estimate]) -> list[Row]:
    """For strategies that do not go by density: what is kept, and the cost."""
    rows = []
    for ratio, cost in zip(ratios, costs, strict=True):
        kept = keep_count(ratio, samples)
        rows.append(
            Row(
                ratio,
                kept,
                threshold=None,
                near_duplicates=None,
                cost=cost,
            )
        )
    return rows


def _rows_by_density(
    run: Run, layout: float, ratios: Sequence[float], costs: Sequence[Estimate]
) -> list[Row]:
    """What one threshold over the density scores would do at each keep ratio.

    Args:
        run: the run.
        layout: share of the label layout in the scores.
        ratios: R keep ratios.
        costs: R estimates.
    """
    _, similarity = run.density(layout)
    compared = run.density_stages.compared(layout)
    usable = ~run.dropped
    rows = []
    for ratio, cost in zip(ratios, costs, strict=True):
        budget = keep_count(ratio, len(usable))
        usable_ratio = min(1.0, budget / usable.sum())
        kept = np.zeros(len(usable), bool)
        kept[usable], threshold = initial_set(similarity[usable], usable_ratio)

        partner, _ = nearest_kept(compared, run.clusters, kept)
        partner_of_usable = np.where(usable, partner, -1)
        row = Row(
            keep_ratio=ratio,
            kept=int(kept.sum()),
            threshold=threshold if threshold > -1 else None,
            near_duplicates=_near_duplicates(run, partner_of_usable),
            cost=cost,
        )
        rows.append(row)

    return rows


def _near_duplicates(run: Run, partner: np.ndarray) -> float | None:
    """Share of near-duplicates among the samples with a partner; None where that says nothing.

    Args:
        run: the run.
        partner: (N,) int64, -1 for none.
    """
    images = run.image_stages
    likeness = run.density_stages.likeness(partner)
    if not len(likeness) or images.same_features >= NEARLY_ALL:
        return None
    return float((likeness >= images.embedder.near_duplicate).mean())
