"""Who owns a work dir: one run at a time, of one dataset, with one set of options."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..base.errors import UserError
from ..base.files import read_object, sha256_value, write_json
from ..stages import PROCESSES, StageStore

OUTPUTS = (
    'annotations',
    'config.py',
    'samples.parquet',
    'clusters.parquet',
    'classes.parquet',
    'manifest.json',
    'report.html',
    'stages',
)
_LOCK = 'lock'


def usable_path(work_dir: str | Path) -> Path:
    """The absolute path; raises UserError where the system or our files cannot hold such a name."""
    try:
        path = Path(work_dir).absolute()
        str(path).encode()
        with contextlib.suppress(FileNotFoundError):
            path.stat()
    except (OSError, ValueError) as error:
        raise UserError(
            f'work dir {str(work_dir)[:100]!r} is no possible name '
            f'({getattr(error, "strerror", None) or error}): choose another --work-dir'
        ) from error
    return path


def finished_manifest(work_dir: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest of a finished run of this identity, or None."""
    manifest = read_object(work_dir / 'manifest.json')
    complete = all((work_dir / name).exists() for name in OUTPUTS) and _is_whole(manifest)
    # Work dirs of version 0.1 do not name the records.
    older = {name: value for name, value in identity.items() if name != 'records'}
    keys = [sha256_value(identity), sha256_value(older)]
    return manifest if complete and manifest.get('key') in keys else None


def written_files(work_dir: Path) -> list[Path]:
    """The annotation files that a finished run has written; none where there is no such run."""
    manifest = read_object(work_dir / 'manifest.json')
    return [Path(file['output']) for file in manifest['files']] if _is_whole(manifest) else []


def _is_whole(manifest: dict[str, Any]) -> bool:
    """Whether what is told about a finished run is there: a damaged manifest is written anew."""
    files, inputs, update = (
        manifest.get('files'),
        manifest.get('inputs'),
        manifest.get('update', {}),
    )
    return (
        all(type(manifest.get(name)) in (int, float) for name in ('samples', 'kept', 'seconds'))
        and manifest['samples'] > 0
        and isinstance(files, list)
        and all(isinstance(file, dict) and isinstance(file.get('output'), str) for file in files)
        and isinstance(inputs, list)
        and isinstance(manifest.get('facts', {}), dict)
        and all(isinstance(entry, dict) and isinstance(entry.get('path'), str) for entry in inputs)
        and isinstance(update, dict)
        and isinstance(update.get('full_run_due', []), list)
    )


