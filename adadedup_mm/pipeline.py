"""A pruning run from the user's config to the files in its work dir: the stages in their order."""

import contextlib
import dataclasses
import datetime
import functools
import importlib.metadata
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from . import __version__
from .config_text import check_writable, json_like, write_config
from .datasets import pruned_config, read_pool, write_pruned
from .datasets.originals import data_folders, untouched
from .datasets.sources import value_at
from .density import nearest_kept
from .errors import UserError
from .estimate import estimate_line
from .features.alike import NEARLY_ALL, same_features_note
from .feedback import label_suspects, threshold_curve
from .files import read_object, sha256_file, sha256_value, write_json, write_table
from .guards import classes_below, keep_class_floor
from .options import Options
from .pool import pool_key, print_notes
from .progress import hidden_progress
from .registry import STRATEGIES, bind
from .report import build_report
from .run import Run
from .scenes import keep_groups, preference, spread_frames
from .selection import Selection
from .stages import Patience, StageStore
from .tables import classes_table, clusters_table, map_2d, reasons, samples_table
from .update import update
from .workdir import claim, finished_manifest, may_be_used, usable_path, written_files

CURVE_RATIOS = tuple(round(.05 * step, 2) for step in range(1, 21))
VERSIONS = ('torch', 'numpy', 'mmengine', 'mmcv', 'mmdet', 'mmdet3d', 'faiss-cpu', 'timm', 'open_clip_torch')


def prune(config: Config, options: Options, work_dir: str | Path, rank: int = 0, world: int = 1,
          resume: bool = False, update_of: Path | None = None, patience: Patience | None = None) -> Config:
    """Selects the samples worth keeping and writes DESIGN's files into ``work_dir``; does nothing if it is all there.

    Args:
        config: an mmdet or mmdet3d training config.
        options: its ``adadedup`` dict, resolved.
        work_dir: a folder of this run alone.
        rank: index of this process; the first one writes.
        world: number of processes. All of them call this and must see the same file system.
        resume: whether an interrupted run, or a run with other options, may be taken over.
        update_of: work dir of a finished run whose decisions stay (see ``update``); None decides about all samples.
        patience: how long the processes wait for each other.

    Returns:
        The config with the training set replaced by the pruned one, and nothing of ours left in it.

    Raises:
        UserError: the input is wrong; a work dir that did not exist before is removed again, unless a stage has
            computed something, which another run with ``resume`` can use.
        ProcessError: another process has failed, is gone or has not appeared.
    """
    work_dir = usable_path(work_dir)
    store = StageStore(work_dir / 'stages', rank, world, patience=patience)
    with store.together() if may_be_used(work_dir) else contextlib.nullcontext():
        return _prune(config, options, work_dir, store, resume, update_of)


def _prune(config: Config, options: Options, work_dir: Path, store: StageStore, resume: bool,
           update_of: Path | None) -> Config:
    """What ``prune`` does once the processes know of each other."""
    started, rank = time.time(), store.rank
    check_writable(config)
    if update_of is None:
        strategy = bind(STRATEGIES, options.strategy, 'adadedup.strategy')
    else:
        strategy = functools.partial(update, folder=_old_work_dir(update_of, work_dir))
        options = dataclasses.replace(options, strategy=_old_strategy(update_of) or options.strategy)
    pool, sources = read_pool(config)
    if rank == 0:
        print_notes(pool)
    ann_files = [source.ann_file for source in sources if source.ann_file]
    pool_hash = pool_key(pool)
    identity = dict(options=options.identity(), pool=pool_hash, records=[source.records for source in sources],
                    inputs={str(path): sha256_file(path) for path in ann_files})
    if update_of is not None:
        identity['update'] = sha256_file(update_of / 'samples.parquet')
    store.shared = Path(options.shared_stages) / pool_hash[:16] if options.shared_stages else None
    run = Run(config, options, store, pool, sources)
    outputs = written_files(work_dir)
    manifest = finished_manifest(work_dir, identity)
    changed = manifest and _changed(run, manifest, work_dir)
    if changed and not resume:
        raise UserError(f'work dir {work_dir} holds a finished run, but {changed}: add --resume to prune anew, or '
                        'choose another --work-dir')
    if manifest is None:
        store.is_over = lambda: finished_manifest(work_dir, identity) is not None
    if manifest is None or changed:
        with claim(work_dir, identity, run.store, resume) as is_new, hidden_progress(rank > 0):
            try:
                if store.world > 1:
                    store.agree('run', _common(run, identity))
                with untouched(_originals(run), but=_own_folders(run, work_dir)):
                    if rank == 0 and update_of is None:
                        print(estimate_line(run))
                    selection = strategy(run)
                if rank == 0:
                    _write_results(run, selection, work_dir, identity, started)
                    _remove_others(outputs, work_dir)
            except UserError as error:
                if is_new and rank == 0:
                    _remove_unless_begun(work_dir, store, error)
                raise
            if rank == 0:
                build_report(work_dir)
        store.wait_for(lambda: finished_manifest(work_dir, identity) is not None)
    elif rank == 0:
        # What is not about pruning may have changed.
        _write_config(run, work_dir)
    if rank == 0:
        print(_headline(work_dir))
    return pruned_config(config, sources, work_dir / 'annotations')


