"""Asking trained models about all samples, in pieces."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from ..base.errors import UserError
from ..base.files import write_array
from ..detectors.checkpoint import build_detector, fill_detector
from ..detectors.config import is_classifier
from ..detectors.isolation import isolated
from ..images.steps import failing_pictures_named
from ..proxy.score import SHARD_SIZE, batches_of, build_scored_dataset, seeded_batches
from ..stages import Done, Shards
from .observe import Measure, batch_size, observe

RESULT = 'scores.npy'


def measure_shards(
    config: Config,
    checkpoints: Sequence[Path],
    dataset: Callable[[Path], Mapping[str, Any]],
    items: np.ndarray,
    measure: Measure,
    finish: Callable[[Path, list[np.ndarray]], None],
    seed: int = 0,
    process: int = 0,
) -> Shards:
    """The work of the stage ``scores``, which writes ``scores.npy``: what every checkpoint says.

    Args:
        config: from ``proxy_config``.
        checkpoints: weights of the model that ``config`` describes.
        dataset: given the stage's folder, the config of the dataset; the pipeline is the test
            pipeline of ``config``, with annotations.
        items: (n,) int64, which items of the dataset, ascending.
        measure: see ``observe``.
        finish: given the path of the result and for each checkpoint (m, 3) float64, writes it. The
            columns are the item's index in the dataset, and the rest as from ``observe``, in the
            order of items.
        seed: of the random choices inside a detector's loss.
        process: index of this process, which has a log file of its own.

    Raises:
        UserError: when the work is done, see ``observe``; or a value is not finite.
    """
    starts = range(0, len(items), SHARD_SIZE)
    parts = [(checkpoint, start) for checkpoint in range(len(checkpoints)) for start in starts]
    files = [f'rows_{checkpoint:04d}_{start:09d}.npy' for checkpoint, start in parts]

    def compute(folder: Path, pieces: Sequence[int], done: Done) -> None:
        chosen = {}
        for piece in pieces:
            checkpoint, start = parts[piece]
            file = folder / files[piece]
            chosen[file] = (checkpoints[checkpoint], items[start : start + SHARD_SIZE])

        with isolated(folder / f'measuring_{process}.log'), failing_pictures_named():
            _measure(config, dataset(folder), chosen, measure, seed, done)

    def lead(folder: Path, share: Callable[[], None]) -> None:
        share()
        if (folder / RESULT).exists():
            return
        rows: list[list[np.ndarray]] = [[] for _ in checkpoints]
        for (checkpoint, _), file in zip(parts, files, strict=True):
            rows[checkpoint].append(np.load(folder / file, allow_pickle=False))
        finish(folder / RESULT, [np.concatenate(own) for own in rows])

    sizes = [min(SHARD_SIZE, len(items) - start) for _, start in parts]

    return Shards(files, sizes, compute, lead, RESULT, label='scores', unit='image')


def _measure(
    config: Config,
    dataset: Mapping[str, Any],
    parts: Mapping[Path, tuple[Path, np.ndarray]],
    measure: Measure,
    seed: int,
    done: Done,
) -> None:
    """Writes what a checkpoint says about some items of the dataset, for each part."""
    classifier = is_classifier(config)
    size = batch_size(measure, classifier, config.train_dataloader.get('batch_size', 8))
    data = build_scored_dataset(config, dataset)
    # One model for all checkpoints: a frozen backbone may remember what it has seen.
    model = build_detector(config)
    for checkpoint, own in itertools.groupby(parts.items(), lambda part: part[1][0]):
        fill_detector(model, checkpoint)
        batches = {file: batches_of(items, size) for file, (_, items) in own}
        in_order = list(itertools.chain.from_iterable(batches.values()))
        stream = seeded_batches(config, data, in_order, seed)
        for file, positions in batches.items():
            rows = []
            for batch in positions:
                measured = observe(model, next(stream), measure, classifier, seed)
                measured[:, 0] = np.array(batch)[measured[:, 0].astype(np.int64)]
                rows.append(measured)
                done(len(batch))

            _write(file, np.concatenate(rows), checkpoint)


def _write(path: Path, rows: np.ndarray, checkpoint: Path) -> None:
    if not np.isfinite(rows).all():
        raise UserError(
            f'a score of the training {checkpoint} is no finite number: lower the learning rate of '
            "the proxy's config or clip gradients"
        )
    write_array(path, rows)


def try_measure(
    config: Config, dataset: Mapping[str, Any], item: int, measure: Measure, log_file: Path
) -> None:
    """Measures one item with an untrained model.

    What cannot work comes to light before any training.

    Raises:
        UserError: see ``observe``.
    """
    with isolated(log_file), failing_pictures_named():
        data = build_scored_dataset(config, dataset)
        model = build_detector(config)
        # DINO's level embeddings, for one, are whatever the memory held until a training sets them.
        for value in model.parameters():
            value.data.nan_to_num_().clamp_(-1, 1)
        observe(model, pseudo_collate([data[item]]), measure, is_classifier(config))
