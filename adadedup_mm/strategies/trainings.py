"""The stages of a run that lead from short trainings on all samples to their scores."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from mmengine.config import Config

from ..base.errors import UserError
from ..base.files import read_array, write_array
from ..detectors.config import is_classifier
from ..proxy import proxy_config, train_proxy
from ..scores.measure import measure_shards, merge_rows, part_paths, try_measure
from ..scores.numerics import forgetting_counts, sum_per_sample
from ..scores.observe import Measure

if TYPE_CHECKING:
    from .run import Run


def training_scores(
    run: 'Run', measure: Measure, runs: int, epochs: int, every_epoch: bool = False
) -> np.ndarray:
    """Trains the proxy several times for a short while on all samples, and scores them.

    Neither stage depends on the keep ratio. The trainings differ in their seeds alone; each process
    takes some. With ``proxy.checkpoint`` nothing is trained, and these weights are the only run.

    Args:
        run: the pruning run.
        measure: what is asked of the trained model (see ``observe``).
        runs: number of trainings R.
        epochs: of each one; the schedule is stretched to them.
        every_epoch: whether to ask after every epoch and count how often an object was forgotten,
            instead of adding up what the model says in the end.

    Returns:
        (R, N) float64: the sum over each sample's objects, 0 for samples without any and where the
        proxy cannot look.

    Raises:
        UserError: the options or the proxy's config do not allow it.
    """
    config = _config(run, epochs)
    readable = run.for_proxy
    checkpoints = _trained(run, config, measure, runs, every_epoch)
    items = np.flatnonzero(readable[run.item_samples])
    inputs = dict(score_runs=run.used['score_runs'], measure=measure, every_epoch=every_epoch)
    everything = np.ones(len(run.pool), bool)

    def share(folder: Path) -> None:
        if (folder / 'scores.npy').exists():
            return
        dataset = run.scoring_data(everything, folder / f'views_{run.store.rank}.json')
        measure_shards(
            config,
            checkpoints,
            dataset,
            items,
            folder,
            measure,
            run.options.seed,
            run.store.rank,
            run.store.world,
        )

    def compute(folder: Path) -> None:
        if not (folder / 'scores.npy').exists():
            run.store.wait_for_files(part_paths(len(checkpoints), len(items), folder))
            rows = [merge_rows(i, len(items), folder) for i in range(len(checkpoints))]
            step = epochs if every_epoch else 1
            groups = [rows[i : i + step] for i in range(0, len(rows), step)]
            write_array(
                folder / 'scores.npy',
                np.stack([_sample_scores(group, every_epoch, run) for group in groups]),
            )
        # Gigabytes that nobody needs any more: the scores are there.
        for path in [*folder.glob('rows_*.npy'), *(checkpoints if every_epoch else [])]:
            path.unlink(missing_ok=True)

    return read_array(run.stage('scores', inputs, compute, share) / 'scores.npy')


def _sample_scores(rows: list[np.ndarray], every_epoch: bool, run: 'Run') -> np.ndarray:
    """(N,) float64 from the (m, 3) rows of one training, of its end or of all its epochs; the mean of several lines."""
    sample = run.item_samples[rows[0][:, 0].astype(np.int64)]
    values = (
        forgetting_counts(np.stack([row[:, 2] > 0 for row in rows]))
        if every_epoch
        else rows[-1][:, 1]
    )
    return sum_per_sample(values, sample, len(run.pool)) / run.line_counts


def _config(run: 'Run', epochs: int) -> Config:
    return proxy_config(run.proxy_config, len(run.pool.classes), epochs)


def default_epochs(run: 'Run', late: bool) -> int:
    """How long a short training is, unless the user says it.

    For a detector a third of the proxy's own schedule, which is a short one, or all of it with
    ``late``; for a classifier a tenth of the training, the point at which EL2N was measured (20 of
    200 epochs), or a third with ``late``, after which the counts of forgetting hardly change their
    order.

    Raises:
        UserError: the proxy's config counts iterations.
    """
    full = run.proxy_config.train_cfg.get('max_epochs')
    if full is None:
        raise UserError(
            "the proxy's config counts iterations, but strategies with scores count epochs: set "
            "epochs in adadedup.strategy and train_cfg=dict(type='EpochBasedTrainLoop', "
            'max_epochs=...) in '
            'its config'
        )
    divisor = (3 if late else 10) if is_classifier(run.proxy_config) else (1 if late else 3)
    return max(round(full / divisor), 2 if late else 1)


def _trained(
    run: 'Run', config: Config, measure: Measure, runs: int, every_epoch: bool
) -> list[Path]:
    """The weights to ask, run by run, of the last epoch or of each one."""
    everything, readable = np.ones(len(run.pool), bool), run.for_proxy
    checkpoint = run.options.proxy.checkpoint
    if checkpoint is not None and every_epoch:
        raise UserError(
            'strategy forgetting needs trainings, but adadedup.proxy.checkpoint replaces them: '
            'unset it, '
            'or use el2n or loss_topk'
        )
    inputs: dict[str, Any] = dict(run.proxy_inputs(config), every_epoch=every_epoch, runs=runs)
    if not readable.all():
        inputs['unreadable'] = np.flatnonzero(~readable).tolist()
    if checkpoint is not None:
        inputs = dict(inputs, runs=1, weights=run.checkpoint_digest(checkpoint))
    seeds = run.generator('score runs').integers(2**31, size=runs).tolist()

    def share(folder: Path) -> None:
        if run.store.rank == 0:
            data = run.scoring_data(everything, folder / 'views.json')
            try_measure(config, data, _item_with_objects(run), measure, folder / 'trial.log')
        for i in range(run.store.rank, 0 if checkpoint else runs, run.store.world):
            training = folder / f'run_{i}'
            train_proxy(
                config, run.training_data(readable, training), training, seeds[i], every_epoch
            )

    def compute(folder: Path) -> None:
        if checkpoint is None:
            run.store.wait_for_files(folder / f'run_{i}' / 'proxy.pth' for i in range(runs))

    folder = run.stage('score_runs', inputs, compute, share)
    if checkpoint is not None:
        return [Path(checkpoint)]
    if every_epoch:
        return [
            folder / f'run_{i}' / f'epoch_{epoch}.pth'
            for i in range(runs)
            for epoch in range(1, config.train_cfg.max_epochs + 1)
        ]
    return [folder / f'run_{i}' / 'proxy.pth' for i in range(runs)]


def _item_with_objects(run: 'Run') -> int:
    """An item of the dataset to try things on."""
    can_be_tried = (np.diff(run.pool.offsets) > 0) & run.for_proxy
    return int(np.argmax(can_be_tried[run.item_samples]))


def left_out(run: 'Run') -> list[str]:
    """What to say about readable samples that the proxy cannot look at."""
    count = int((~run.for_proxy & ~run.unreadable).sum())
    if not count:
        return []
    return [
        f'{count} samples are too long and thin for the Resize of the proxy, or have pictures '
        'in other cameras that cannot be read: it trains and scores without them.'
    ]
