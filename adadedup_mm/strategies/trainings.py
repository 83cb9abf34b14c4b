"""The stages of a run that lead from short trainings on all samples to their scores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from mmengine.config import Config

from ..base.errors import UserError
from ..base.files import read_array, write_array
from ..detectors.config import is_classifier
from ..proxy import proxy_config, train_proxy
from ..scores.measure import measure_shards, try_measure
from ..scores.numerics import forgetting_counts, sum_per_sample
from ..scores.observe import Measure
from ..stages import Done, Shards

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
    checkpoints = _trained(run, config, measure, runs, every_epoch)
    readable = run.for_proxy
    items = np.flatnonzero(readable[run.proxy_stages.item_samples])
    everything = np.ones(len(run.pool), bool)
    # Of how many checkpoints a training is made.
    step = epochs if every_epoch else 1

    def dataset(folder: Path) -> Mapping[str, Any]:
        return run.proxy_stages.scoring_data(everything, folder / f'views_{run.store.rank}.json')

    def finish(result: Path, rows: list[np.ndarray]) -> None:
        trainings = [rows[start : start + step] for start in range(0, len(rows), step)]
        scores = [_sample_scores(training, every_epoch, run) for training in trainings]
        write_array(result, np.stack(scores))

    shards = measure_shards(
        config, checkpoints, dataset, items, measure, finish, run.options.seed, run.store.rank
    )

    def lead(folder: Path, share: Callable[[], None]) -> None:
        shards.lead(folder, share)
        # Gigabytes that nobody needs any more: the scores are there.
        for checkpoint in checkpoints if every_epoch else []:
            checkpoint.unlink(missing_ok=True)

    inputs = dict(
        score_runs=run.ledger.used['score_runs'], measure=measure, every_epoch=every_epoch
    )
    folder = run.stage('scores', inputs, replace(shards, lead=lead))

    return read_array(folder / 'scores.npy')


def _sample_scores(rows: list[np.ndarray], every_epoch: bool, run: 'Run') -> np.ndarray:
    """(N,) float64 scores that one training gives; the mean of several lines of a sample.

    Args:
        rows: (m, 3) float64 of its end or of each epoch, see ``measure_shards``.
        every_epoch: whether they are of each epoch, and forgotten objects count.
        run: the pruning run.
    """
    items = rows[0][:, 0].astype(np.int64)
    if every_epoch:
        is_right = np.stack([row[:, 2] > 0 for row in rows])
        values = forgetting_counts(is_right)
    else:
        values = rows[-1][:, 1]

    return (
        sum_per_sample(values, run.proxy_stages.item_samples[items], len(run.pool))
        / run.proxy_stages.line_counts
    )


def _config(run: 'Run', epochs: int) -> Config:
    return proxy_config(run.proxy_stages.config, len(run.pool.classes), epochs)


def default_epochs(run: 'Run', late: bool) -> int:
    """How long a short training is, unless the user says it.

    For a detector a third of the proxy's own schedule, which is a short one, or all of it with
    ``late``; for a classifier a tenth of the training, the point at which EL2N was measured (20 of
    200 epochs), or a third with ``late``, after which counts of forgotten objects hardly change
    their order.

    Raises:
        UserError: the proxy's config counts iterations.
    """
    full = run.proxy_stages.config.train_cfg.get('max_epochs')
    if full is None:
        raise UserError(
            "the proxy's config counts iterations, but strategies with scores count epochs: set "
            "epochs in adadedup.strategy and train_cfg=dict(type='EpochBasedTrainLoop', "
            'max_epochs=...) in its config'
        )

    early_part, late_part = (10, 3) if is_classifier(run.proxy_stages.config) else (3, 1)
    divisor = late_part if late else early_part

    return max(round(full / divisor), 2 if late else 1)


def _trained(
    run: 'Run', config: Config, measure: Measure, runs: int, every_epoch: bool
) -> list[Path]:
    """The weights to ask, run by run, of the last epoch or of each one."""
    readable = run.for_proxy
    checkpoint = run.options.proxy.checkpoint
    if checkpoint is not None and every_epoch:
        raise UserError(
            f'strategy {run.options.strategy_name} needs trainings, but adadedup.proxy.checkpoint '
            'replaces them: unset it, or use a strategy that asks once'
        )

    inputs: dict[str, Any] = dict(
        run.proxy_stages.inputs(config), every_epoch=every_epoch, runs=runs
    )
    if not readable.all():
        inputs['unreadable'] = np.flatnonzero(~readable).tolist()
    if checkpoint is not None:
        inputs = dict(inputs, runs=1, weights=run.proxy_stages.checkpoint_digest(checkpoint))
        runs = 0

    folder = run.stage(
        'score_runs', inputs, _training_shards(run, config, measure, runs, every_epoch)
    )
    if checkpoint is not None:
        return [Path(checkpoint)]
    trainings = [folder / f'run_{i}' for i in range(runs)]
    if not every_epoch:
        return [training / 'proxy.pth' for training in trainings]
    epochs = range(1, config.train_cfg.max_epochs + 1)

    return [training / f'epoch_{epoch}.pth' for training in trainings for epoch in epochs]


def _training_shards(
    run: 'Run', config: Config, measure: Measure, runs: int, every_epoch: bool
) -> Shards:
    """The work of the stage ``score_runs``: a training is a piece, and they are the result."""
    seeds = run.generator('score runs').integers(2**31, size=runs).tolist()
    readable = run.for_proxy

    def compute(folder: Path, pieces: Sequence[int], done: Done) -> None:
        for i in pieces:
            training = folder / f'run_{i}'
            data = run.proxy_stages.training_data(readable, training)
            train_proxy(config, data, training, seeds[i], every_epoch)
            done(1)

    def lead(folder: Path, share: Callable[[], None]) -> None:
        everything = np.ones(len(run.pool), bool)
        data = run.proxy_stages.scoring_data(everything, folder / 'views.json')
        try_measure(config, data, _item_with_objects(run), measure, folder / 'trial.log')
        share()

    files = [f'run_{i}/proxy.pth' for i in range(runs)]
    sizes = [1] * runs

    return Shards(
        files,
        sizes,
        compute,
        lead,
        result='',
        label='trainings',
        unit='training',
    )


def _item_with_objects(run: 'Run') -> int:
    """An item of the dataset to try things on."""
    can_be_tried = (np.diff(run.pool.offsets) > 0) & run.for_proxy
    return int(np.argmax(can_be_tried[run.proxy_stages.item_samples]))


def left_out(run: 'Run') -> list[str]:
    """What to say about readable samples that the proxy cannot look at."""
    count = int((~run.for_proxy & ~run.unreadable).sum())
    if not count:
        return []
    return [
        f'{count} samples are too long and thin for the Resize of the proxy, or have pictures '
        'in other cameras that cannot be read: it trains and scores without them.'
    ]
