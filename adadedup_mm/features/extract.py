"""The features stage: every image decoded once, in shards that any process can write and any later run can reuse."""

import dataclasses
import functools
import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..base.errors import UserError
from ..base.files import write_array, write_json, write_rows
from ..base.progress import progress
from ..images import BadImage, Reader
from ..pool.views import choose_views
from .cpu import keep_freed_pages, single_threads
from .decode import Transform, decode

# Images per shard. Batches end where shards end, so that the features do not depend on who computes
# which shard.
SHARD = 256
_ROWS = 1024
_USUAL = Reader()


class AnyEmbedder(Protocol):
    """What the stage needs of an embedder."""

    batch_size: int
    workers: int

    @property
    def transform(self) -> Transform:
        """How images become its input."""

    def encode(self, images: Tensor) -> np.ndarray:
        """(B, 3, S, S) uint8 to (B, d) float32, unit rows."""


def extract_shards(
    image_paths: Sequence[Sequence[str]],
    views: Sequence[str],
    use_views: str | Sequence[str],
    embedder: AnyEmbedder,
    folder: Path,
    rank: int = 0,
    world: int = 1,
    reader: Reader = _USUAL,
) -> None:
    """Writes this process's share of the features into ``folder``; shards that are already there stay.

    Images that cannot be read, or whose features are not finite, get NaN and a line in the shard's
    ``.json``.

    Args:
        image_paths: N tuples of V paths. A path that occurs more than once is decoded once.
        views: V camera names.
        use_views: see ``choose_views``.
        embedder: see ``Embedder``.
        folder: of the stage.
        rank: index of this process.
        world: number of processes.
        reader: how the training reads the images.
    """
    paths = list(_positions(image_paths, choose_views(views, use_views)))
    shards = [
        shard
        for shard in range(rank, _shard_count(paths), world)
        if not _shard_file(folder, shard).exists()
    ]
    if not shards or (folder / 'features.npy').exists():
        return
    # Loads the network before the threads start.
    transform = dataclasses.replace(embedder.transform, reader=reader)
    parts = {shard: paths[shard * SHARD : (shard + 1) * SHARD] for shard in shards}
    batches = [
        part[start : start + embedder.batch_size]
        for part in parts.values()
        for start in range(0, len(part), embedder.batch_size)
    ]
    with (
        keep_freed_pages(),
        single_threads(embedder.workers) as threads,
        progress(
            sum(map(len, parts.values())), getattr(embedder, 'task', 'features'), 'img'
        ) as bar,
    ):
        results = _in_order(
            threads, functools.partial(_embed, embedder, transform), batches, 2 * embedder.workers
        )
        for shard, part in parts.items():
            rows: list[np.ndarray] = []
            bad: dict[int, str] = {}
            for start in range(0, len(part), embedder.batch_size):
                features, reasons = next(results)
                rows.append(features)
                bad |= {shard * SHARD + start + row: reason for row, reason in reasons.items()}
                bar.update(len(features))
            if bad:
                write_json(_reasons_file(folder, shard), bad)
            else:  # an interrupted run may have left one
                _reasons_file(folder, shard).unlink(missing_ok=True)
            write_array(_shard_file(folder, shard), np.concatenate(rows))


