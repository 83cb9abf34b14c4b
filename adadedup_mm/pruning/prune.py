"""A pruning run from the user's config to the files in its work dir: the stages in their order."""

import contextlib
import dataclasses
import functools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from .. import __version__
from ..base.errors import UserError
from ..base.files import sha256_file, sha256_value
from ..base.progress import hidden_progress
from ..datasets import Source, pruned_config, read_pool
from ..datasets.originals import data_folders, untouched
from ..datasets.sources import value_at
from ..pool import Pool, pool_key, print_notes
from ..registry import STRATEGIES, bind
from ..report import build_report
from ..selection import Selection
from ..settings.config_text import check_writable, json_like
from ..settings.options import Options
from ..stages import Patience, StageStore
from ..strategies.run import Run
from ..workdir.claim import claim, may_be_used, usable_path
from ..workdir.finished import finished_manifest, written_files
from ..workdir.manifest import (
    Manifest,
    feedback_words,
    installed_versions,
    known_manifest,
    read_manifest,
)
from ..workdir.tables import SAMPLES
from .estimate import estimate_line
from .results import write_outputs, write_pruned_config
from .update import update


def prune(
    config: Config,
    options: Options,
    work_dir: str | Path,
    rank: int = 0,
    world: int = 1,
    resume: bool = False,
    update_of: Path | None = None,
    patience: Patience | None = None,
) -> Config:
    """Selects the samples worth keeping, and writes the results into ``work_dir``.

    Nothing is done if they are all there: annotation files, config, tables, manifest and report.

    Args:
        config: an mmdet or mmdet3d training config.
        options: its ``adadedup`` dict, resolved.
        work_dir: a folder of this run alone.
        rank: index of this process; the first one writes.
        world: number of processes. All of them call this and must see the same file system.
        resume: whether an interrupted run, or a run with other options, may be taken over.
        update_of: work dir of a finished run whose decisions stay (see ``update``); None decides
            about all samples.
        patience: how long the processes wait for each other.

    Returns:
        The config with the training set replaced by the pruned one, and nothing of ours left in it.

    Raises:
        UserError: the input is wrong; a work dir that did not exist before is removed again, unless
            a stage has computed something, which another run with ``resume`` can use.
        ProcessError: another process has failed, is gone or has not appeared.
    """
    work_dir = usable_path(work_dir)
    store = StageStore(work_dir / 'stages', rank, world, patience=patience)
    with store.together() if may_be_used(work_dir) else contextlib.nullcontext():
        return _prune(config, options, work_dir, store, resume, update_of)


def _prune(
    config: Config,
    options: Options,
    work_dir: Path,
    store: StageStore,
    resume: bool,
    update_of: Path | None,
) -> Config:
    """What ``prune`` does once the processes know of each other."""
    started = time.time()
    is_first = store.rank == 0
    check_writable(config)
    strategy, options = _strategy(options, update_of, work_dir)
    pool, sources = read_pool(config)
    if is_first:
        print_notes(pool)

    identity = _identity(options, pool, sources, update_of)
    if options.shared_stages:
        store.shared = Path(options.shared_stages) / identity['pool'][:16]
    run = Run(config, options, store, pool, sources)
    manifest = finished_manifest(work_dir, identity)
    changed = _changed(run, manifest, work_dir) if manifest else ''
    if changed and not resume:
        raise UserError(
            f'work dir {work_dir} holds a finished run, but {changed}: add --resume to prune anew, '
            'or choose another --work-dir'
        )

    if manifest is None:
        store.is_over = lambda: finished_manifest(work_dir, identity) is not None
    if manifest is None or changed:
        _select(run, strategy, work_dir, identity, resume, started)
    elif is_first:
        # What is not about pruning may have changed.
        write_pruned_config(run, work_dir)

    if is_first:
        _print_outcome(work_dir, anew=manifest is None or bool(changed))
    return pruned_config(config, sources, work_dir / 'annotations')


def _strategy(
    options: Options, update_of: Path | None, work_dir: Path
) -> tuple[Callable[[Run], Selection], Options]:
    """What chooses the samples, and the options under which it does."""
    if update_of is None:
        return bind(STRATEGIES, options.strategy, 'adadedup.strategy'), options
    strategy = functools.partial(update, folder=_old_work_dir(update_of, work_dir))
    name = _old_strategy(update_of) or options.strategy
    return strategy, dataclasses.replace(options, strategy=name)


def _identity(
    options: Options, pool: Pool, sources: Sequence[Source], update_of: Path | None
) -> dict[str, Any]:
    """What decides the result of a run, as JSON has it."""
    ann_files = [source.ann_file for source in sources if source.ann_file]
    identity = dict(
        options=options.identity(),
        pool=pool_key(pool),
        records=[source.records for source in sources],
        inputs={str(path): sha256_file(path) for path in ann_files},
    )
    if update_of is not None:
        identity['update'] = sha256_file(SAMPLES.path(update_of))
    return identity


