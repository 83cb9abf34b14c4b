"""The tables that a run leaves behind: their columns, and how a selection becomes them."""

from typing import Any

import numpy as np
import pyarrow as pa

from ..pool import Pool, class_membership
from ..selection import Selection
from .parquet import TableFile

# Of the first view, in pixels.
_OBJECT = pa.struct(
    [
        ('class', pa.string()),
        ('x1', pa.float32()),
        ('y1', pa.float32()),
        ('x2', pa.float32()),
        ('y2', pa.float32()),
    ]
)
SAMPLES = TableFile(
    'samples.parquet',
    pa.schema(
        [
            ('sample_id', pa.string()),
            ('image_paths', pa.list_(pa.string())),
            ('cluster', pa.int32()),
            ('order', pa.int32()),
            ('similarity', pa.float32()),
            ('partner_id', pa.string()),
            ('loss', pa.float32()),
            ('kept', pa.bool_()),
            ('reason', pa.string()),
            ('partner_similarity', pa.float32()),
            ('image_similarity', pa.float32()),
            ('label_suspect', pa.bool_()),
            ('suspect_objects', pa.list_(_OBJECT)),
            ('dataset', pa.int32()),
            ('scene', pa.string()),
            ('map_x', pa.float32()),
            ('map_y', pa.float32()),
            ('score', pa.float64()),
            ('conflict_with', pa.string()),
        ]
    ),
    optional=frozenset(
        (
            'order',
            'similarity',
            'partner_similarity',
            'image_similarity',
            'label_suspect',
            'suspect_objects',
            'dataset',
            'scene',
            'map_x',
            'map_y',
            'score',
            'conflict_with',
        )
    ),
)
CLUSTERS = TableFile(
    'clusters.parquet',
    pa.schema(
        [
            ('cluster', pa.int32()),
            ('size', pa.int64()),
            ('kept_initial', pa.int64()),
            ('kept', pa.int64()),
            ('threshold', pa.float64()),
            ('loss_kept', pa.float64()),
            ('loss_pruned', pa.float64()),
            ('gap', pa.float64()),
            ('gap_se', pa.float64()),
            ('shift', pa.float64()),
        ]
    ),
)
CLASSES = TableFile(
    'classes.parquet',
    pa.schema(
        [
            ('class', pa.string()),
            ('instances', pa.int64()),
            ('instances_kept', pa.int64()),
            ('images', pa.int64()),
            ('images_kept', pa.int64()),
        ]
    ),
)


def samples_table(
    pool: Pool,
    selection: Selection,
    partner: np.ndarray,
    partner_similarity: np.ndarray,
    image_similarity: np.ndarray,
    suspect: np.ndarray,
    xy: np.ndarray | None,
    conflict_with: np.ndarray,
) -> pa.Table:
    """``samples.parquet``: a row a sample.

    Args:
        pool: N samples.
        selection: the final one, with its reasons.
        partner: (N,) int64 index of the kept sample that makes a pruned one redundant; -1 where
            there is none.
        partner_similarity: (N,) float32, the density score of that pair.
        image_similarity: (N,) float32, cosine of the image features of that pair.
        suspect: (N,) bool.
        xy: (N, 2) float32 map, or None.
        conflict_with: (N,) int64 index of a near-identical sample with contradicting labels; -1
            where there is none.
    """
    count = len(pool)
    unknown = np.full(count, np.nan)
    ids = np.array(pool.sample_ids, object)
    has_partner = partner >= 0

    return SAMPLES.table(
        {
            'sample_id': pool.sample_ids,
            'image_paths': pool.image_paths,
            'cluster': selection.assignment,
            'order': selection.order,
            'similarity': _nullable(selection.similarity),
            'partner_id': pa.array(ids[partner], pa.string(), mask=~has_partner),
            'loss': _nullable(unknown if selection.loss is None else selection.loss),
            'kept': selection.kept,
            'reason': selection.reason,
            'partner_similarity': _nullable(np.where(has_partner, partner_similarity, np.nan)),
            'image_similarity': _nullable(np.where(has_partner, image_similarity, np.nan)),
            'label_suspect': suspect,
            'suspect_objects': _suspect_objects(pool, suspect),
            'dataset': pool.dataset_index,
            'scene': pool.scenes or [None] * count,
            'map_x': _nullable(unknown if xy is None else xy[:, 0]),
            'map_y': _nullable(unknown if xy is None else xy[:, 1]),
            'score': _nullable(unknown if selection.score is None else selection.score),
            'conflict_with': pa.array(ids[conflict_with], pa.string(), mask=conflict_with < 0),
        }
    )


