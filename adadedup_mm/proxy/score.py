"""The proxy's losses on many samples, split over processes and resumable."""

import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, DefaultScope
from torch.utils.data import DataLoader, Dataset

from ..base.files import write_array
from ..base.progress import progress
from ..detectors.checkpoint import load_detector
from ..detectors.config import scoring_dataset
from ..detectors.isolation import isolated
from ..detectors.losses import per_sample_losses
from ..images.steps import failing_pictures_named, name_failing_pictures

SHARD_SIZE = 256


def score_shards(
    config: Config,
    checkpoint: str | Path,
    dataset: Mapping[str, Any],
    indices: np.ndarray,
    sizes: np.ndarray,
    folder: str | Path,
    seed: int = 0,
    rank: int = 0,
    world: int = 1,
) -> None:
    """Computes this process's share of the per-sample losses; parts that are already there are skipped.

    Samples are taken in the order of their image sizes, because images of one padded shape go
    through the detector together. Which samples form a batch does not depend on the number of
    processes.

    Args:
        config: from ``proxy_config``.
        checkpoint: the proxy's weights.
        dataset: config of the dataset; the pipeline is the test pipeline of ``config``, with
            annotations.
        indices: (n,) positions in the dataset of the samples to score, unique.
        sizes: (n, 2) height and width of their images, 0 where unknown.
        folder: where the parts go.
        seed: of the RoI sampling.
        rank: index of this process.
        world: number of processes.

    Raises:
        UserError: the checkpoint does not fit, the pipeline fails on a picture, or a loss is not
            finite.
    """
    folder = Path(folder)
    shards = {
        path: part
        for path, part in list(_shards(indices, sizes, folder).items())[rank::world]
        if not path.exists()
    }
    if not shards:
        return
    # Without gradients twice as many images as in training fit.
    size = 2 * config.train_dataloader.get('batch_size', 8)
    batches = {
        path: [part[i : i + size].tolist() for i in range(0, len(part), size)]
        for path, part in shards.items()
    }
    with (
        isolated(folder / f'scoring_{rank}.log'),
        failing_pictures_named(),
        progress(sum(map(len, shards.values())), 'proxy losses', 'image') as bar,
    ):
        model = load_detector(config, checkpoint)
        with DefaultScope.overwrite_default_scope(config.get('default_scope', 'mmdet')):
            samples = DATASETS.build(name_failing_pictures(scoring_dataset(config, dataset)))
        samples.full_init()
        stream = seeded_batches(config, samples, list(itertools.chain(*batches.values())), seed)
        for path, positions in batches.items():
            losses = []
            for _ in positions:
                losses.append(per_sample_losses(model, next(stream), seed=seed).cpu())
                bar.update(len(losses[-1]))
            write_array(path, torch.cat(losses).numpy())


def seeded_batches(
    config: Config, dataset: Any, batches: list[list[int]], seed: int
) -> Iterator[Any]:
    """Collated samples at the given positions, each of them independent of those before."""
    return iter(
        DataLoader(
            _Seeded(dataset, seed),
            batch_sampler=batches,
            collate_fn=pseudo_collate,
            num_workers=config.train_dataloader.get('num_workers', 0),
        )
    )


class _Seeded(Dataset):
    """A dataset whose samples do not depend on those before: some draw at random even without augmentation."""

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __getitem__(self, index: int) -> Any:
        seed = (self.seed * 1_000_003 + index) % 2**32
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)
        return self.dataset[index]


def merge_losses(
    indices: np.ndarray,
    sizes: np.ndarray,
    count: int,
    folder: str | Path,
    wait_for: Callable[[Callable[[], bool]], None],
) -> np.ndarray:
    """Puts the parts of all processes together.

    Args:
        indices: as for ``score_shards``.
        sizes: as for ``score_shards``.
        count: number of samples in the dataset.
        folder: as for ``score_shards``.
        wait_for: returns when its argument returns True, such as ``StageStore.wait_for``.

    Returns:
        (count,) float32, NaN where no loss was computed.
    """
    shards = _shards(indices, sizes, Path(folder))
    for path in shards:
        wait_for(path.exists)
    losses = np.full(count, np.nan, np.float32)
    for path, part in shards.items():
        losses[part] = np.load(path, allow_pickle=False)
    return losses


def _shards(indices: np.ndarray, sizes: np.ndarray, folder: Path) -> dict[Path, np.ndarray]:
    """File and indices of every part, in the order of image height, width and index."""
    order = np.asarray(indices)[np.lexsort((indices, sizes[:, 1], sizes[:, 0]))]
    return {
        folder / f'losses_{i:05d}.npy': order[start : start + SHARD_SIZE]
        for i, start in enumerate(range(0, len(order), SHARD_SIZE))
    }