def _originals(run: Run) -> list[Path]:
    """The folders that the training set is read from."""
    folders = [folder for source in run.sources for folder in data_folders(value_at(run.config, source.path))]
    return [folder for folder in folders if folder.is_dir()]


def _own_folders(run: Run, work_dir: Path) -> list[Path]:
    """Where a run writes, even if that is among the data."""
    shared = run.options.shared_stages
    return [work_dir, Path(tempfile.gettempdir()), *([Path(shared)] if shared else [])]


def _common(run: Run, identity: dict[str, Any]) -> dict[str, Any]:
    """What all processes of a run must have in common before it begins."""
    dataset = json_like(run.config['train_dataloader'].get('dataset', {}))
    return dict(options=identity['options'], dataset=dataset, files=identity['inputs'],
                update=identity.get('update'), samples=identity['pool'],
                records=identity['records'], processes=run.store.world,
                version=__version__, packages=installed_versions(), code=_code_digest())


def _code_digest() -> str:
    """Hash of this package's source."""
    files = sorted(Path(__file__).parent.rglob('*.py'))
    return sha256_value([(file.name, sha256_file(file)) for file in files])


def _remove_unless_begun(work_dir: Path, store: StageStore, error: UserError) -> None:
    """Removes a new work dir in which nothing was computed, once the other processes have left it."""
    def has_begun() -> bool:
        finished = [file.parent.name for file in store.root.glob('*/done.json')]
        # Which images can be read is soon found out again.
        is_worth_keeping = any(name not in ('images', 'all_images') for name in finished)
        return is_worth_keeping or any(store.root.glob('features/shard_*'))

    if not has_begun() and store.give_up(error) and not has_begun():
        shutil.rmtree(work_dir, ignore_errors=True)


def _old_work_dir(folder: Path, work_dir: Path) -> Path:
    """The checked work dir of an older run; absolute."""
    if folder.resolve() == work_dir.resolve():
        raise UserError(f'--update {folder} is the work dir itself: name a new one with --work-dir, the old selection '
                        'stays as it is')
    if not (folder / 'samples.parquet').is_file():
        raise UserError(f'{folder} holds no finished run (samples.parquet): --update needs the work dir of one')
    return folder.absolute()


def _old_strategy(folder: Path) -> str | None:
    """The strategy whose decisions an update goes on with; None where the manifest is damaged."""
    name = read_object(folder / 'manifest.json').get('strategy')
    return name if isinstance(name, str) else None


def record_training(work_dir: Path, seconds: float) -> None:
    """Writes the measured seconds of a training on the pruned set into the manifest."""
    manifest = json.loads((work_dir / 'manifest.json').read_text(encoding='utf-8'))
    share = manifest['kept'] / manifest['samples']
    manifest['break_even'] = break_even(manifest['seconds'], share, seconds / share, 'measured on the pruned set')
    write_json(work_dir / 'manifest.json', manifest)


def break_even(pruning_seconds: float, kept_share: float, training_seconds: float | None = None,
               source: str | None = None) -> dict[str, Any]:
    """After how many trainings the pruning pays back.

    Args:
        pruning_seconds: what the selection took.
        kept_share: kept / all; training time is taken to be proportional to it.
        training_seconds: one training on all samples; None where unknown.
        source: where that number comes from.
    """
    saved = None if training_seconds is None else training_seconds * (1 - kept_share)
    trainings = None if not saved else round(pruning_seconds / saved, 3)
    if kept_share == 1:
        text = 'Nothing was pruned, so nothing is saved.'
    elif trainings is None:
        text = (f'Pays back in the first training if that takes longer than '
                f'{pruning_seconds / (1 - kept_share) / 60:.1f} minutes on all samples.')
    else:
        text = (f'Pays back after {trainings:.2f} trainings: each one saves {saved:.0f} of {training_seconds:.0f} '
                'seconds.')
    return dict(pruning_seconds=round(pruning_seconds, 3), training_seconds=training_seconds,
                training_seconds_source=source, saved_seconds_per_training=saved, trainings=trainings, text=text)