def _suspect_objects(pool: Pool, suspect: np.ndarray) -> list[list[dict[str, Any]] | None]:
    """The labelled boxes of the suspects' first views, for people to judge; None elsewhere."""
    listed: list[list[dict[str, Any]] | None] = [None] * len(pool)
    for sample in np.flatnonzero(suspect):
        rows = range(pool.offsets[sample], pool.offsets[sample + 1])
        with_box = [row for row in rows if np.isfinite(pool.boxes[row]).all()]
        listed[sample] = [_object(pool, row) for row in with_box]

    return listed


def _object(pool: Pool, row: int) -> dict[str, Any]:
    x1, y1, x2, y2 = pool.boxes[row].tolist()
    name = pool.classes[pool.labels[row]]
    return {'class': name, 'x1': x1, 'y1': y1, 'x2': x2, 'y2': y2}


def clusters_table(selection: Selection) -> pa.Table:
    """``clusters.parquet``: a row a cluster; none for strategies that look at no image."""
    count = len(selection.thresholds)
    unknown = np.full(count, np.nan)
    everything = np.ones(len(selection.kept), bool)
    initial = selection.kept if selection.initial is None else selection.initial
    gaps = selection.gaps

    return CLUSTERS.table(
        {
            'cluster': np.arange(count),
            'size': _cluster_counts(selection, everything),
            'kept_initial': _cluster_counts(selection, initial),
            'kept': _cluster_counts(selection, selection.kept),
            'threshold': _nullable(selection.thresholds),
            'loss_kept': _nullable(unknown if gaps is None else gaps.loss_kept),
            'loss_pruned': _nullable(unknown if gaps is None else gaps.loss_pruned),
            'gap': _nullable(unknown if gaps is None else gaps.gap),
            'gap_se': _nullable(unknown if gaps is None else gaps.gap_se),
            'shift': _nullable(unknown if selection.shift is None else selection.shift),
        }
    )


def _cluster_counts(selection: Selection, counted: np.ndarray) -> np.ndarray:
    """(K,) int64, how many of the (N,) bool ``counted`` samples each cluster has."""
    count = len(selection.thresholds)
    if not count:
        return np.empty(0, np.int64)
    return np.bincount(selection.assignment[counted], minlength=count)


def classes_table(pool: Pool, kept: np.ndarray) -> pa.Table:
    """``classes.parquet``: objects and images of each class, before and after.

    Args:
        pool: N samples.
        kept: (N,) bool.
    """
    count = len(pool.classes)
    owner = np.repeat(np.arange(len(pool)), np.diff(pool.offsets))
    labels_kept = pool.labels[kept[owner]]
    samples, classes = class_membership(pool)
    classes_kept = classes[kept[samples]]

    return CLASSES.table(
        {
            'class': pool.classes,
            'instances': np.bincount(pool.labels, minlength=count),
            'instances_kept': np.bincount(labels_kept, minlength=count),
            'images': np.bincount(classes, minlength=count),
            'images_kept': np.bincount(classes_kept, minlength=count),
        }
    )


def _nullable(values: np.ndarray) -> pa.Array:
    """NaN and infinities become null."""
    is_unknown = ~np.isfinite(values)
    return pa.array(values, mask=is_unknown)
