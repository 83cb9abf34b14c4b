"""What the dataloader draws from, and how its samples say which ones they are."""

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.registry import DATA_SAMPLERS, DATASETS
from torch.utils.data import Sampler

from ..base.errors import UserError
from .policies import ScoreState, build_policy

INDEX_KEY = 'dynamic_index'


@DATASETS.register_module()
class IndexedDataset:
    """Any dataset; its data samples carry their index as ``dynamic_index`` in the meta data.

    What is made is no wrapper but the dataset itself, of a class derived from its own, so that
    hooks which look through wrappers, switch pipelines or ask for the class find what they would
    find without it.

    Args:
        dataset: config of any dataset, or the dataset; wrappers such as ``RepeatDataset`` go
            inside.
    """

    def __new__(cls, dataset: Any) -> Any:
        """Returns the dataset."""
        if isinstance(dataset, dict):
            dataset = DATASETS.build(dataset)
        return _indexed(dataset)


def _indexed(dataset: Any) -> Any:
    kind: Any = type(dataset)
    try:
        dataset.__class__ = _indexed_class(kind)
    except TypeError as error:
        raise UserError(
            f'dynamic pruning cannot follow the samples of a {type(dataset).__name__}, which is no '
            'class written in Python: use one, such as a subclass of BaseDataset'
        ) from error
    return dataset


@functools.cache
def _indexed_class(kind: Any) -> Any:
    """A class of the same name and layout: instances of the one can become those of the other."""
    if hasattr(kind, '_unindexed'):
        return kind

    def get_item(self: Any, index: int) -> Any:
        data = kind.__getitem__(self, index)
        sample: Any = data.get('data_samples') if isinstance(data, dict) else None
        # Policies that need no losses need no indices; the others complain in the process that
        # trains.
        if hasattr(sample, 'set_metainfo'):
            sample.set_metainfo({INDEX_KEY: int(index)})
        return data

    def get_items(self: Any, indices: list[int]) -> list[Any]:
        return [self[index] for index in indices]

    def reduce(self: Any, protocol: Any) -> Any:
        # Copies, and what processes are sent, are made by the dataset's own class.
        plain = object.__new__(kind)
        vars(plain).update(vars(self))
        return _indexed, (plain,)

    attributes = dict(
        __getitem__=get_item,
        __getitems__=get_items,
        __reduce_ex__=reduce,
        __module__=kind.__module__,
        __qualname__=kind.__qualname__,
        __doc__=kind.__doc__,
        _unindexed=kind,
    )

    return type(kind.__name__, (kind,), attributes)


def batch_indices(batch: Any) -> np.ndarray:
    """The (B,) int64 indices of a batch's samples.

    Raises:
        UserError: they carry none.
    """
    samples = batch.get('data_samples') if isinstance(batch, dict) else None
    if not isinstance(samples, (list, tuple)) or not all(_has_index(sample) for sample in samples):
        raise UserError(
            "dynamic pruning: the training dataset hides its samples' indices, because its batches "
            "have no 'data_samples'; end its pipeline with a Pack... transform, or use policy "
            'random'
        )
    indices = [sample.metainfo[INDEX_KEY] for sample in samples]
    return np.array(indices, np.int64)


def _has_index(sample: Any) -> bool:
    return INDEX_KEY in getattr(sample, 'metainfo', {})