def _write_results(run: Run, selection: Selection, work_dir: Path, identity: dict[str, Any], started: float) -> None:
    """Guards, then every file of the contract; the manifest comes last and marks the run as finished."""
    selection.notes[:0] = [f'{note}.' for note in run.pool.notes]
    before_guards = selection.kept
    missed = _apply_class_floor(run, selection)
    before_scenes = selection.kept
    if run.scenes is not None and not selection.update:
        missed = _apply_scenes(run, selection, run.scenes, added=before_scenes & ~before_guards)
    elif run.scenes is not None:
        selection.notes.append('group_by and min_gap are left aside: an update does not revise older decisions.')
    if missed:
        selection.notes.append(f'The class floor of {_listed(missed)} cannot be met: the keep ratio is too small'
                               f'{"" if run.scenes is None else ", or the rule for scenes is in its way"}.')
    partner, partner_similarity, xy = _explain(run, selection)
    suspect = np.zeros(len(run.pool), bool)
    if selection.loss is not None:
        suspect = label_suspects(selection.loss, selection.assignment, partner)
    _note_bad_images(run, selection)
    unreadable = _named_unreadable(run, selection)
    reason = reasons(selection, before_guards, before_scenes, unreadable, run.options)
    if selection.update:
        reason = [old or new for old, new in zip(selection.update.reason, reason, strict=True)]
    write_table(work_dir / 'samples.parquet', samples_table(run.pool, selection, reason, partner, partner_similarity,
                                                            suspect, xy))
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
        run.inputs[path] = sha256_file(path)
        if count:
            selection.notes.append(f'{count} objects in {path} are of frames that are not in the training set: they '
                                   'stay, as in a training on all samples.')


def _write_config(run: Run, work_dir: Path) -> None:
    """The user's config with the pruned files in it, unless the work dir has this text already."""
    write_config(pruned_config(run.config, run.sources, work_dir / 'annotations'), work_dir / 'config.py')


def _remove_others(outputs: list[Path], work_dir: Path) -> None:
    """Removes annotation files that the run which was here before has written, and this one has not."""
    written = written_files(work_dir)
    for file in outputs:
        if file not in written and file.is_relative_to(work_dir / 'annotations'):
            file.unlink(missing_ok=True)


def _changed(run: Run, manifest: dict[str, Any], work_dir: Path) -> str:
    """What a finished run has read or written and is not as it was then, in words; empty if all is."""
    for file in manifest['files']:
        output = Path(file['output'])
        if not output.is_relative_to(work_dir):
            return f'was moved, and names {output}'
        if not os.path.isfile(output) or file.get('sha256', '') not in ('', sha256_file(output)):
            return f'{output} is gone or not as it was written'
    for entry in manifest.get('inputs', []):
        path = Path(entry['path'])
        if not os.path.isfile(path) or sha256_file(path) != entry.get('sha256'):
            return f'{path} has changed since'
    facts = manifest.get('facts', {})
    if facts.get('images') not in (None, run.images_key):
        return 'images have changed since (path, size or modification time)'
    if 'proxy' in facts and facts['proxy'] != run.proxy_digest:
        return f"the proxy's config {run.options.proxy.config} has changed since"
    return ''


def _apply_class_floor(run: Run, selection: Selection) -> list[str]:
    """For strategies that know how redundant a sample is; returns the classes whose floor cannot be met."""
    ratio = run.options.guards.min_class_ratio * run.options.keep_ratio
    if not selection.has_scores or not ratio or selection.update:
        return []
    locked = run.unreadable | ~run.pool.labelled
    selection.kept, missed = keep_class_floor(run.pool, selection.kept, selection.margin, ratio, locked)
    return missed


def _apply_scenes(run: Run, selection: Selection, scenes: np.ndarray, added: np.ndarray) -> list[str]:
    """``group_by`` or ``min_gap``; ``added`` came in for the class floor. Returns the classes below their floor."""
    options, n, budget = run.options, len(run.pool), int(selection.kept.sum())
    usable = ~run.dropped
    first = added | (_named_unreadable(run, selection) & usable)
    redundancy = np.zeros(n) if selection.score is None else -selection.score
    places = preference(selection.kept, selection.margin if selection.has_scores else redundancy,
                        run.generator('scenes'), first)
    if options.group_by:
        selection.kept = keep_groups(scenes, selection.kept, places, usable)
        count = len(np.unique(scenes[selection.kept]))
        selection.notes.append(f"group_by='scene': {count} of {scenes.max() + 1} scenes stay, with "
                               f'{selection.kept.sum()} samples for a budget of {budget}.')
    else:
        spread = spread_frames(scenes, selection.kept, places, usable, options.min_gap)
        selection.kept = spread.kept
        met = f'kept frames of a scene have at least {spread.gap} others between them'
        selection.notes.append(f'min_gap={options.min_gap}: {met}.' if spread.room >= budget else (
            f'min_gap={options.min_gap} cannot be met, which has room for {spread.room} samples while {budget} are '
            f'kept: {met}.'))
    floor_ratio = options.guards.min_class_ratio * options.keep_ratio
    return classes_below(run.pool, selection.kept, floor_ratio) if selection.has_scores else []


