"""What a pruning run leaves in its work dir."""

import datetime
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import UNSET

from .. import __version__
from ..base.files import sha256_file, sha256_value
from ..base.words import listed
from ..datasets import pruned_config, write_pruned
from ..density import nearest_kept
from ..features.alike import NEARLY_ALL, same_features_note
from ..feedback import label_suspects, threshold_curve
from ..selection import Selection
from ..settings.config_text import write_config
from ..strategies.run import Run
from ..vectors.map import map_2d
from ..workdir.conflicts import CONFLICTS, conflict_counts, conflicts_table
from ..workdir.manifest import (
    CurvePoint,
    FeedbackFacts,
    FilePair,
    GapReliability,
    InputFile,
    Manifest,
    NearDuplicates,
    ReaderFacts,
    StageCost,
    UpdateFacts,
    break_even,
    feedback_words,
    installed_versions,
    write_manifest,
)
from ..workdir.tables import (
    CLASSES,
    CLUSTERS,
    SAMPLES,
    classes_table,
    clusters_table,
    samples_table,
)
from .rules import apply_rules, name_unreadable

CURVE_RATIOS = tuple(round(0.05 * step, 2) for step in range(1, 21))
# Stages that are there for the feedback alone.
_FEEDBACK_STAGES = ('probe', 'probe_losses', 'held_out', 'proxy', 'losses')


def write_outputs(
    run: Run, selection: Selection, work_dir: Path, identity: dict[str, Any], started: float
) -> None:
    """Rules, then every file of a finished run; the manifest comes last and marks it as finished.

    Args:
        run: with the stages that the strategy used.
        selection: of the strategy; is changed by the rules and gets its reasons and notes.
        work_dir: where to.
        identity: what decides the result, for the manifest.
        started: when the run began, in seconds since the epoch.

    Raises:
        UserError: an annotation file changed since it was read, or the config cannot be written.
    """
    selection.notes[:0] = [f'{note}.' for note in run.pool.notes]
    feedback = _feedback(run, selection)  # Before the rules, which change decisions too.
    apply_rules(run, selection)
    _note_conflicts(run, selection, work_dir)
    samples = _samples(run, selection)
    near_duplicates = _near_duplicates(run, selection, samples)
    SAMPLES.write(work_dir, samples)
    CLUSTERS.write(work_dir, clusters_table(selection))
    CLASSES.write(work_dir, classes_table(run.pool, selection.kept))
    CONFLICTS.write(work_dir, conflicts_table(run.pool, run.conflicts, selection.kept))
    files = write_pruned(run.sources, selection.kept, work_dir / 'annotations')
    _note_databases(run, selection, files)
    write_pruned_config(run, work_dir)
    manifest = _manifest(run, selection, feedback, identity, files, started)
    manifest.near_duplicates = UNSET if near_duplicates is None else near_duplicates
    write_manifest(work_dir, manifest)


def _samples(run: Run, selection: Selection) -> pa.Table:
    """``samples.parquet``; what is found out about the samples on the way comes into the notes."""
    pool, loss = run.pool, selection.loss
    pairs = _pairs(run, selection)
    partner = pairs[0]
    suspect = np.zeros(len(pool), bool)
    if loss is not None:
        suspect = label_suspects(loss, partner)
    _note_bad_images(run, selection)
    name_unreadable(run, selection)
    selection.explain(run.options.strategy_name)
    xy = map_2d(run.features) if selection.has_scores else None
    return samples_table(pool, selection, *pairs, suspect, xy, run.conflicts.others)


def _note_conflicts(run: Run, selection: Selection, work_dir: Path) -> None:
    """Says where labels contradict each other, in the report and at once."""
    count = len(run.conflicts.pairs)
    if not count:
        return
    pairs = (
        'pair of near-identical images has' if count == 1 else 'pairs of near-identical images have'
    )
    note = f'{count:,} {pairs} labels that contradict each other'
    selection.notes.append(f'{note}: see the section on label conflicts, and conflicts.parquet.')
    print(f'warning: {note}: see report.html and {CONFLICTS.path(work_dir)}')


def _note_databases(run: Run, selection: Selection, files: Sequence[Mapping[str, Any]]) -> None:
    """Ground-truth databases are inputs too, and may have objects of other frames."""
    outside = {file['input']: file['outside'] for file in files if 'outside' in file}
    for path, count in outside.items():
        run.ledger.inputs[path] = sha256_file(path)
        if count:
            selection.notes.append(
                f'{count} objects in {path} are of frames that are not in the training set: '
                'they stay, as in a training on all samples.'
            )


def write_pruned_config(run: Run, work_dir: Path) -> None:
    """Writes the user's config with the pruned files in it, unless this text is there already."""
    annotations = work_dir / 'annotations'
    config = pruned_config(run.config, run.sources, annotations)
    write_config(config, work_dir / 'config.py')


