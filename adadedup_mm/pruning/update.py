"""New data arrives: a run that keeps an older run's decisions and decides about the new images."""

import json
import os
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..base.errors import UserError
from ..base.files import read_array, read_object, write_array, write_json, write_rows
from ..density import greedy_keep
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

    def column(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Values of a column of its samples, in the order of (N,) rows; -1 gives anything."""
        return self.samples[name].to_numpy()[rows]


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
            f'the run in {folder} has no thresholds (strategy {manifest.strategy}): --update needs '
            'one of a strategy that goes by density scores'
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
    needed = ('image_paths', 'cluster', 'order', 'kept')
    wrong = [name for name in needed if samples[name].null_count]
    numbers = samples['cluster'].to_numpy()
    are_clusters = (numbers >= 0) & (numbers < clusters)
    if not are_clusters.all():
        wrong.append('cluster')
    if wrong:
        raise UserError(
            f'{folder}/samples.parquet has impossible values in the column {wrong[0]}: {AGAIN}, or '
            'prune without --update'
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
    _require_comparable(run, old)
    for table in (SAMPLES, CLUSTERS):
        run.ledger.digest(str(table.path(folder)))
    rows = _match(run, old)
    if (rows < 0).all():
        raise UserError(
            f'none of the {len(rows)} samples is one of {folder} (same path, size and modification '
            'time): prune without --update'
        )

    _compose_features(run, old, rows)
    _ = run.features  # The images have been read with them, and need not be read again.
    centroids, far_limit = _centroids(old)
    assignment, kept, similarity = _decide(run, old, rows, centroids)
    loss = old.column('loss', rows).astype(np.float32)
    loss[rows < 0] = np.nan
    order = _order(old.column('order', rows), rows, assignment)
    selection = Selection(
        kept, assignment, order, similarity, old.thresholds, loss=loss, layout=old.layout
    )

    is_old = rows >= 0
    reasons = np.array(old.samples['reason'].fill_null('').to_pylist(), object)
    selection.reason[is_old] = reasons[rows[is_old]]
    selection.update = _facts(run, old, rows, kept, centroids, far_limit)
    selection.notes += _notes(selection.update)

    return selection


def _require_comparable(run: Run, old: OldRun) -> None:
    """Raises UserError if the new samples cannot be compared with the old ones."""
    if old.origin != run.image_stages.origin:
        raise UserError(
            f'the features in {old.folder} come from another embedder or other views '
            f'({old.origin.get("embedder")}, {old.origin.get("views")}): give the same options, or '
            'prune without --update'
        )
    if old.layout and not run.pool.labelled.all():
        raise UserError(
            f'the run in {old.folder} compared labels (feedback.layout), which some of the samples '
            'do not have: prune without --update'
        )


def _decide(
    run: Run, old: OldRun, rows: np.ndarray, centroids: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The stage ``update``.

    Args:
        run: the new run.
        old: the older one.
        rows: (N,) int64, see ``_match``.
        centroids: (K, d) float32 of the old clusters.

    Returns:
        The samples' clusters, (N,) int32, which are kept, (N,) bool, and their density scores, (N,)
        float32.
    """
    dropped = run.dropped
    vectors = run.density_stages.compared(old.layout)
    is_new = rows < 0

    def compute(folder: Path) -> None:
        new = np.flatnonzero(is_new)
        nearest = nearest_centroid(run.features, new, centroids)
        assignment = old.column('cluster', rows).astype(np.int32)
        # Samples without a direction have no nearest one.
        assignment[new] = np.maximum(nearest, 0)
        kept = old.column('kept', rows) & ~is_new
        candidates = is_new & ~dropped
        chosen, new_similarity = greedy_keep(vectors, assignment, old.thresholds, candidates, kept)
        similarity = np.where(is_new, new_similarity, old.column('similarity', rows))
        write_array(folder / 'assignment.npy', assignment)
        write_array(folder / 'kept.npy', kept | chosen)
        write_array(folder / 'similarity.npy', similarity.astype(np.float32))

    inputs = dict(
        features=run.ledger.used['features'],
        rows=rows.tolist(),
        inputs=run.ledger.inputs,
        layout=old.layout,
        objects=run.density_stages.objects_key,
    )
    if dropped.any():
        inputs['dropped'] = np.flatnonzero(dropped).tolist()
    folder = run.stage('update', inputs, compute)
    assignment = read_array(folder / 'assignment.npy')
    kept = read_array(folder / 'kept.npy')

    return assignment, kept, read_array(folder / 'similarity.npy')


def _match(run: Run, old: OldRun) -> np.ndarray:
    """(N,) int64, the old run's row of each sample; -1 for new ones. Each row is used once.

    Of several samples with the same images, those with the same id belong together; the others
    follow their order.
    """
    columns = run.image_stages.columns
    before = _image_names(old.samples['image_paths'].to_pylist(), old.stamps, columns)
    now = _image_names(run.pool.image_paths, run.image_stages.stamps(), columns)
    ids_before = old.samples['sample_id'].to_pylist()
    named_before = zip(before, ids_before, strict=True)
    row_of = {named: row for row, named in enumerate(named_before)}
    named_now = zip(now, run.pool.sample_ids, strict=True)
    same = [row_of.get(named, -1) for named in named_now]
    rows = np.array(same, np.int64)

    unused = set(range(len(before))) - set(same)
    rows_of_images: dict[Any, list[int]] = defaultdict(list)
    for row in sorted(unused, reverse=True):
        rows_of_images[before[row]].append(row)
    for sample in np.flatnonzero(rows < 0):
        left = rows_of_images.get(now[sample])
        if left:
            rows[sample] = left.pop()

    return rows


def _image_names(
    image_paths: Sequence[Sequence[str]], stamps: np.ndarray, columns: Sequence[int]
) -> list[Hashable]:
    """What tells samples apart by their images: paths, how many there are, and their stamps."""
    names: list[Hashable] = []
    for paths, stamp in zip(image_paths, stamps.tolist(), strict=True):
        looked_at = [paths[column] for column in columns if column < len(paths)]
        absolute = tuple(os.path.abspath(path) for path in looked_at)
        names.append((absolute, len(paths), str(stamp)))
    return names


def _compose_features(run: Run, old: OldRun, rows: np.ndarray) -> None:
    """The features stage, from the old run's features and those of the new images."""
    new = np.flatnonzero(rows < 0)
    new_folder = _extract_new(run, new)

    def compose(target: Path) -> None:
        is_old = rows >= 0
        unreadable = np.zeros(len(rows), bool)
        unreadable[is_old] = old.unreadable[rows[is_old]]
        bad = []
        for sample in np.flatnonzero(unreadable):
            path = run.pool.image_paths[sample][0]
            reason = f'unreadable in {old.folder}'
            bad.append(dict(sample=int(sample), path=path, reason=reason))

        new_features = np.empty((0, old.features.shape[1]), np.float32)
        if len(new):
            new_features = np.load(new_folder / 'features.npy', mmap_mode='r')
            unreadable[new] = np.load(new_folder / 'unreadable.npy')
            bad += _bad_among(new, new_folder)

        write_array(target / 'unreadable.npy', unreadable)
        write_json(target / 'bad_images.json', bad)
        _write_features(target / 'features.npy', rows, old.features, new_features)
        run.image_stages.write_origin(target)

    run.image_stages.run_features(compose)


def _extract_new(run: Run, new: np.ndarray) -> Path:
    """The stage ``new_features`` of the given samples; empty where there are none."""
    images = run.image_stages
    inputs = dict(features=images.features_key, new=new.tolist())
    if not len(new):
        return run.stage('new_features', inputs, lambda folder: None)
    paths = tuple(run.pool.image_paths[sample] for sample in new)
    shards = images.shards(paths, images.embedder, none_will_do=True)
    return run.stage('new_features', inputs, shards)


def _bad_among(new: np.ndarray, folder: Path) -> list[dict[str, Any]]:
    """What a stage says of unreadable images among the new ones, with the samples of the run."""
    text = (folder / 'bad_images.json').read_text(encoding='utf-8')
    bad = []
    for entry in json.loads(text):
        sample = int(new[entry['sample']])
        bad.append(dict(entry, sample=sample))
    return bad


def _write_features(path: Path, rows: np.ndarray, old: np.ndarray, new: np.ndarray) -> None:
    """Writes (N, d) float32 features.

    Args:
        path: the file.
        rows: (N,) int64, the row of ``old``, or -1 for the next one of ``new``.
        old: (n, d) float32.
        new: (m, d) float32.
    """
    row_of_new = np.cumsum(rows < 0) - 1
    width = old.shape[1]

    def block(start: int) -> np.ndarray:
        end = start + BLOCK
        part = rows[start:end]
        is_old = part >= 0
        features = np.empty((len(part), width), np.float32)
        features[is_old] = old[part[is_old]]
        new_rows = row_of_new[start:end][~is_old]
        features[~is_old] = new[new_rows]
        return features

    starts = range(0, len(rows), BLOCK)
    write_rows(path, (len(rows), width), map(block, starts))


def _centroids(old: OldRun) -> tuple[np.ndarray, float]:
    """The centroids of the old clusters, and the similarity below which a sample is far from all.

    The former are (K, d) float32, unit means of the features.

    An old sample is compared with the mean of the others of its cluster: in small clusters it would
    resemble itself. Clusters without a readable sample have a zero centroid.
    """
    clusters = old.samples['cluster'].to_numpy()
    sums = np.zeros((len(old.thresholds), old.features.shape[1]))
    for cluster, members in enumerate(cluster_members(clusters)):
        features, _ = read_rows(old.features, members)
        sums[cluster] = features.sum(axis=0, dtype=np.float64)

    centroids = _unit(sums).astype(np.float32)

    best = []
    for start in range(0, len(clusters), BLOCK):
        end = min(start + BLOCK, len(clusters))
        members = np.arange(start, end)
        features, blank = read_rows(old.features, members)
        similarity = features @ centroids.T
        own = clusters[members]
        others = _unit(sums[own] - features)
        to_others = np.einsum('ij,ij->i', features, others)
        similarity[np.arange(len(members)), own] = to_others
        nearest = similarity.max(axis=1)
        best.append(nearest[~blank])

    known = np.concatenate(best)
    far_limit = float(np.quantile(known, FAR_QUANTILE)) if len(known) else -1.0

    return centroids, far_limit


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of unit length; zero for those without a direction."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled = rows / np.maximum(norms, 1e-6)
    return np.where(norms > 1e-6, scaled, 0)


def _order(order: np.ndarray, rows: np.ndarray, assignment: np.ndarray) -> np.ndarray:
    """(N,) int32 positions inside the clusters: old samples in their order, then the new ones."""
    is_new = rows < 0
    old_order = np.where(is_new, 0, order)
    samples = np.arange(len(rows))
    sequence = np.lexsort((samples, old_order, is_new, assignment))
    sizes = np.bincount(assignment)
    starts = np.cumsum(sizes) - sizes
    start_of_cluster = np.repeat(starts, sizes)
    positions = np.empty(len(rows), np.int32)
    positions[sequence] = samples - start_of_cluster
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
    is_new = rows < 0
    new = int(is_new.sum())
    far = _count_far(run.features, np.flatnonzero(is_new & ~run.unreadable), centroids, far_limit)
    growth = len(rows) / old.full_samples - 1
    present = {run.pool.classes[label] for label in np.unique(run.pool.labels)}

    return dict(
        of=str(old.folder),
        full_samples=old.full_samples,
        old=len(rows) - new,
        new=new,
        new_kept=int(kept[is_new].sum()),
        gone=len(old.samples) - (len(rows) - new),
        far=far,
        growth=round(growth, 4),
        full_run_due=_why_due(growth, far, new, sorted(present - old.classes)),
    )


def _count_far(
    features: np.ndarray, samples: np.ndarray, centroids: np.ndarray, far_limit: float
) -> int:
    """How many of the given samples are less similar than ``far_limit`` to every centroid."""
    far = 0
    for start in range(0, len(samples), BLOCK):
        block = samples[start : start + BLOCK]
        nearest = (features[block] @ centroids.T).max(axis=1)
        far += int((nearest < far_limit).sum())
    return far


def _why_due(growth: float, far: int, new: int, unknown: Sequence[str]) -> list[str]:
    """Why a full run is due, in words.

    Args:
        growth: share of new samples since the last full run.
        far: how many of the new samples are far from all clusters.
        new: how many there are.
        unknown: classes that the old samples do not have.
    """
    due = []
    if growth > MAX_GROWTH:
        due.append(
            f'the data has grown by {growth:.0%} since the last full run (bound {MAX_GROWTH:.0%})'
        )

    if far > MAX_FAR * new and far >= LEAST_FAR:
        due.append(
            f'{far / new:.0%} of the new samples are far from all clusters (bound {MAX_FAR:.0%})'
        )

    if unknown:
        more = ' and more' if len(unknown) > 5 else ''
        due.append(f'new classes: {", ".join(unknown[:5])}{more}')

    return due


def _notes(facts: dict[str, Any]) -> list[str]:
    text = (
        f'Update of {facts["of"]}: {facts["new_kept"]} of {facts["new"]} new samples were kept, '
        f'{facts["old"]} old decisions stay, {facts["gone"]} samples are not in the dataset any '
        'more.'
    )
    due = '; '.join(facts['full_run_due'])
    return [text, f'A full run is due: {due}.' if due else 'No full run is due yet.']
