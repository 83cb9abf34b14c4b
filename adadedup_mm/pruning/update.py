"""New data arrives: a run that takes over an older run's decisions and decides about the new images only."""

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..base.errors import UserError
from ..base.files import read_array, read_object, write_array, write_json, write_rows
from ..density import greedy_keep
from ..pool import choose_views
from ..selection import Selection
from ..strategies.run import Run
from ..vectors.nearest import nearest_centroid
from ..vectors.rows import cluster_members, read_rows
from ..workdir.damage import AGAIN
from ..workdir.manifest import known_manifest
from ..workdir.tables import CLASSES, CLUSTERS, SAMPLES

# A full run is due beyond these: growth since the last one, and new samples in places where it saw
# next to none.
MAX_GROWTH = 0.25
MAX_FAR = 0.1
# Fewer than this many far ones are chance.
LEAST_FAR = 3
# Of the old samples, the share that counts as far from all centroids.
FAR_QUANTILE = 0.01
BLOCK = 4096


@dataclass(frozen=True)
class OldRun:
    """A finished run of n samples and K clusters.

    Attributes:
        folder: its work dir.
        samples: samples.parquet.
        thresholds: (K,) float64.
        classes: names of the classes that its samples have.
        features: (n, d) float32, memory-mapped.
        unreadable: (n,) bool.
        stamps: see ``Run.stamps``.
        origin: see ``Run.origin``.
        full_samples: how many samples the last full run had.
        layout: see ``Selection``.
    """

    folder: Path
    samples: pa.Table
    thresholds: np.ndarray
    classes: frozenset[str]
    features: np.ndarray
    unreadable: np.ndarray
    stamps: np.ndarray
    origin: dict[str, Any]
    full_samples: int
    layout: float


def read_old_run(folder: Path) -> OldRun:
    """Reads what an update needs of an older run.

    Raises:
        UserError: it is not finished, has no thresholds or no features, or cannot be read.
    """
    manifest = known_manifest(folder)
    if manifest is None or manifest.full_samples < 1 or not 0 <= manifest.used_layout < 1:
        raise UserError(
            f'{folder} holds no finished run (manifest.json): --update needs the work dir of one'
        )
    samples = SAMPLES.read(folder, needed=('order', 'similarity'))
    thresholds = CLUSTERS.read(folder)['threshold'].to_numpy()
    if not len(thresholds) or not np.isfinite(thresholds).all():
        raise UserError(
            f'the run in {folder} has no thresholds (strategy {manifest.strategy}): '
            '--update needs '
            'one of adadedup, clip_dedup or vlm_sse'
        )
    _check_samples(samples, len(thresholds), folder)
    classes = CLASSES.read(folder)
    stage = folder / 'stages' / 'features'
    try:
        features = np.load(stage / 'features.npy', mmap_mode='r')
        unreadable, stamps = np.load(stage / 'unreadable.npy'), np.load(stage / 'stamps.npy')
        origin = read_object(stage / 'origin.json')
    except Exception as error:
        # What a damaged array raises depends on the byte that is damaged.
        raise UserError(
            f'{stage} has no features that can be used again: prune without --update'
        ) from error
    fitting = features.ndim == 2 and unreadable.dtype == bool and stamps.ndim == 3
    if not fitting or not len(features) == len(unreadable) == len(stamps) == len(samples):
        raise UserError(
            f'{stage} belongs to another run than {folder}/samples.parquet: prune without --update'
        )
    present = {row['class'] for row in classes.to_pylist() if row['images']}
    return OldRun(
        folder,
        samples,
        thresholds,
        frozenset(present),
        features,
        unreadable,
        stamps,
        origin,
        manifest.full_samples,
        float(manifest.used_layout),
    )


def _check_samples(samples: pa.Table, clusters: int, folder: Path) -> None:
    """Raises UserError if a sample lacks what every sample of a run with thresholds has."""
    empty = [
        name for name in ('image_paths', 'cluster', 'order', 'kept') if samples[name].null_count
    ]
    numbers = samples['cluster'].to_numpy()
    if empty or not ((numbers >= 0) & (numbers < clusters)).all():
        raise UserError(
            f'{folder}/samples.parquet has impossible values in the column '
            f'{[*empty, "cluster"][0]}: '
            f'{AGAIN}, or prune without --update'
        )


