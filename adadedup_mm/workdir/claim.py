"""Who owns a work dir: one run at a time, of one dataset, with one set of options."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ..base.errors import UserError
from ..base.files import read_object, write_json
from ..stages import PROCESSES, StageStore
from .finished import OUTPUTS
from .manifest import manifest_path

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


@contextlib.contextmanager
def held(folder: Path, what: str) -> Iterator[None]:
    """Makes a folder and holds it against another process of the same kind, which ``what`` names.

    Raises:
        UserError: the folder cannot be written, or is held.
    """
    with _opened(folder / _LOCK, str(folder)) as lock:
        _take(
            lock, f'{folder} is in use by another {what}: wait for it, or choose another --work-dir'
        )
        yield


def _opened(lock_file: Path, name: str) -> IO[str]:
    """Makes a lock file and its folder; ``name`` is what an error calls the folder."""
    try:
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        return lock_file.open('w', encoding='utf-8')
    except OSError as error:
        raise UserError(
            f'{name} cannot be written ({error.strerror}): choose another --work-dir'
        ) from error


def _take(lock: IO[str], refusal: str) -> None:
    """Locks until the file is closed; raises UserError with this text where that is taken."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise UserError(refusal) from None


@contextlib.contextmanager
def failures_told(work_dir: str | Path | None, rank: int, world: int) -> Iterator[None]:
    """Inside, a process prepares for a run; where it fails, the run's other processes learn of it.

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
    is_new = _holds_nothing(work_dir)
    lock_file = work_dir / 'stages' / _LOCK
    is_apart = store.world > 1 and store.peers is None
    if is_apart or (store.rank == 0 and not lock_file.exists()):
        # Nothing is made in a folder of somebody else.
        _check_owner(work_dir, identity, resume)

    if is_apart:
        raise UserError(f'work dir {work_dir} cannot be written: choose another --work-dir')
    if store.rank > 0:
        yield is_new
        return

    with _opened(lock_file, f'work dir {work_dir}') as lock:
        _take(
            lock,
            f'work dir {work_dir} is in use by another run: wait for it, or choose another '
            '--work-dir',
        )
        _check_owner(work_dir, identity, resume)
        # Without its manifest, a run that is being redone counts as unfinished wherever it is
        # killed.
        manifest_path(work_dir).unlink(missing_ok=True)
        _remove_leftovers(work_dir)
        write_json(_record_path(work_dir), identity)
        store.forget_earlier_processes()
        yield is_new


def _record_path(work_dir: Path) -> Path:
    """Where the identity of the run is noted that a work dir belongs to."""
    return work_dir / 'stages' / 'run.json'


def _remove_leftovers(work_dir: Path) -> None:
    """Removes what killed processes had begun to write."""
    pattern = '.*.tmp'
    leftovers = list(work_dir.glob(pattern))
    leftovers += (work_dir / 'annotations').rglob(pattern)
    leftovers += (work_dir / 'stages').glob(pattern)
    for leftover in leftovers:
        leftover.unlink()


def may_be_used(work_dir: Path) -> bool:
    """Whether a folder holds nothing like our files, or they are of a pruning run."""
    stages = work_dir / 'stages'
    if _record_path(work_dir).exists() or (stages / _LOCK).exists():
        return True
    return _just_begun(stages) or not _found_outputs(work_dir)


def _holds_nothing(work_dir: Path) -> bool:
    """Whether a folder does not exist, or holds what processes of this run have just made alone."""
    if not work_dir.exists():
        return True
    content = [file.name for file in work_dir.iterdir()]
    return content == ['stages'] and _just_begun(work_dir / 'stages')


def _found_outputs(work_dir: Path) -> list[str]:
    return [name for name in OUTPUTS if (work_dir / name).exists()]


def _check_owner(work_dir: Path, identity: dict[str, Any], resume: bool) -> None:
    """Raises UserError where a work dir is not for this run, with ``resume`` or without."""
    found = _found_outputs(work_dir)
    if not found or (found == ['stages'] and _just_begun(work_dir / 'stages')):
        return
    owner = read_object(_record_path(work_dir))
    if not owner:
        raise UserError(
            f'work dir {work_dir} already holds {found[0]!r}, which is not from a pruning run: '
            'choose another --work-dir'
        )

    other = _other_dataset(owner, identity)
    if other:
        raise UserError(
            f'work dir {work_dir} belongs to a run on another dataset ({other}): '
            'choose another --work-dir'
        )
    if not resume:
        raise UserError(f'work dir {work_dir} {_why_resume(owner, identity)}')


def _why_resume(owner: dict[str, Any], identity: dict[str, Any]) -> str:
    """What a work dir of the same dataset holds, and what --resume would do."""
    changed = _changed_data(owner, identity)
    if changed:
        return (
            f'holds a run, but {changed}: add --resume to compute anew what depends on it, '
            'or choose another --work-dir'
        )
    if owner != identity:
        return (
            f'belongs to another run ({_difference(owner, identity)}): '
            'choose another --work-dir, or add --resume to take it over'
        )

    return 'holds an interrupted run: add --resume to go on with it, or choose another --work-dir'


def _other_dataset(owner: dict[str, Any], identity: dict[str, Any]) -> str:
    """An annotation file of the owner, if it shares none with this run.

    Empty if this is the same dataset, maybe changed.
    """
    before = _inputs(owner)
    now = identity['inputs']
    is_shared = before.keys() & now.keys()
    if is_shared or not (before or now):
        return ''
    return next(iter(before), 'without annotation files')


def _changed_data(owner: dict[str, Any], identity: dict[str, Any]) -> str:
    """What of the dataset is not as the owner found it, in words; empty if all is."""
    before = _inputs(owner)
    now = identity['inputs']
    for path in [*now, *before]:
        if path not in before:
            return f'{path} was no part of the dataset then'
        if path not in now:
            return f'{path} is no part of the dataset any more'
        if before[path] != now[path]:
            return f'{path} has changed since'

    if any(owner.get(name) != identity[name] for name in ('pool', 'records')):
        return (
            'its samples or labels have changed since, by the settings of the training set '
            'in the config or in files beside the annotation file'
        )

    return ''


def _inputs(owner: dict[str, Any]) -> dict[str, Any]:
    """The SHA-256 of the annotation files; empty where the record is damaged."""
    inputs = owner.get('inputs')
    return inputs if isinstance(inputs, dict) else {}


def _just_begun(stages: Path) -> bool:
    """Whether a run has not noted yet whose work dir this is, or was killed before."""
    if not stages.is_dir():
        return False
    for file in stages.iterdir():
        is_a_record = file.match('.run.json.*.tmp')
        if file.name not in (_LOCK, PROCESSES) and not is_a_record:
            return False
    return True


def _difference(owner: dict[str, Any], identity: dict[str, Any]) -> str:
    """The first option that differs, in words."""
    options = owner.get('options')
    if not isinstance(options, dict):
        return 'its options differ'
    for name, value in identity['options'].items():
        old = options.get(name)
        if old != value:
            return f'its {name} is {old!r}, this one has {value!r}'
    return 'its options differ'
