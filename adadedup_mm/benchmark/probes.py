"""The jobs of a model of type ``'probe'``: selections, all of the same data measured together."""

import dataclasses
import shutil
import time
from collections.abc import Sequence

import numpy as np

from ..base.errors import UserError
from ..base.files import sha256_value
from ..base.progress import progress
from ..base.words import error_words
from ..datasets import Source, read_pool
from ..pool import Pool, pool_key
from ..probe.precision import Precision
from ..pruning.measure import kept_by, precisions_of, target_of
from ..settings.options import plain, resolve_options
from ..stages import StageStore
from ..strategies.run import Run
from .jobs import Job
from .results import Outcome


@dataclasses.dataclass(frozen=True)
class _Choice:
    """What one job keeps, (N,) bool, and the seconds of the stages that this took."""

    kept: np.ndarray
    stages: dict[str, float]


def measured_together(jobs: Sequence[Job]) -> list[list[Job]]:
    """Groups jobs of the probe whose selections are measured in one pass: those of equal data."""
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        loaders = [job.config.get(key) for key in ('train_dataloader', 'val_dataloader')]
        group = sha256_value([job.model, plain(loaders)])
        groups.setdefault(group, []).append(job)
    return list(groups.values())


def measure_jobs(jobs: Sequence[Job]) -> list[Outcome]:
    """Chooses samples as each job says, then measures all selections in one pass.

    Stages are shared as those of trainings are. A strategy that fails is an outcome with an error.

    Args:
        jobs: a group of ``measured_together``.

    Raises:
        UserError: the data cannot be read, or have no boxes to learn from.
    """
    first = jobs[0]
    assert first.judge is not None
    pool, sources = read_pool(first.config)
    folder = first.work_dir / 'probe' / first.folder.name
    shared = first.work_dir / 'stages' / pool_key(pool)[:16]
    sharing = StageStore(folder, shared=shared)
    choices = _choose_all(jobs, sharing, pool, sources)
    # The cells that the heads learn from are kept for later calls, detections are not.
    _ = Run(first.config, first.judge, sharing, pool, sources).probe_stages.cells
    measuring = Run(first.config, first.judge, StageStore(folder), pool, sources)
    outcomes = _measure_all(choices, measuring)
    shutil.rmtree(folder)
    return outcomes


def _choose_all(
    jobs: Sequence[Job], store: StageStore, pool: Pool, sources: list[Source]
) -> list[_Choice | str]:
    """What each job keeps, or why that is unknown."""
    choices: list[_Choice | str] = []
    with progress(len(jobs), 'selections', 'selection') as bar:
        for job in jobs:
            try:
                choices.append(_choose(job, store, pool, sources))
            except UserError as error:
                choices.append(f'error: {error}')
            except Exception as error:  # of a strategy, which may be anybody's
                choices.append(error_words(error))
            bar.update()
    return choices


def _choose(job: Job, store: StageStore, pool: Pool, sources: list[Source]) -> _Choice:
    if 'adadedup' not in job.config:
        return _Choice(np.ones(len(pool), bool), {})
    run = Run(job.config, resolve_options(job.config), store, pool, sources)
    kept = kept_by(run)
    stages = {name: cost['seconds'] for name, cost in run.ledger.costs().items()}
    return _Choice(kept, stages)


def _measure_all(choices: Sequence[_Choice | str], run: Run) -> list[Outcome]:
    """The outcome of each choice; equal selections are measured once."""
    started = time.perf_counter()
    row_of: dict[bytes, int] = {}
    distinct: list[np.ndarray] = []
    for choice in choices:
        if isinstance(choice, _Choice) and choice.kept.tobytes() not in row_of:
            row_of[choice.kept.tobytes()] = len(distinct)
            distinct.append(choice.kept)

    precisions: list[Precision] = []
    if distinct:
        target = dataclasses.replace(target_of(run), blocks=[])
        precisions = precisions_of(run, target, np.array(distinct))
    seconds = (time.perf_counter() - started) / len(choices)
    outcomes = []
    for choice in choices:
        if isinstance(choice, str):
            outcomes.append(Outcome(error=choice))
        else:
            precision = precisions[row_of[choice.kept.tobytes()]]
            outcomes.append(_outcome(choice, precision, seconds))
    return outcomes


def _outcome(choice: _Choice, precision: Precision, seconds: float) -> Outcome:
    metrics = {'coco/bbox_mAP': precision.ap, 'coco/bbox_mAP_50': precision.ap50}
    return Outcome(
        metrics=metrics,
        samples=int(choice.kept.sum()),
        share=float(choice.kept.mean()),
        stages=choice.stages,
        seconds=seconds,
    )