@DATA_SAMPLERS.register_module()
class DynamicPruningSampler(Sampler):
    """Draws each sample of a subset once per epoch; a policy chooses the subset anew every period.

    All processes choose the same subset, and each of its samples goes to exactly one of them. To
    give every process equally many, the subset of W processes leaves out up to W - 1 of the samples
    that the policy chose. ``DynamicPruningHook`` feeds the losses back.

    Args:
        dataset: N samples.
        policy: ``policy``, a name in ``POLICIES``, and its arguments.
        seed: of selections and order; None draws one.
        shuffle: whether the order is random.
        least: samples of each process that a subset has at least; random ones fill up a smaller
            one. Where batches that are not full are dropped, it is what fills one.

    Attributes:
        state: what the policy knows.
        indices: (k,) int64, the present subset of all processes.
        weights: (N,) float32, factor of each sample's loss.
        used: (N,) int64, in how many epochs each sample was used.
        churn: share of the subset that was not in the one before.

    Raises:
        UserError: the policy's first subset is smaller than ``least``.
    """

    def __init__(
        self,
        dataset: Any,
        policy: dict[str, Any],
        seed: int | None = None,
        shuffle: bool = True,
        least: int = 1,
    ) -> None:
        self.rank, self.world = get_dist_info()
        self.dataset = dataset
        self.shuffle = shuffle
        self.seed = sync_random_seed() if seed is None else seed
        arguments = dict(policy)
        name = arguments.pop('policy', None)
        self.policy = build_policy(name, arguments)
        size = len(dataset)
        if size < self.world:
            raise UserError(
                f'dynamic pruning: {size} samples are too few for {self.world} processes'
            )

        self.state = ScoreState.empty(size)
        self.indices = np.arange(0)
        self.weights = np.ones(size, np.float32)
        self.used = np.zeros(size, np.int64)
        self.churn = 0.0
        self.epoch = 0
        self.selected_in = -1
        self.least = 1
        # Loops and schedulers ask for the length of an epoch before the training starts. No policy
        # has a longer one.
        self._select(0)
        self.least = least
        if len(self) < least:
            raise no_batch(self, least)

    def start_epoch(self, epoch: int) -> None:
        """Chooses a new subset if a period begins, and counts the samples as used."""
        self.epoch = epoch
        begins_period = epoch % self.policy.period == 0
        if begins_period and epoch != self.selected_in:
            self._select(epoch)
        self.used[self.indices] += 1

    def _select(self, epoch: int) -> None:
        world = self.world
        generator = np.random.default_rng([self.seed, epoch, 1])
        indices, weights = self.policy.select(self.state, epoch, generator)
        wanted = self.least * world
        if len(indices) < wanted:
            indices, weights = self._fill_up(indices, weights, generator)
        count = len(indices)
        if count < world or count % world:
            indices, weights = self._even_out(indices, weights, generator)

        self.churn = self._share_of_new(indices)
        self.indices = indices
        self.weights = np.ones_like(self.weights)
        self.weights[indices] = weights
        self.selected_in = epoch

    def _share_of_new(self, indices: np.ndarray) -> float:
        """The share of a subset that is not in the present one; 0 if there is none yet."""
        if not len(self.indices):
            return 0.0
        new = np.isin(indices, self.indices, invert=True)
        return float(new.mean())

    def _fill_up(
        self, indices: np.ndarray, weights: np.ndarray, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        wanted = self.least * self.world
        everything = np.arange(len(self.used))
        others = np.setdiff1d(everything, indices)
        others = generator.permutation(others)
        missing = wanted - len(indices)
        more = others[:missing]

        ones = np.ones(len(more))
        indices = np.concatenate([indices, more])
        weights = np.concatenate([weights, ones])
        order = np.argsort(indices)
        return indices[order], weights[order]

    def _even_out(
        self, indices: np.ndarray, weights: np.ndarray, generator: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        count = len(indices)
        if count < self.world:
            raise UserError(
                f'dynamic pruning keeps {count} of {len(self.used)} samples, too few for '
                f'{self.world} processes: raise the keep ratio'
            )
        even = count - count % self.world
        chosen = np.sort(generator.permutation(count)[:even])
        return indices[chosen], weights[chosen]

    def __iter__(self) -> Iterator[int]:
        order = self.indices
        if self.shuffle:
            generator = np.random.default_rng([self.seed, self.epoch, 2])
            order = generator.permutation(order)
        own = order[self.rank :: self.world]
        return iter(own.tolist())

    def __len__(self) -> int:
        return len(self.indices) // self.world

    def set_epoch(self, epoch: int) -> None:
        """Mmengine's own call; ``start_epoch`` has already set the epoch."""

    def state_dict(self) -> dict[str, Any]:
        """All that the next selections and orders depend on, as tensors and plain numbers."""
        arrays = dict(
            self.state.state_dict(),
            indices=self.indices,
            weights=self.weights,
            used=self.used,
        )
        tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        return dict(
            tensors,
            seed=int(self.seed),
            epoch=self.epoch,
            selected_in=self.selected_in,
            churn=self.churn,
            world=self.world,
        )

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Takes what ``state_dict`` gave.

        Raises:
            UserError: it is of another dataset or number of processes.
        """
        if saved['world'] != self.world:
            raise UserError(
                f"the checkpoint's subset is split over {saved['world']} processes: resume with as "
                f'many, not with {self.world}'
            )

        arrays = {name: saved[name].cpu().numpy() for name in vars(self.state)}
        self.state.load_state_dict(arrays)
        for name in ('indices', 'weights', 'used'):
            array = saved[name].cpu().numpy()
            setattr(self, name, array.copy())

        for name in ('seed', 'epoch', 'selected_in', 'churn'):
            setattr(self, name, saved[name])


def no_batch(sampler: DynamicPruningSampler, size: Any = None) -> UserError:
    """The error of a pass over a subset that yields no batch.

    Args:
        sampler: what chose the subset.
        size: of a batch, if known.
    """
    where = ' of each process' if sampler.world > 1 else ''
    batch = 'no batch' if size is None else f'no batch of {size}'
    drop = ' with drop_last=True' if sampler.least > 1 else ''
    return UserError(
        f'dynamic pruning: the subset of {len(sampler)} samples{where} makes {batch}{drop}: raise '
        'the keep ratio, lower train_dataloader.batch_size, or set drop_last=False'
    )