def _explain(run: Run, selection: Selection) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Partner and similarity of every pruned sample, and the 2-D map; nothing where no features were needed."""
    if not selection.has_scores:
        n = len(run.pool)
        return np.full(n, -1), np.full(n, np.nan, np.float32), None
    partner, similarity = nearest_kept(run.compared(selection.layout), selection.assignment, selection.kept)
    if run.same_features >= NEARLY_ALL:
        selection.notes.append(same_features_note(run.same_features))
        print(f'warning: {selection.notes[-1]}')
    else:
        selection.notes.extend(_redundancy_notes(run.likeness(partner), run.embedder.near_duplicate))
    return partner, similarity, map_2d(run.features)


def _named_unreadable(run: Run, selection: Selection) -> np.ndarray:
    """(N,) bool, the samples about which their image alone decided: nothing else is known of it."""
    if not run.looked_at_images:
        return np.zeros(len(run.pool), bool)
    is_ranked = selection.has_scores or selection.score is not None
    return run.unreadable if is_ranked else run.dropped


def _note_bad_images(run: Run, selection: Selection) -> None:
    if run.looked_at_images and run.bad_images:
        stays = selection.kept[run.unreadable]
        selection.notes.append(f'{bad_images_note(run.bad_images)} {stays.sum()} of their {len(stays)} samples were '
                               'kept.')


def bad_images_note(bad: Sequence[dict[str, Any]]) -> str:
    """A sentence on images that the training cannot read: how many, which, and why."""
    reasons = {entry['path']: entry['reason'] for entry in bad}
    named = [f'{path} ({reason})' for path, reason in reasons.items()]
    return f'{len(reasons)} images cannot be read by the training: {_listed(named)}.'


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
    if share < .05:
        return [f'No duplicates found: {share:.0%} of the pruned samples are near-duplicates ({level}; the most '
                f'similar pair has {similarity.max():.3f}). Pruning this dataset removes distinct content.']
    return [f'{share:.0%} of the pruned samples are near-duplicates ({level}).']


def _manifest(run: Run, selection: Selection, identity: dict[str, Any], files: Sequence[dict[str, Any]],
              started: float) -> dict[str, Any]:
    kept, n = int(selection.kept.sum()), len(run.pool)
    finished = time.time()
    curve = threshold_curve(selection.similarity, CURVE_RATIOS) if selection.has_scores else np.empty(0)
    # A resumed run has stages that another process paid for.
    seconds = round(max(finished - started, sum(cost['seconds'] for cost in run.costs().values())), 3)
    return dict(
        adadedup_mm=__version__, key=sha256_value(identity), versions=installed_versions(),
        strategy=run.options.strategy_name, keep_ratio=run.options.keep_ratio, seed=run.options.seed,
        samples=n, kept=kept, pruned=n - kept, options=identity['options'],
        inputs=[dict(path=path, sha256=digest) for path, digest in (identity['inputs'] | run.inputs).items()],
        facts=run.facts, layout=selection.layout,
        files=[dict(file, sha256=sha256_file(file['output'])) for file in files], stages=run.costs(),
        seconds=seconds, break_even=break_even(seconds, kept / n),
        notes=selection.notes, gap_reliability=selection.reliability,
        reader=dict(color_type=run.reader.color_type, backend=run.reader.backend),
        threshold_curve=[dict(keep_ratio=ratio, threshold=float(tau))
                         for ratio, tau in zip(CURVE_RATIOS, curve, strict=selection.has_scores)],
        started=_utc(started), finished=_utc(finished))


def installed_versions() -> dict[str, str]:
    """Versions of the packages that results may depend on."""
    installed = {}
    for name in VERSIONS:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def _utc(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec='seconds')


def _listed(names: Sequence[str]) -> str:
    return ', '.join(names[:5]) + (f' and {len(names) - 5} more' if len(names) > 5 else '')


def _headline(work_dir: Path) -> str:
    manifest = read_object(work_dir / 'manifest.json')
    outputs = ', '.join(file['output'] for file in manifest['files'])
    due = '; '.join(map(str, manifest.get('update', {}).get('full_run_due', ())))
    return (f"kept {manifest['kept']} of {manifest['samples']} samples ({manifest['kept'] / manifest['samples']:.1%}) "
            f"in {manifest['seconds']:.0f} s: {outputs}; report: {work_dir / 'report.html'}"
            + (f'; a full run is due: {due}' if due else ''))
