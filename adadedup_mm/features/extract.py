"""The work of the features stage: every image decoded once, in pieces."""

import dataclasses
import functools
import itertools
import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..base.cpu import keep_freed_pages, single_threads
from ..base.errors import UserError
from ..base.files import write_array, write_json, write_rows
from ..images import BadImage, Reader
from ..pool.views import choose_views
from ..stages import Done, Shards
from .decode import Transform, decode
from .embedder import ImageEncoder

# Images per piece. Batches end where pieces end, so that the features do not depend on who computes
# which piece.
SHARD = 256
RESULT = 'features.npy'
_ROWS = 1024
_USUAL = Reader()


def feature_shards(
    image_paths: Sequence[Sequence[str]],
    views: Sequence[str],
    use_views: str | Sequence[str],
    embedder: ImageEncoder,
    on_bad_image: str = 'keep',
    reader: Reader = _USUAL,
    none_will_do: bool = False,
) -> Shards:
    """The work of a features stage.

    It writes ``features.npy``, (N, d) float32 with unit rows (several views: concatenated /
    sqrt(V), so that a product of two rows is the mean of the views' cosines; zero for samples with
    a bad image), ``unreadable.npy``, (N,) bool, and ``bad_images.json``, a list of dicts of
    ``sample`` (its index), ``path`` and ``reason``. Bad are images that cannot be read, or whose
    features are not finite. Memory holds a block of rows only.

    Args:
        image_paths: N tuples of V paths. A path that occurs more than once is decoded once.
        views: V camera names.
        use_views: see ``choose_views``.
        embedder: see ``Embedder``.
        on_bad_image: ``'error'`` refuses bad images; ``'keep'`` and ``'drop'`` differ in what the
            caller makes of them.
        reader: how the training reads the images.
        none_will_do: whether not a single image need be readable.

    Raises:
        UserError: when the work is done, there are bad images and ``on_bad_image`` is ``'error'``,
            or no image at all is readable and one is needed. Their pieces are removed, so that a
            later run looks at them again.
    """
    columns = choose_views(views, use_views)
    positions = _positions(image_paths, columns)
    paths = list(positions)
    parts = [paths[start : start + SHARD] for start in range(0, len(paths), SHARD)]
    files = [_shard_file(number) for number in range(len(parts))]

    def compute(folder: Path, pieces: Sequence[int], done: Done) -> None:
        chosen = {piece: parts[piece] for piece in pieces}
        _extract(folder, chosen, embedder, reader, done)

    def lead(folder: Path, share: Callable[[], None]) -> None:
        share()
        if not (folder / RESULT).exists():
            shards = [folder / file for file in files]
            reasons = _read_reasons(shards)
            none_is_good = len(reasons) == len(paths) and not none_will_do
            if reasons and (on_bad_image == 'error' or none_is_good):
                _forget(shards, reasons)
                raise UserError(_message(reasons, paths))

            _merge(folder, shards, reasons, image_paths, columns, positions)

        for file in folder.glob('shard_*.json'):
            file.unlink()

    return Shards(
        files,
        [len(part) for part in parts],
        compute,
        lead,
        result=RESULT,
        label=getattr(embedder, 'task', 'features'),
        unit='img',
    )


def _extract(
    folder: Path,
    parts: Mapping[int, Sequence[str]],
    embedder: ImageEncoder,
    reader: Reader,
    done: Done,
) -> None:
    """Writes a shard of features for each part of the images, and why some are NaN beside it."""
    # Loads the network before the threads start.
    transform = dataclasses.replace(embedder.transform, reader=reader)
    embed = functools.partial(_embed, embedder, transform)
    batches = {number: _batches(part, embedder.batch_size) for number, part in parts.items()}
    in_order = itertools.chain.from_iterable(batches.values())
    with keep_freed_pages(), single_threads(embedder.workers) as threads:
        results = _in_order(threads, embed, in_order, 2 * embedder.workers)
        for number, own in batches.items():
            shard = folder / _shard_file(number)
            rows: list[np.ndarray] = []
            reasons: dict[int, str] = {}
            position = number * SHARD
            for features, bad in itertools.islice(results, len(own)):
                reasons |= {position + row: reason for row, reason in bad.items()}
                position += len(features)
                rows.append(features)
                done(len(features))

            _write_reasons(shard, reasons)
            write_array(shard, np.concatenate(rows))


def _shard_file(number: int) -> str:
    return f'shard_{number:05d}.npy'


def _batches(paths: Sequence[str], size: int) -> list[Sequence[str]]:
    return [paths[start : start + size] for start in range(0, len(paths), size)]


def refuse_bad_images(folder: Path, on_bad_image: str) -> None:
    """Refuses the bad images of a finished stage, which may be of another setting.

    Raises:
        UserError: ``on_bad_image`` is ``'error'`` and there are some.
    """
    if on_bad_image != 'error':
        return
    bad = json.loads((folder / 'bad_images.json').read_text(encoding='utf-8'))
    reasons = {entry['path']: entry['reason'] for entry in bad}
    if reasons:
        raise UserError(f'{len(reasons)} images {_advice(reasons)}')