def _select(
    run: Run,
    strategy: Callable[[Run], Selection],
    work_dir: Path,
    identity: dict[str, Any],
    resume: bool,
    started: float,
) -> None:
    """Lets a strategy choose, and writes the results; all processes return when they are there."""
    store = run.store
    is_first = store.rank == 0
    outputs = written_files(work_dir)
    with claim(work_dir, identity, store, resume) as is_new, hidden_progress(not is_first):
        try:
            selection = _choose(run, strategy, work_dir, identity)
            if is_first:
                write_outputs(run, selection, work_dir, identity, started)
                _remove_others(outputs, work_dir)
        except UserError as error:
            if is_new and is_first:
                _remove_unless_begun(work_dir, store, error)
            raise

        if is_first:
            build_report(work_dir)

    store.wait_for(lambda: finished_manifest(work_dir, identity) is not None)


def _choose(
    run: Run,
    strategy: Callable[[Run], Selection],
    work_dir: Path,
    identity: dict[str, Any],
) -> Selection:
    """What the strategy chooses; the data are write-protected meanwhile."""
    if run.store.world > 1:
        run.store.agree('run', _common(run, identity))
    is_update = 'update' in identity
    with untouched(_originals(run), but=_own_folders(run, work_dir)):
        if run.store.rank == 0 and not is_update:
            print(estimate_line(run))
        selection = strategy(run)
        # All processes read the images for it, the first one alone writes what was found.
        _ = run.conflicts
        return selection


def _originals(run: Run) -> list[Path]:
    """The folders that the training set is read from."""
    folders: list[Path] = []
    for source in run.sources:
        folders += data_folders(value_at(run.config, source.path))
    return [folder for folder in folders if folder.is_dir()]


def _own_folders(run: Run, work_dir: Path) -> list[Path]:
    """Where a run writes, even if that is among the data."""
    folders = [work_dir, Path(tempfile.gettempdir())]
    if run.options.shared_stages:
        folders.append(Path(run.options.shared_stages))
    return folders


def _common(run: Run, identity: dict[str, Any]) -> dict[str, Any]:
    """What all processes of a run must have in common before it begins."""
    dataset = json_like(run.config['train_dataloader'].get('dataset', {}))
    return dict(
        options=identity['options'],
        dataset=dataset,
        files=identity['inputs'],
        update=identity.get('update'),
        samples=identity['pool'],
        records=identity['records'],
        processes=run.store.world,
        version=__version__,
        packages=installed_versions(),
        code=_code_digest(),
    )


def _code_digest() -> str:
    """Hash of this package's source."""
    files = sorted(Path(__file__).parents[1].rglob('*.py'))
    named = [(file.name, sha256_file(file)) for file in files]
    return sha256_value(named)


def _remove_unless_begun(work_dir: Path, store: StageStore, error: UserError) -> None:
    """Removes a new work dir in which nothing was computed, once the others have left it."""

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
        raise UserError(
            f'--update {folder} is the work dir itself: name a new one with --work-dir, the old '
            'selection stays as it is'
        )
    if not SAMPLES.path(folder).is_file():
        raise UserError(
            f'{folder} holds no finished run (samples.parquet): --update needs the work dir of one'
        )

    return folder.absolute()


def _old_strategy(folder: Path) -> str | None:
    """The strategy whose decisions an update goes on with; None where the manifest is damaged."""
    manifest = known_manifest(folder)
    return manifest.strategy if manifest else None


def _remove_others(outputs: list[Path], work_dir: Path) -> None:
    """Removes annotation files of the run that was here before and not of this one."""
    written = written_files(work_dir)
    for file in outputs:
        if file not in written and file.is_relative_to(work_dir / 'annotations'):
            file.unlink(missing_ok=True)


def _changed(run: Run, manifest: Manifest, work_dir: Path) -> str:
    """What a finished run has read or written and is not as it was, in words; '' if all is."""
    for file in manifest.files:
        output = Path(file.output)
        if not output.is_relative_to(work_dir):
            return f'was moved, and names {output}'
        if not os.path.isfile(output) or file.sha256 not in ('', sha256_file(output)):
            return f'{output} is gone or not as it was written'

    for entry in manifest.inputs:
        path = Path(entry.path)
        if not os.path.isfile(path) or sha256_file(path) != entry.sha256:
            return f'{path} has changed since'

    facts = manifest.facts
    if facts.get('images') not in (None, run.image_stages.images_key):
        return 'images have changed since (path, size or modification time)'
    if 'proxy' in facts and facts['proxy'] != run.proxy_stages.config_digest:
        return f"the proxy's config {run.options.proxy.config} has changed since"
    return ''


def _print_outcome(work_dir: Path, anew: bool) -> None:
    """What a run has done, in a line or two.

    Args:
        work_dir: of the finished run.
        anew: whether it has just been done, and was not there already.
    """
    manifest = read_manifest(work_dir)
    headline = _headline(manifest, work_dir)
    if not anew:
        print(f'nothing to do, {work_dir} holds the finished run: it {headline}')
        return
    words = feedback_words(manifest)
    if words:
        print(words)
    print(headline)


def _headline(manifest: Manifest, work_dir: Path) -> str:
    """One line on what a finished run has done."""
    share = manifest.kept / manifest.samples
    outputs = ', '.join(file.output for file in manifest.files)
    line = (
        f'kept {manifest.kept} of {manifest.samples} samples ({share:.1%}) in '
        f'{manifest.seconds:.0f} s: {outputs}; report: {work_dir / "report.html"}'
    )
    if manifest.full_run_due:
        line += f'; a full run is due: {"; ".join(manifest.full_run_due)}'
    return line
