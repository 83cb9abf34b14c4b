"""What a pruning run leaves in its work dir."""

import datetime
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..base.files import sha256_file, sha256_value, write_json, write_table
from ..base.words import listed
from ..datasets import pruned_config, write_pruned
from ..density import nearest_kept
from ..features.alike import NEARLY_ALL, same_features_note
from ..feedback import label_suspects, threshold_curve
from ..selection import Selection
from ..settings.config_text import write_config
from ..strategies.run import Run
from ..vectors.map import map_2d
from ..workdir.manifest import break_even, installed_versions
from ..workdir.tables import classes_table, clusters_table, reasons, samples_table
from .rules import apply_class_floor, apply_scenes, named_unreadable

CURVE_RATIOS = tuple(round(0.05 * step, 2) for step in range(1, 21))


def _write_results(
    run: Run, selection: Selection, work_dir: Path, identity: dict[str, Any], started: float
) -> None:
    """Guards, then every file of the contract; the manifest comes last and marks the run as finished."""
    selection.notes[:0] = [f'{note}.' for note in run.pool.notes]
    before_guards = selection.kept
    missed = apply_class_floor(run, selection)
    before_scenes = selection.kept
    if run.scenes is not None and not selection.update:
        missed = apply_scenes(run, selection, run.scenes, added=before_scenes & ~before_guards)
    elif run.scenes is not None:
        selection.notes.append(
            'group_by and min_gap are left aside: an update does not revise older decisions.'
        )
    if missed:
        selection.notes.append(
            f'The class floor of {listed(missed)} cannot be met: the keep ratio is too small'
            f'{"" if run.scenes is None else ", or the rule for scenes is in its way"}.'
        )
    partner, partner_similarity, xy = _explain(run, selection)
    suspect = np.zeros(len(run.pool), bool)
    if selection.loss is not None:
        suspect = label_suspects(selection.loss, partner)
    _note_bad_images(run, selection)
    unreadable = named_unreadable(run, selection)
    reason = reasons(selection, before_guards, before_scenes, unreadable, run.options)
    if selection.update:
        reason = [old or new for old, new in zip(selection.update.reason, reason, strict=True)]
    write_table(
        work_dir / 'samples.parquet',
        samples_table(run.pool, selection, reason, partner, partner_similarity, suspect, xy),
    )
    write_table(work_dir / 'clusters.parquet', clusters_table(selection))
    write_table(work_dir / 'classes.parquet', classes_table(run.pool, selection.kept))
    files = write_pruned(run.sources, selection.kept, work_dir / 'annotations')
    _note_databases(run, selection, files)
    _write_config(run, work_dir)
    manifest = _manifest(run, selection, identity, files, started)
    if selection.update:
        manifest['update'] = selection.update.facts
    write_json(work_dir / 'manifest.json', manifest)


def _note_databases(run: Run, selection: Selection, files: Sequence[Mapping[str, Any]]) -> None:
    """Ground-truth databases are inputs too, and may have objects of frames that are not in the training set."""
    outside = {file['input']: file['outside'] for file in files if 'outside' in file}
    for path, count in outside.items():
        run.ledger.inputs[path] = sha256_file(path)
        if count:
            selection.notes.append(
                f'{count} objects in {path} are of frames that are not in the training set: they '
                'stay, as in a training on all samples.'
            )


def _write_config(run: Run, work_dir: Path) -> None:
    """The user's config with the pruned files in it, unless the work dir has this text already."""
    write_config(
        pruned_config(run.config, run.sources, work_dir / 'annotations'), work_dir / 'config.py'
    )


def _explain(run: Run, selection: Selection) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Partner and similarity of every pruned sample, and the 2-D map; nothing where no features were needed."""
    if not selection.has_scores:
        n = len(run.pool)
        return np.full(n, -1), np.full(n, np.nan, np.float32), None
    partner, similarity = nearest_kept(
        run.density_stages.compared(selection.layout), selection.assignment, selection.kept
    )
    if run.image_stages.same_features >= NEARLY_ALL:
        selection.notes.append(same_features_note(run.image_stages.same_features))
        print(f'warning: {selection.notes[-1]}')
    else:
        selection.notes.extend(
            _redundancy_notes(
                run.density_stages.likeness(partner), run.image_stages.embedder.near_duplicate
            )
        )
    return partner, similarity, map_2d(run.features)


def _note_bad_images(run: Run, selection: Selection) -> None:
    if run.image_stages.looked_at_images and run.image_stages.bad_images:
        stays = selection.kept[run.unreadable]
        selection.notes.append(
            f'{bad_images_note(run.image_stages.bad_images)} {stays.sum()} of their {len(stays)} samples were '
            'kept.'
        )


def bad_images_note(bad: Sequence[dict[str, Any]]) -> str:
    """A sentence on images that the training cannot read: how many, which, and why."""
    reasons = {entry['path']: entry['reason'] for entry in bad}
    named = [f'{path} ({reason})' for path, reason in reasons.items()]
    return f'{len(reasons)} images cannot be read by the training: {listed(named)}.'


def _redundancy_notes(similarity: np.ndarray, near_duplicate: float) -> list[str]:
    """Says plainly how much of what went was really redundant.

    Args:
        similarity: (pruned,) float32, of each pruned sample to its partner.
        near_duplicate: similarity from which the embedder's near-duplicates begin.
    """
    if not len(similarity):
        return []
    share = float((similarity >= near_duplicate).mean())
    level = f'similarity to a kept sample at least {near_duplicate:g}'
    if share < 0.05:
        return [
            f'No duplicates found: {share:.0%} of the pruned samples are near-duplicates ({level}; '
            'the most '
            f'similar pair has {similarity.max():.3f}). Pruning this dataset removes distinct '
            'content.'
        ]
    return [f'{share:.0%} of the pruned samples are near-duplicates ({level}).']


def _manifest(
    run: Run,
    selection: Selection,
    identity: dict[str, Any],
    files: Sequence[dict[str, Any]],
    started: float,
) -> dict[str, Any]:
    kept, n = int(selection.kept.sum()), len(run.pool)
    finished = time.time()
    curve = (
        threshold_curve(selection.similarity, CURVE_RATIOS) if selection.has_scores else np.empty(0)
    )
    # A resumed run has stages that another process paid for.
    seconds = round(
        max(finished - started, sum(cost['seconds'] for cost in run.ledger.costs().values())), 3
    )
    return dict(
        adadedup_mm=__version__,
        key=sha256_value(identity),
        versions=installed_versions(),
        strategy=run.options.strategy_name,
        keep_ratio=run.options.keep_ratio,
        seed=run.options.seed,
        samples=n,
        kept=kept,
        pruned=n - kept,
        options=identity['options'],
        inputs=[
            dict(path=path, sha256=digest)
            for path, digest in (identity['inputs'] | run.ledger.inputs).items()
        ],
        facts=run.ledger.facts,
        layout=selection.layout,
        files=[dict(file, sha256=sha256_file(file['output'])) for file in files],
        stages=run.ledger.costs(),
        seconds=seconds,
        break_even=break_even(seconds, kept / n),
        notes=selection.notes,
        gap_reliability=selection.reliability,
        reader=dict(
            color_type=run.image_stages.reader.color_type, backend=run.image_stages.reader.backend
        ),
        threshold_curve=[
            dict(keep_ratio=ratio, threshold=float(tau))
            for ratio, tau in zip(CURVE_RATIOS, curve, strict=selection.has_scores)
        ],
        started=_utc(started),
        finished=_utc(finished),
    )


def _utc(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec='seconds')