def update(run: Run, folder: Path) -> Selection:
    """Keeps the decisions of an older run and decides about the samples that it did not have.

    A sample is an old one if its images have the paths, sizes and modification times that they had.
    A new one belongs to the cluster with the most similar centroid, the mean of the older run's
    features there, and stays unless it is more similar than the cluster's threshold to a kept
    sample there, in the dataset's order (see ``greedy_keep``). The keep ratio of the config has no
    part in this.

    Args:
        run: the new run.
        folder: work dir of the older one; nothing is written there.

    Raises:
        UserError: the older run cannot be used, or shares no image with this one.
    """
    old = read_old_run(folder)
    if old.origin != run.image_stages.origin:
        raise UserError(
            f'the features in {folder} come from another embedder or other views '
            f'({old.origin.get("embedder")}, {old.origin.get("views")}): give the same options, or '
            'prune '
            'without --update'
        )
    if old.layout and not run.pool.labelled.all():
        raise UserError(
            f'the run in {folder} compared labels (feedback.layout), which some of the samples do '
            'not '
            'have: prune without --update'
        )
    for table in (SAMPLES, CLUSTERS):
        run.ledger.digest(str(table.path(folder)))
    rows = _match(run, old)
    if (rows < 0).all():
        raise UserError(
            f'none of the {len(rows)} samples is one of {folder} (same path, size and modification '
            'time): '
            'prune without --update'
        )
    _compose_features(run, old, rows)
    _ = run.features  # The images have been read with them, and need not be read again.
    centroids, far_limit = _centroids(old)
    usable, vectors = ~run.dropped, run.density_stages.compared(old.layout)

    def compute(target: Path) -> None:
        new = np.flatnonzero(rows < 0)
        assignment = old.samples['cluster'].to_numpy()[rows].astype(np.int32)
        assignment[new] = np.maximum(nearest_centroid(run.features, new, centroids), 0)
        kept = old.samples['kept'].to_numpy()[rows] & (rows >= 0)
        chosen, similarity = greedy_keep(
            vectors, assignment, old.thresholds, (rows < 0) & usable, kept
        )
        similarity = np.where(
            rows >= 0, old.samples['similarity'].to_numpy()[rows], similarity
        ).astype(np.float32)
        write_array(target / 'assignment.npy', assignment)
        write_array(target / 'kept.npy', kept | chosen)
        write_array(target / 'similarity.npy', similarity)

    inputs = dict(
        features=run.ledger.used['features'],
        rows=rows.tolist(),
        inputs=run.ledger.inputs,
        layout=old.layout,
        objects=run.density_stages.objects_key,
    )
    if run.dropped.any():
        inputs['dropped'] = np.flatnonzero(run.dropped).tolist()
    target = run.stage('update', inputs, compute)
    assignment, kept, similarity = (
        read_array(target / f'{name}.npy') for name in ('assignment', 'kept', 'similarity')
    )
    loss = old.samples['loss'].to_numpy()[rows].astype(np.float32)
    loss[rows < 0] = np.nan
    order = _order(old.samples['order'].to_numpy()[rows], rows, assignment)
    selection = Selection(
        kept, assignment, order, similarity, old.thresholds, loss=loss, layout=old.layout
    )
    reasons = np.array(old.samples['reason'].fill_null('').to_pylist(), object)
    selection.reason[rows >= 0] = reasons[rows[rows >= 0]]
    selection.update = _facts(run, old, rows, kept, centroids, far_limit)
    selection.notes += _notes(selection.update)
    return selection


def _match(run: Run, old: OldRun) -> np.ndarray:
    """(N,) int64, the old run's row of each sample; -1 for new ones. Each row is used once.

    Of several samples with the same images, those with the same id belong together; the others
    follow their order.
    """
    columns = choose_views(run.pool.views, run.options.views)

    def images(all_paths: Sequence[Sequence[str]], stamps: np.ndarray) -> list[tuple]:
        return [
            (
                *(os.path.abspath(paths[column]) for column in columns if column < len(paths)),
                len(paths),
                str(stamp),
            )
            for paths, stamp in zip(all_paths, stamps.tolist(), strict=True)
        ]

    before = images(old.samples['image_paths'].to_pylist(), old.stamps)
    now = images(run.pool.image_paths, run.image_stages.stamps())
    row_of = {
        named: row
        for row, named in enumerate(zip(before, old.samples['sample_id'].to_pylist(), strict=True))
    }
    rows = np.array(
        [row_of.get(named, -1) for named in zip(now, run.pool.sample_ids, strict=True)], np.int64
    )
    rest: dict[Any, list[int]] = defaultdict(list)
    for row in sorted(set(range(len(before))) - set(rows.tolist()), reverse=True):
        rest[before[row]].append(row)
    for sample in np.flatnonzero(rows < 0):
        if rest.get(now[sample]):
            rows[sample] = rest[now[sample]].pop()
    return rows


def _compose_features(run: Run, old: OldRun, rows: np.ndarray) -> None:
    """The features stage, from the old run's features and those of the new images."""
    images = run.image_stages
    new = np.flatnonzero(rows < 0)
    shards = images.shards(
        tuple(run.pool.image_paths[row] for row in new), images.embedder, none_will_do=True
    )
    inputs = dict(features=images.features_key, new=new.tolist())
    new_folder = run.stage('new_features', inputs, shards if len(new) else lambda folder: None)

    def compose(target: Path) -> None:
        unreadable = np.zeros(len(rows), bool)
        unreadable[rows >= 0] = old.unreadable[rows[rows >= 0]]
        bad = []
        for sample in np.flatnonzero(unreadable):
            path = run.pool.image_paths[sample][0]
            bad.append(dict(sample=int(sample), path=path, reason=f'unreadable in {old.folder}'))
        new_features = np.empty((0, old.features.shape[1]), np.float32)
        if len(new):
            new_features = np.load(new_folder / 'features.npy', mmap_mode='r')
            unreadable[new] = np.load(new_folder / 'unreadable.npy')
            for entry in json.loads((new_folder / 'bad_images.json').read_text(encoding='utf-8')):
                bad.append(dict(entry, sample=int(new[entry['sample']])))
        write_array(target / 'unreadable.npy', unreadable)
        write_json(target / 'bad_images.json', bad)
        _write_features(target / 'features.npy', rows, old.features, new_features)
        images.write_origin(target)

    images.run_features(compose)