def merge_shards(
    image_paths: Sequence[Sequence[str]],
    views: Sequence[str],
    use_views: str | Sequence[str],
    folder: Path,
    on_bad_image: str = 'keep',
    wait_for: Callable[[Callable[[], bool]], None] | None = None,
    none_will_do: bool = False,
) -> list[dict[str, Any]]:
    """Turns the shards of all processes into the stage's result, and removes them.

    Writes ``features.npy``, (N, d) float32 with unit rows (several views: concatenated / sqrt(V),
    so that a product of two rows is the mean of the views' cosines; zero for samples with a bad
    image), ``unreadable.npy``, (N,) bool, and ``bad_images.json``. Needs memory for a block of rows
    only.

    Args:
        image_paths: as for ``extract_shards``.
        views: likewise.
        use_views: likewise.
        folder: of the stage.
        on_bad_image: ``'error'`` refuses bad images; ``'keep'`` and ``'drop'`` differ in what the
            caller makes of them.
        wait_for: returns once its argument, a condition, holds; None where no other process writes
            shards.
        none_will_do: whether not a single image need be readable.

    Returns:
        What ``bad_images.json`` says: dicts of ``sample`` (its index), ``path`` and ``reason``.

    Raises:
        UserError: there are bad images and ``on_bad_image`` is ``'error'``, or no image at all is
            readable and one is needed. Their shards are removed, so that a later run looks at them
            again.
    """
    if not (folder / 'features.npy').exists():
        _merge(
            image_paths,
            choose_views(views, use_views),
            folder,
            on_bad_image,
            wait_for,
            none_will_do,
        )
    for file in folder.glob('shard_*'):
        file.unlink()
    return json.loads((folder / 'bad_images.json').read_text(encoding='utf-8'))


def refuse_bad_images(folder: Path, on_bad_image: str) -> None:
    """Raises UserError if ``on_bad_image`` is ``'error'`` and a finished stage, of another setting, has bad images."""
    if on_bad_image == 'error':
        bad = json.loads((folder / 'bad_images.json').read_text(encoding='utf-8'))
        reasons = {entry['path']: entry['reason'] for entry in bad}
        if reasons:
            raise UserError(f'{len(reasons)} images {_advice(reasons)}')


