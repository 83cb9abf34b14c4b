"""Asking trained models about all samples, split over processes and resumable."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, DefaultScope

from ..base.errors import UserError
from ..base.files import write_array
from ..base.progress import progress
from ..detectors.checkpoint import build_detector, fill_detector
from ..detectors.config import is_classifier, scoring_dataset
from ..detectors.isolation import isolated
from ..images.steps import failing_pictures_named, name_failing_pictures
from ..proxy.score import SHARD_SIZE, seeded_batches
from .observe import Measure, batch_size, observe


def measure_shards(
    config: Config,
    checkpoints: Sequence[Path],
    dataset: Mapping[str, Any],
    items: np.ndarray,
    folder: Path,
    measure: Measure,
    seed: int = 0,
    rank: int = 0,
    world: int = 1,
) -> None:
    """Computes this process's share of what every checkpoint says; parts that are already there are skipped.

    Neither the number of processes nor an interruption changes a value.

    Args:
        config: from ``proxy_config``.
        checkpoints: weights of the model that ``config`` describes.
        dataset: config of the dataset; the pipeline is the test pipeline of ``config``, with
            annotations.
        items: (n,) int64, which items of the dataset, ascending.
        folder: where the parts go.
        measure: see ``observe``.
        seed: of the random choices inside a detector's loss.
        rank: index of this process.
        world: number of processes.

    Raises:
        UserError: see ``observe``; or a value is not finite.
    """
    count = len(items)
    parts = [
        (checkpoint, start)
        for checkpoint in range(len(checkpoints))
        for start in range(0, count, SHARD_SIZE)
    ]
    missing = [part for part in parts[rank::world] if not part_path(folder, *part).exists()]
    if not missing:
        return
    images = sum(min(SHARD_SIZE, count - start) for _, start in missing)
    classifier = is_classifier(config)
    size = batch_size(measure, classifier, config.train_dataloader.get('batch_size', 8))
    with (
        isolated(folder / f'measuring_{rank}.log'),
        failing_pictures_named(),
        progress(images, 'scores', 'image') as bar,
    ):
        data = _build(config, dataset)
        # One model for all checkpoints: a frozen backbone may remember what it has seen.
        model = build_detector(config)
        for checkpoint in sorted({checkpoint for checkpoint, _ in missing}):
            fill_detector(model, checkpoints[checkpoint])
            starts = [start for other, start in missing if other == checkpoint]
            shards = [_batches(items[start : start + SHARD_SIZE], size) for start in starts]
            stream = seeded_batches(
                config, data, [batch for shard in shards for batch in shard], seed
            )
            for start, shard in zip(starts, shards, strict=True):
                rows = []
                for batch in shard:
                    measured = observe(model, next(stream), measure, classifier, seed)
                    measured[:, 0] = np.array(batch)[measured[:, 0].astype(np.int64)]
                    rows.append(measured)
                    bar.update(len(batch))
                _write(
                    part_path(folder, checkpoint, start),
                    np.concatenate(rows),
                    checkpoints[checkpoint],
                )


def _write(path: Path, rows: np.ndarray, checkpoint: Path) -> None:
    if not np.isfinite(rows).all():
        raise UserError(
            f'a score of the training {checkpoint} is no finite number: lower the learning rate of '
            'the '
            "proxy's config or clip gradients"
        )
    write_array(path, rows)


def _build(config: Config, dataset: Mapping[str, Any]) -> Any:
    with DefaultScope.overwrite_default_scope(config.get('default_scope', 'mmdet')):
        data = DATASETS.build(name_failing_pictures(scoring_dataset(config, dataset)))
    data.full_init()
    return data


def _batches(items: np.ndarray, size: int) -> list[list[int]]:
    return [items[i : i + size].tolist() for i in range(0, len(items), size)]


def part_path(folder: Path, checkpoint: int, start: int) -> Path:
    """Where the rows of up to ``SHARD_SIZE`` items from the ``start``-th on are, as one checkpoint sees them."""
    return folder / f'rows_{checkpoint:04d}_{start:09d}.npy'


def merge_rows(checkpoint: int, count: int, folder: Path) -> np.ndarray:
    """(m, 3) float64: the item's index in the dataset, and the rest as from ``observe``, in the order of items."""
    return np.concatenate(
        [
            np.load(part_path(folder, checkpoint, start), allow_pickle=False)
            for start in range(0, count, SHARD_SIZE)
        ]
    )


def part_paths(checkpoints: int, count: int, folder: Path) -> list[Path]:
    """The parts of all processes."""
    return [
        part_path(folder, checkpoint, start)
        for checkpoint in range(checkpoints)
        for start in range(0, count, SHARD_SIZE)
    ]


def try_measure(
    config: Config, dataset: Mapping[str, Any], item: int, measure: Measure, log_file: Path
) -> None:
    """Measures one item with an untrained model, so that what cannot work comes to light before any training.

    Raises:
        UserError: see ``observe``.
    """
    with isolated(log_file), failing_pictures_named():
        data = _build(config, dataset)
        model = build_detector(config)
        # DINO's level embeddings, for one, are whatever the memory held until a training sets them.
        for value in model.parameters():
            value.data.nan_to_num_().clamp_(-1, 1)
        observe(model, pseudo_collate([data[item]]), measure, is_classifier(config))