def _write_features(path: Path, rows: np.ndarray, old: np.ndarray, new: np.ndarray) -> None:
    """Writes (N, d) float32: the given rows of the old ones, and the new ones in their order where that is -1."""
    row_of_new = np.cumsum(rows < 0) - 1

    def block(start: int) -> np.ndarray:
        part = rows[start : start + BLOCK]
        is_old = part >= 0
        features = np.empty((len(part), old.shape[1]), np.float32)
        features[is_old] = old[part[is_old]]
        features[~is_old] = new[row_of_new[start : start + BLOCK][~is_old]]
        return features

    write_rows(path, (len(rows), old.shape[1]), map(block, range(0, len(rows), BLOCK)))


def _centroids(old: OldRun) -> tuple[np.ndarray, float]:
    """(K, d) float32 unit mean features of the old clusters, and the similarity below which a sample is far from all.

    An old sample is compared with the mean of the others of its cluster: in small clusters it would
    resemble itself. Clusters without a readable sample have a zero centroid.
    """
    clusters = old.samples['cluster'].to_numpy()
    sums = np.zeros((len(old.thresholds), old.features.shape[1]))
    for cluster, members in enumerate(cluster_members(clusters)):
        sums[cluster] = read_rows(old.features, members)[0].sum(axis=0, dtype=np.float64)
    centroids = _unit(sums).astype(np.float32)
    best = []
    for start in range(0, len(clusters), BLOCK):
        members = np.arange(start, min(start + BLOCK, len(clusters)))
        features, blank = read_rows(old.features, members)
        similarity = features @ centroids.T
        others = _unit(sums[clusters[members]] - features)
        similarity[np.arange(len(members)), clusters[members]] = np.einsum(
            'ij,ij->i', features, others
        )
        best.append(similarity.max(axis=1)[~blank])
    known = np.concatenate(best)
    return centroids, float(np.quantile(known, FAR_QUANTILE)) if len(known) else -1.0


def _unit(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.where(norms > 1e-6, rows / np.maximum(norms, 1e-6), 0)


def _order(order: np.ndarray, rows: np.ndarray, assignment: np.ndarray) -> np.ndarray:
    """(N,) int32 positions inside the clusters: the old samples in their order, then the new ones."""
    sequence = np.lexsort(
        (np.arange(len(rows)), np.where(rows >= 0, order, 0), rows < 0, assignment)
    )
    sizes = np.bincount(assignment)
    positions = np.empty(len(rows), np.int32)
    positions[sequence] = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return positions


def _facts(
    run: Run,
    old: OldRun,
    rows: np.ndarray,
    kept: np.ndarray,
    centroids: np.ndarray,
    far_limit: float,
) -> dict[str, Any]:
    """What the manifest says about the update."""
    new = np.flatnonzero((rows < 0) & ~run.unreadable)
    similarity = (
        np.concatenate(
            [
                (run.features[new[start : start + BLOCK]] @ centroids.T).max(axis=1)
                for start in range(0, len(new), BLOCK)
            ]
        )
        if len(new)
        else np.empty(0)
    )
    far = int((similarity < far_limit).sum())
    count = int((rows < 0).sum())
    growth = len(rows) / old.full_samples - 1
    present = {run.pool.classes[label] for label in np.unique(run.pool.labels)}
    due = []
    if growth > MAX_GROWTH:
        due.append(
            f'the data has grown by {growth:.0%} since the last full run (bound {MAX_GROWTH:.0%})'
        )
    if far > MAX_FAR * count and far >= LEAST_FAR:
        due.append(
            f'{far / count:.0%} of the new samples are far from all clusters (bound {MAX_FAR:.0%})'
        )
    if unknown := sorted(present - old.classes):
        due.append(
            f'new classes: {", ".join(unknown[:5])}{" and more" if len(unknown) > 5 else ""}'
        )
    return dict(
        of=str(old.folder),
        full_samples=old.full_samples,
        old=len(rows) - count,
        new=count,
        new_kept=int(kept[rows < 0].sum()),
        gone=len(old.samples) - (len(rows) - count),
        far=far,
        growth=round(growth, 4),
        full_run_due=due,
    )


def _notes(facts: dict[str, Any]) -> list[str]:
    text = (
        f'Update of {facts["of"]}: {facts["new_kept"]} of {facts["new"]} new samples were kept, '
        f'{facts["old"]} old '
        f'decisions stay, {facts["gone"]} samples are not in the dataset any more.'
    )
    due = '; '.join(facts['full_run_due'])
    return [text, f'A full run is due: {due}.' if due else 'No full run is due yet.']