def _merge(
    image_paths: Sequence[Sequence[str]],
    columns: Sequence[int],
    folder: Path,
    on_bad_image: str,
    wait_for: Callable[[Callable[[], bool]], None] | None,
    none_will_do: bool,
) -> None:
    positions = _positions(image_paths, columns)
    shards = [_shard_file(folder, shard) for shard in range(_shard_count(positions))]
    if wait_for is not None:
        for shard in shards:
            wait_for(shard.exists)
    reasons = _read_reasons(folder, len(shards))
    none_is_good = len(reasons) == len(positions) and not none_will_do
    if reasons and (on_bad_image == 'error' or none_is_good):
        for number in {position // SHARD for position in reasons}:
            shards[number].unlink()
            _reasons_file(folder, number).unlink()
        raise UserError(_message(reasons, list(positions)))
    rows = np.array([[positions[paths[column]] for column in columns] for paths in image_paths])
    is_bad = np.isin(rows, list(reasons))
    bad = [
        dict(
            sample=int(sample),
            path=_printable(image_paths[sample][columns[view]]),
            reason=reasons[rows[sample, view]],
        )
        for sample, view in np.argwhere(is_bad)
    ]
    write_json(folder / 'bad_images.json', bad)
    write_array(folder / 'unreadable.npy', is_bad.any(axis=1))
    _write_features(folder / 'features.npy', shards, rows, is_bad.any(axis=1))


def time_images(
    paths: Sequence[str], embedder: AnyEmbedder, most: int = 64, reader: Reader = _USUAL
) -> tuple[float, int]:
    """How long the features of an image take here on average, all workers together.

    Args:
        paths: images, of which some at equal distances are taken.
        embedder: see ``Embedder``.
        most: how many are taken.
        reader: how the training reads the images.

    Returns:
        Seconds, and the length of a feature.
    """
    # Loads the network before the clock starts.
    transform = dataclasses.replace(embedder.transform, reader=reader)
    chosen = [
        paths[i]
        for i in np.unique(np.linspace(0, len(paths) - 1, min(most, len(paths))).astype(int))
    ]
    # Small batches keep all workers busy.
    size = max(1, min(embedder.batch_size, len(chosen) // embedder.workers))
    batches = [chosen[start : start + size] for start in range(0, len(chosen), size)]
    with keep_freed_pages(), single_threads(embedder.workers) as threads:
        dim = _embed(embedder, transform, chosen[:1])[0].shape[1]
        start = time.perf_counter()
        for _ in _in_order(
            threads, functools.partial(_embed, embedder, transform), batches, 2 * embedder.workers
        ):
            pass
    return (time.perf_counter() - start) / len(chosen), dim


def _positions(image_paths: Sequence[Sequence[str]], columns: Sequence[int]) -> dict[str, int]:
    """Each image that is needed and its place in the shards, in the order of first use."""
    paths = dict.fromkeys(paths[column] for paths in image_paths for column in columns)
    return {path: position for position, path in enumerate(paths)}


def _embed(
    embedder: AnyEmbedder, transform: Transform, paths: Sequence[str]
) -> tuple[np.ndarray, dict[int, str]]:
    """One batch: (B, d) float32 features, and for the rows that are NaN the reason."""
    # Bad images stay in the batch as black ones: the other features must not depend on them.
    images = torch.zeros(len(paths), 3, transform.size, transform.size, dtype=torch.uint8)
    reasons = {}
    for row, path in enumerate(paths):
        try:
            images[row] = decode(path, transform)
        except BadImage as error:
            reasons[row] = str(error)
    features = np.array(embedder.encode(images), np.float32)
    for row in np.flatnonzero(~np.isfinite(features).all(axis=1)):
        reasons.setdefault(int(row), 'the network gives no finite features')
    features[list(reasons)] = np.nan
    return features, reasons


def _in_order(
    threads: Executor, function: Callable[[Any], Any], items: Iterable[Any], ahead: int
) -> Iterator[Any]:
    """The results in the items' order, with at most ``ahead`` of them computed before they are asked for."""
    waiting: deque[Future[Any]] = deque()
    for item in items:
        waiting.append(threads.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _write_features(
    path: Path, shards: Sequence[Path], rows: np.ndarray, unreadable: np.ndarray
) -> None:
    """Gathers rows of the shards, given as (N, V) positions, block by block."""
    open_shard = functools.lru_cache(maxsize=64)(
        lambda shard: np.load(shards[shard], mmap_mode='r')
    )
    n, v = rows.shape
    d = open_shard(0).shape[1]

    def gather(start: int) -> np.ndarray:
        block = rows[start : start + _ROWS].ravel()
        features = np.empty((len(block), d), np.float32)
        for shard in np.unique(block // SHARD):
            here = block // SHARD == shard
            features[here] = open_shard(shard)[block[here] % SHARD]
        features = features.reshape(-1, v * d) / math.sqrt(v)
        features[unreadable[start : start + _ROWS]] = 0
        return features

    write_rows(path, (n, v * d), map(gather, range(0, n, _ROWS)))


def _read_reasons(folder: Path, count: int) -> dict[int, str]:
    """Why images are bad, by their place in the shards."""
    reasons: dict[int, str] = {}
    for file in filter(Path.exists, (_reasons_file(folder, shard) for shard in range(count))):
        reasons |= {
            int(position): reason
            for position, reason in json.loads(file.read_text(encoding='utf-8')).items()
        }
    return reasons


def _message(reasons: dict[int, str], paths: Sequence[str]) -> str:
    named = {_printable(paths[position]): reasons[position] for position in sorted(reasons)}
    if len(reasons) == len(paths):
        return (
            f"none of the {len(paths)} images can be read: check the dataset's data_root and "
            'data_prefix; '
            f'first: {_first(named)}'
        )
    return f'{len(reasons)} of {len(paths)} images {_advice(named)}'


def _advice(reasons: dict[str, str]) -> str:
    return (
        f"cannot be read: repair them, or set adadedup.on_bad_image to 'keep' or 'drop'; "
        f'{"all" if len(reasons) <= 5 else "first"}: {_first(reasons)}'
    )


def _first(reasons: dict[str, str]) -> str:
    return '; '.join(f'{path} ({reason})' for path, reason in list(reasons.items())[:5])


def _printable(path: str) -> str:
    """The path with whatever is no text in it escaped."""
    return path.encode(errors='backslashreplace').decode()


def _shard_count(images: Sequence[str] | dict[str, int]) -> int:
    return math.ceil(len(images) / SHARD)


def _shard_file(folder: Path, shard: int) -> Path:
    return folder / f'shard_{shard:05d}.npy'


def _reasons_file(folder: Path, shard: int) -> Path:
    return folder / f'shard_{shard:05d}.json'
