"""The proxy's losses on many samples, in pieces."""

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, DefaultScope
from torch.utils.data import DataLoader, Dataset

from ..base.files import write_array
from ..detectors.checkpoint import load_detector
from ..detectors.config import scoring_dataset
from ..detectors.isolation import isolated
from ..detectors.losses import per_sample_losses
from ..images.steps import failing_pictures_named, name_failing_pictures
from ..stages import Done, Shards

SHARD_SIZE = 256
RESULT = 'losses.npy'


def loss_shards(
    config: Config,
    checkpoint: str | Path,
    dataset: Callable[[Path], Mapping[str, Any]],
    indices: np.ndarray,
    sizes: np.ndarray,
    finish: Callable[[Path, np.ndarray], None],
    seed: int = 0,
    process: int = 0,
) -> Shards:
    """The work of the stage ``losses``, which writes ``losses.npy``.

    Samples are taken in the order of their image sizes, because images of one padded shape go
    through the detector together.

    Args:
        config: from ``proxy_config``.
        checkpoint: the proxy's weights.
        dataset: given the stage's folder, the config of the dataset; the pipeline is the test
            pipeline of ``config``, with annotations.
        indices: (n,) int64, positions in the dataset of the samples to score, unique.
        sizes: (n, 2) height and width of their images, 0 where unknown.
        finish: given the path of the result and (n,) float32 losses in the order of ``indices``,
            writes it.
        seed: of the RoI sampling.
        process: index of this process, which has a log file of its own.

    Raises:
        UserError: when the work is done, the checkpoint does not fit, the pipeline fails on a
            picture, or a loss is not finite.
    """
    order = np.lexsort((indices, sizes[:, 1], sizes[:, 0]))
    parts = [order[start : start + SHARD_SIZE] for start in range(0, len(order), SHARD_SIZE)]
    files = [f'losses_{number:05d}.npy' for number in range(len(parts))]

    def compute(folder: Path, pieces: Sequence[int], done: Done) -> None:
        chosen = {folder / files[piece]: indices[parts[piece]] for piece in pieces}
        with isolated(folder / f'scoring_{process}.log'), failing_pictures_named():
            _score(config, checkpoint, dataset(folder), chosen, seed, done)

    def lead(folder: Path, share: Callable[[], None]) -> None:
        share()
        if (folder / RESULT).exists():
            return
        losses = np.empty(len(indices), np.float32)
        for file, part in zip(files, parts, strict=True):
            losses[part] = np.load(folder / file, allow_pickle=False)
        finish(folder / RESULT, losses)

    lengths = [len(part) for part in parts]

    return Shards(files, lengths, compute, lead, RESULT, label='proxy losses', unit='image')


def _score(
    config: Config,
    checkpoint: str | Path,
    dataset: Mapping[str, Any],
    parts: Mapping[Path, np.ndarray],
    seed: int,
    done: Done,
) -> None:
    """Writes the losses of the samples of each part, given as (m,) positions in the dataset."""
    # Without gradients twice as many images as in training fit.
    size = 2 * config.train_dataloader.get('batch_size', 8)
    batches = {file: batches_of(positions, size) for file, positions in parts.items()}
    in_order = list(itertools.chain.from_iterable(batches.values()))
    model = load_detector(config, checkpoint)
    stream = seeded_batches(config, build_scored_dataset(config, dataset), in_order, seed)
    for file, own in batches.items():
        losses = []
        for batch in itertools.islice(stream, len(own)):
            losses.append(per_sample_losses(model, batch, seed=seed).cpu())
            done(len(losses[-1]))

        write_array(file, torch.cat(losses).numpy())


def build_scored_dataset(config: Config, dataset: Mapping[str, Any]) -> Any:
    """The dataset that a proxy is asked about, ready for use; failing pictures are named."""
    with DefaultScope.overwrite_default_scope(config.get('default_scope', 'mmdet')):
        built = DATASETS.build(name_failing_pictures(scoring_dataset(config, dataset)))
    built.full_init()
    return built


def batches_of(items: np.ndarray, size: int) -> list[list[int]]:
    """(n,) positions in batches of ``size``, the last of which may be shorter."""
    return [items[start : start + size].tolist() for start in range(0, len(items), size)]


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
    """A dataset whose samples do not depend on those before.

    Some draw at random even without augmentation.
    """

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __getitem__(self, index: int) -> Any:
        seed = (self.seed * 1_000_003 + index) % 2**32
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)
        return self.dataset[index]