def _merge(
    folder: Path,
    shards: Sequence[Path],
    reasons: dict[int, str],
    image_paths: Sequence[Sequence[str]],
    columns: Sequence[int],
    positions: Mapping[str, int],
) -> None:
    """Writes the stage's results from its shards; ``reasons`` are those of images by position."""
    rows = np.array([[positions[paths[column]] for column in columns] for paths in image_paths])
    is_bad = np.isin(rows, list(reasons))
    bad = []
    for sample, view in np.argwhere(is_bad):
        path = _printable(image_paths[sample][columns[view]])
        bad.append(
            dict(
                sample=int(sample),
                path=path,
                reason=reasons[rows[sample, view]],
            )
        )

    unreadable = is_bad.any(axis=1)
    write_json(folder / 'bad_images.json', bad)
    write_array(folder / 'unreadable.npy', unreadable)
    _write_features(folder / RESULT, shards, rows, unreadable)


def time_images(
    paths: Sequence[str], embedder: ImageEncoder, most: int = 64, reader: Reader = _USUAL
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
    places = np.linspace(0, len(paths) - 1, min(most, len(paths))).astype(int)
    chosen = [paths[place] for place in np.unique(places)]
    # Small batches keep all workers busy.
    size = max(1, min(embedder.batch_size, len(chosen) // embedder.workers))
    embed = functools.partial(_embed, embedder, transform)
    with keep_freed_pages(), single_threads(embedder.workers) as threads:
        features, _ = embed(chosen[:1])
        start = time.perf_counter()
        for _ in _in_order(threads, embed, _batches(chosen, size), 2 * embedder.workers):
            pass
        seconds = time.perf_counter() - start

    return seconds / len(chosen), features.shape[1]


def _positions(image_paths: Sequence[Sequence[str]], columns: Sequence[int]) -> dict[str, int]:
    """Each image that is needed and its place in the shards, in the order of first use."""
    positions: dict[str, int] = {}
    for paths in image_paths:
        for column in columns:
            positions.setdefault(paths[column], len(positions))
    return positions


def _embed(
    embedder: ImageEncoder, transform: Transform, paths: Sequence[str]
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
    """The results in the items' order, at most ``ahead`` of them before they are asked for."""
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

    @functools.lru_cache(maxsize=64)
    def open_shard(shard: int) -> np.ndarray:
        return np.load(shards[shard], mmap_mode='r')

    n, v = rows.shape
    d = open_shard(0).shape[1]

    def gather(start: int) -> np.ndarray:
        end = start + _ROWS
        block = rows[start:end].ravel()
        shard_of = block // SHARD
        features = np.empty((len(block), d), np.float32)
        for shard in np.unique(shard_of):
            here = shard_of == shard
            row_in_shard = block[here] % SHARD
            features[here] = open_shard(shard)[row_in_shard]

        features = features.reshape(-1, v * d) / math.sqrt(v)
        features[unreadable[start:end]] = 0

        return features

    write_rows(path, (n, v * d), map(gather, range(0, n, _ROWS)))


def _write_reasons(shard: Path, reasons: Mapping[int, str]) -> None:
    """Writes beside a shard why images are bad, by position.

    An interrupted run may have left others.
    """
    file = shard.with_suffix('.json')
    if reasons:
        write_json(file, reasons)
    else:
        file.unlink(missing_ok=True)


def _read_reasons(shards: Sequence[Path]) -> dict[int, str]:
    """Why images are bad, by their position in all shards."""
    reasons: dict[int, str] = {}
    for shard in shards:
        file = shard.with_suffix('.json')
        if file.exists():
            own = json.loads(file.read_text(encoding='utf-8'))
            reasons |= {int(position): reason for position, reason in own.items()}
    return reasons


def _forget(shards: Sequence[Path], positions: Iterable[int]) -> None:
    """Removes the shards of images, so that a later run looks at them again."""
    for number in {position // SHARD for position in positions}:
        shards[number].unlink()
        shards[number].with_suffix('.json').unlink()


def _message(reasons: dict[int, str], paths: Sequence[str]) -> str:
    named = {}
    for position in sorted(reasons):
        named[_printable(paths[position])] = reasons[position]
    if len(reasons) == len(paths):
        return (
            f"none of the {len(paths)} images can be read: check the dataset's data_root and "
            f'data_prefix; first: {_first(named)}'
        )
    return f'{len(reasons)} of {len(paths)} images {_advice(named)}'


def _advice(reasons: dict[str, str]) -> str:
    which = 'all' if len(reasons) <= 5 else 'first'
    return (
        "cannot be read: repair them, or set adadedup.on_bad_image to 'keep' or 'drop'; "
        f'{which}: {_first(reasons)}'
    )


def _first(reasons: dict[str, str]) -> str:
    first = list(reasons.items())[:5]
    return '; '.join(f'{path} ({reason})' for path, reason in first)


def _printable(path: str) -> str:
    """The path with whatever is no text in it escaped."""
    return path.encode(errors='backslashreplace').decode()