@contextlib.contextmanager
def held(folder: Path, what: str) -> Iterator[None]:
    """Makes a folder and holds it against another process of the same kind, which ``what`` names.

    Raises:
        UserError: the folder cannot be written, or is held.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / _LOCK).open('w', encoding='utf-8')
    except OSError as error:
        raise UserError(
            f'{folder} cannot be written ({error.strerror}): choose another --work-dir'
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f'{folder} is in use by another {what}: wait for it, or choose another --work-dir'
            ) from None
        yield


@contextlib.contextmanager
def failures_told(work_dir: str | Path | None, rank: int, world: int) -> Iterator[None]:
    """Inside, a process prepares for a run; where that fails, the other processes of the run learn of it.

    Args:
        work_dir: of the run; None where it is not known yet, so that nobody can be told.
        rank: index of this process.
        world: number of processes.
    """
    try:
        yield
    except BaseException:
        folder = Path(work_dir or '').absolute()
        with contextlib.suppress(OSError, ValueError):
            if work_dir is not None and may_be_used(folder):
                store = StageStore(folder / 'stages', rank, world)
                with store.together():
                    raise
        raise


@contextlib.contextmanager
def claim(
    work_dir: Path, identity: dict[str, Any], store: StageStore, resume: bool
) -> Iterator[bool]:
    """Holds a work dir for the duration of a run; yields whether the folder is new.

    The first process checks and locks for all of them.

    Raises:
        UserError: the folder belongs to another run, holds an interrupted one and ``resume`` is
            False, is in use by another process, or cannot be written.
    """
    record = work_dir / 'stages' / 'run.json'
    is_new = _holds_nothing(work_dir)
    lock_file = record.parent / _LOCK
    is_apart = store.world > 1 and store.peers is None
    if is_apart or (store.rank == 0 and not lock_file.exists()):
        # Nothing is made in a folder of somebody else.
        _check_owner(work_dir, identity, resume)
    if is_apart:
        raise UserError(f'work dir {work_dir} cannot be written: choose another --work-dir')
    if store.rank > 0:
        yield is_new
        return
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        lock_file.touch()
    except OSError as error:
        raise UserError(
            f'work dir {work_dir} cannot be written ({error.strerror}): choose another --work-dir'
        ) from error
    with lock_file.open('w', encoding='utf-8') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f'work dir {work_dir} is in use by another run: wait for it, or choose another '
                '--work-dir'
            ) from None
        _check_owner(work_dir, identity, resume)
        # Without its manifest, a run that is being redone counts as unfinished wherever it is
        # killed.
        (work_dir / 'manifest.json').unlink(missing_ok=True)
        for leftover in [
            *work_dir.glob('.*.tmp'),
            *(work_dir / 'annotations').rglob('.*.tmp'),
            *record.parent.glob('.*.tmp'),
        ]:
            leftover.unlink()
        write_json(record, identity)
        store.forget_earlier_processes()
        yield is_new


def may_be_used(work_dir: Path) -> bool:
    """Whether a folder holds nothing, or nothing that looks like ours without being of a pruning run."""
    stages = work_dir / 'stages'
    is_ours = (stages / 'run.json').exists() or (stages / _LOCK).exists() or _just_begun(stages)
    return is_ours or not any((work_dir / name).exists() for name in OUTPUTS)


def _holds_nothing(work_dir: Path) -> bool:
    """Whether a folder does not exist, or holds what processes of this run have just made alone."""
    if not work_dir.exists():
        return True
    stages = work_dir / 'stages'
    return [file.name for file in work_dir.iterdir()] == ['stages'] and _just_begun(stages)


def _check_owner(work_dir: Path, identity: dict[str, Any], resume: bool) -> None:
    found = [name for name in OUTPUTS if (work_dir / name).exists()]
    if not found or (found == ['stages'] and _just_begun(work_dir / 'stages')):
        return
    owner = read_object(work_dir / 'stages' / 'run.json')
    if not owner:
        raise UserError(
            f'work dir {work_dir} already holds {found[0]!r}, which is not from a pruning run: '
            'choose '
            'another --work-dir'
        )
    other = _other_dataset(owner, identity)
    if other:
        raise UserError(
            f'work dir {work_dir} belongs to a run on another dataset ({other}): choose another '
            '--work-dir'
        )
    changed = _changed_data(owner, identity)
    if not resume and changed:
        raise UserError(
            f'work dir {work_dir} holds a run, but {changed}: add --resume to compute anew what '
            'depends on '
            'it, or choose another --work-dir'
        )
    if not resume and owner != identity:
        raise UserError(
            f'work dir {work_dir} belongs to another run ({_difference(owner, identity)}): choose '
            'another '
            '--work-dir, or add --resume to take it over'
        )
    if not resume:
        raise UserError(
            f'work dir {work_dir} holds an interrupted run: add --resume to go on with it, or '
            'choose '
            'another --work-dir'
        )


def _other_dataset(owner: dict[str, Any], identity: dict[str, Any]) -> str:
    """An annotation file of the owner, if it shares none with this run; empty if this is the same dataset, changed."""
    before, now = _inputs(owner), identity['inputs']
    if before.keys() & now.keys() or (not before and not now):
        return ''
    return next(iter(before), 'without annotation files')


def _changed_data(owner: dict[str, Any], identity: dict[str, Any]) -> str:
    """What of the dataset is not as the owner found it, in words; empty if all is."""
    before, now = _inputs(owner), identity['inputs']
    for path in [*now, *before]:
        if path not in before:
            return f'{path} was no part of the dataset then'
        if path not in now:
            return f'{path} is no part of the dataset any more'
        if before[path] != now[path]:
            return f'{path} has changed since'
    if any(owner.get(name) != identity[name] for name in ('pool', 'records')):
        return (
            'its samples or labels have changed since, by the settings of the training set in the '
            'config or in '
            'files beside the annotation file'
        )
    return ''


def _inputs(owner: dict[str, Any]) -> dict[str, Any]:
    """The SHA-256 of the annotation files; empty where the record is damaged."""
    inputs = owner.get('inputs')
    return inputs if isinstance(inputs, dict) else {}


def _just_begun(stages: Path) -> bool:
    """Whether a run has not noted yet whose work dir this is, or was killed before."""
    return stages.is_dir() and all(
        file.name in (_LOCK, PROCESSES) or file.match('.run.json.*.tmp')
        for file in stages.iterdir()
    )


def _difference(owner: dict[str, Any], identity: dict[str, Any]) -> str:
    """The first option that differs, in words."""
    old = owner.get('options')
    if isinstance(old, dict):
        for name, value in identity['options'].items():
            if old.get(name) != value:
                return f'its {name} is {old.get(name)!r}, this one has {value!r}'
    return 'its options differ'