def _pairs(run: Run, selection: Selection) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Partner of every sample, the density score of that pair, and its image similarity, each (N,).

    No partner, -1 and NaN, where the strategy has no density scores.
    """
    partner = np.full(len(run.pool), -1)
    score = np.full(len(run.pool), np.nan, np.float32)
    image_similarity = score.copy()
    if selection.has_scores:
        compared = run.density_stages.compared(selection.layout)
        partner, score = nearest_kept(compared, selection.assignment, selection.kept)
        image_similarity[partner >= 0] = run.density_stages.likeness(partner)
    return partner, score, image_similarity


def _near_duplicates(run: Run, selection: Selection, samples: pa.Table) -> NearDuplicates | None:
    """How much of what went was redundant, and notes on it; None without density scores."""
    if not selection.has_scores:
        return None
    images = run.image_stages
    bound = float(images.embedder.near_duplicate)
    if images.same_features >= NEARLY_ALL:
        note = same_features_note(images.same_features)
        selection.notes.append(note)
        print(f'warning: {note}')
        return NearDuplicates(bound)
    similarity = samples['image_similarity'].drop_null().to_numpy()
    if not len(similarity):
        return NearDuplicates(bound)
    share = float((similarity >= bound).mean())
    found = NearDuplicates(bound, share, float(similarity.max()))
    selection.notes.append(_redundancy_note(found))
    return found


def _note_bad_images(run: Run, selection: Selection) -> None:
    if run.image_stages.looked_at_images and run.image_stages.bad_images:
        stays = selection.kept[run.unreadable]
        note = bad_images_note(run.image_stages.bad_images)
        kept = f'{stays.sum()} of their {len(stays)} samples were kept.'
        selection.notes.append(f'{note} {kept}')


def bad_images_note(bad: Sequence[dict[str, Any]]) -> str:
    """A sentence on images that the training cannot read: how many, which, and why."""
    reasons = {entry['path']: entry['reason'] for entry in bad}
    named = [f'{path} ({reason})' for path, reason in reasons.items()]
    first_ones = listed(named)
    return f'{len(reasons)} images cannot be read by the training: {first_ones}.'


def _redundancy_note(found: NearDuplicates) -> str:
    """Says plainly how much of what went was really redundant."""
    level = f'image similarity to a kept sample at least {found.bound:g}'
    if found.are_few:
        return (
            f'No duplicates found: {found.share:.0%} of the pruned samples are near-duplicates '
            f'({level}; the most similar pair has {found.highest:.3f}). '
            'Pruning this dataset removes distinct content.'
        )
    return f'{found.share:.0%} of the pruned samples are near-duplicates ({level}).'


def _feedback(run: Run, selection: Selection) -> FeedbackFacts | None:
    """What the feedback changed, and what it cost; None where none was asked for."""
    if selection.without_feedback is None:
        return None
    costs = run.ledger.costs()
    spent = [costs[name]['seconds'] for name in _FEEDBACK_STAGES if name in costs]
    reliability = selection.reliability or {}
    return FeedbackFacts(
        decisions_changed=selection.decisions_changed,
        seconds=round(sum(spent, 0.0), 3),
        signal_share=reliability.get('signal_share'),
        signal=selection.signal,
    )


def _manifest(
    run: Run,
    selection: Selection,
    feedback: FeedbackFacts | None,
    identity: dict[str, Any],
    files: Sequence[dict[str, Any]],
    started: float,
) -> Manifest:
    n, kept = len(run.pool), int(selection.kept.sum())
    finished = time.time()
    spent: dict[str, dict[str, Any]] = run.ledger.costs()
    costs = {name: StageCost(**cost) for name, cost in spent.items()}
    # A resumed run has stages that another process paid for.
    seconds = max(finished - started, sum(cost.seconds for cost in costs.values()))
    seconds = round(seconds, 3)
    inputs = identity['inputs'] | run.ledger.inputs

    manifest = Manifest(
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
        inputs=[InputFile(path, digest) for path, digest in inputs.items()],
        facts=run.ledger.facts,
        layout=selection.layout,
        files=[FilePair(**file, sha256=sha256_file(file['output'])) for file in files],
        stages=costs,
        seconds=seconds,
        break_even=None,
        notes=selection.notes,
        gap_reliability=msgspec.convert(selection.reliability, GapReliability | None),
        feedback=UNSET if feedback is None else feedback,
        reader=ReaderFacts(run.image_stages.reader.color_type, run.image_stages.reader.backend),
        threshold_curve=_threshold_curve(selection),
        started=_utc(started),
        finished=_utc(finished),
        update=UNSET if selection.update is None else UpdateFacts(**selection.update),
        conflicts=conflict_counts(run.conflicts),
    )
    manifest.break_even = break_even(seconds, kept / n, idle_seconds=manifest.idle_seconds)
    words = feedback_words(manifest)
    if words:
        manifest.notes.append(f'{words[0].upper()}{words[1:]}.')

    return manifest


def _threshold_curve(selection: Selection) -> list[CurvePoint]:
    """The threshold of each of ``CURVE_RATIOS``; none without density scores."""
    if not selection.has_scores:
        return []
    thresholds = threshold_curve(selection.similarity, CURVE_RATIOS)
    return [
        CurvePoint(ratio, float(threshold))
        for ratio, threshold in zip(CURVE_RATIOS, thresholds, strict=True)
    ]


def _utc(seconds: float) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec='seconds')
