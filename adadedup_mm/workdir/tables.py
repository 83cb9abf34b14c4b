"""A selection as the tables that a run leaves behind."""

import numpy as np
import pyarrow as pa

from ..pool import Pool, class_membership
from ..selection import Selection
from ..settings.options import Options


def reasons(
    selection: Selection,
    kept_before_guards: np.ndarray,
    kept_before_scenes: np.ndarray,
    unreadable: np.ndarray,
    options: Options,
) -> list[str]:
    """One short phrase a sample: why it stayed or went."""
    kept, strategy = kept_before_scenes, options.strategy_name
    if selection.has_scores:
        words = np.where(kept, 'below the threshold', 'above the threshold').astype(object)
        words[kept & (selection.order == 0)] = 'first of its cluster'
    else:
        words = np.where(kept, f'chosen by {strategy}', f'not chosen by {strategy}').astype(object)
    words[kept & ~kept_before_guards] = 'class floor'
    words[~kept & kept_before_guards] = 'made room for the class floor'
    words[selection.kept & ~kept] = (
        'kept with its scene' if options.group_by else 'chosen for the gap'
    )
    words[~selection.kept & kept] = (
        'pruned with its scene' if options.group_by else 'made room for the gap'
    )
    words[unreadable] = 'unreadable image'
    return words.tolist()


def samples_table(
    pool: Pool,
    selection: Selection,
    reason: list[str],
    partner: np.ndarray,
    partner_similarity: np.ndarray,
    suspect: np.ndarray,
    xy: np.ndarray | None,
) -> pa.Table:
    """``samples.parquet``.

    Args:
        pool: N samples.
        selection: the final one.
        reason: N phrases.
        partner: (N,) int64 index of the kept sample that makes a pruned one redundant; -1 where
            there is none.
        partner_similarity: (N,) float32.
        suspect: (N,) bool.
        xy: (N, 2) float32 map, or None.
    """
    has_partner = partner >= 0
    ids = np.array(pool.sample_ids, object)
    absent = np.full(len(pool), np.nan, np.float32)
    return pa.table(
        {
            'sample_id': pa.array(pool.sample_ids, pa.string()),
            'image_paths': pa.array(pool.image_paths, pa.list_(pa.string())),
            'cluster': pa.array(selection.assignment, pa.int32()),
            'order': pa.array(selection.order, pa.int32()),
            'similarity': _nullable(selection.similarity),
            'partner_id': pa.array(ids[partner], pa.string(), mask=~has_partner),
            'loss': _nullable(absent if selection.loss is None else selection.loss),
            'kept': pa.array(selection.kept),
            'reason': pa.array(reason, pa.string()),
            'partner_similarity': _nullable(
                np.where(has_partner, partner_similarity, np.nan).astype(np.float32)
            ),
            'label_suspect': pa.array(suspect),
            'dataset': pa.array(pool.dataset_index, pa.int32()),
            'scene': pa.array(pool.scenes or [None] * len(pool), pa.string()),
            'map_x': _nullable(absent if xy is None else xy[:, 0]),
            'map_y': _nullable(absent if xy is None else xy[:, 1]),
            'score': _nullable(
                absent.astype(np.float64) if selection.score is None else selection.score
            ),
        }
    )


def clusters_table(selection: Selection) -> pa.Table:
    """``clusters.parquet``: a row a cluster; none for strategies that look at no image."""
    count = len(selection.thresholds)

    def total(mask: np.ndarray) -> np.ndarray:
        return (
            np.bincount(selection.assignment[mask], minlength=count)
            if count
            else np.empty(0, np.int64)
        )

    unknown = np.full(count, np.nan)
    gaps = selection.gaps
    initial = selection.kept if selection.initial is None else selection.initial
    return pa.table(
        {
            'cluster': pa.array(np.arange(count), pa.int32()),
            'size': pa.array(total(np.ones(len(selection.kept), bool)), pa.int64()),
            'kept_initial': pa.array(total(initial), pa.int64()),
            'kept': pa.array(total(selection.kept), pa.int64()),
            'threshold': _nullable(selection.thresholds),
            'loss_kept': _nullable(unknown if gaps is None else gaps.loss_kept),
            'loss_pruned': _nullable(unknown if gaps is None else gaps.loss_pruned),
            'gap': _nullable(unknown if gaps is None else gaps.gap),
            'gap_se': _nullable(unknown if gaps is None else gaps.gap_se),
            'shift': _nullable(unknown if selection.shift is None else selection.shift),
        }
    )


def classes_table(pool: Pool, kept: np.ndarray) -> pa.Table:
    """``classes.parquet``: objects and images of each class, before and after."""
    owner = np.repeat(np.arange(len(pool)), np.diff(pool.offsets))
    samples, classes = class_membership(pool)
    count = len(pool.classes)
    return pa.table(
        {
            'class': pa.array(pool.classes, pa.string()),
            'instances': np.bincount(pool.labels, minlength=count),
            'instances_kept': np.bincount(pool.labels[kept[owner]], minlength=count),
            'images': np.bincount(classes, minlength=count),
            'images_kept': np.bincount(classes[kept[samples]], minlength=count),
        }
    )


def _nullable(values: np.ndarray) -> pa.Array:
    """NaN and infinities become null."""
    return pa.array(values, mask=~np.isfinite(values))
