"""The work of looking at pictures: the cells that the probe learns from, piece by piece."""

import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from ..base.cpu import default_workers, keep_freed_pages, single_threads
from ..base.files import atomic_open
from ..images import BadImage, Reader, read_file, read_pixels
from ..stages import Done, Shards, only_share
from .backbones import Backbone
from .cells import Cells, Grid, Map, choose_cells, interpolate
from .pictures import Pictures

# Pictures per piece.
PIECE = 64
# Cells without object that are drawn in a grid of a picture, and in a grid of all pictures.
BACKGROUND = 48
MOST_BACKGROUND = 2_000_000
# Cells with objects in a usual picture, and what else than features is noted of a cell, in bytes.
_OBJECT_CELLS = 40
_REST = 32
# Networks take multiples of this many pixels.
_MULTIPLE = 32
_GREY = 127
_MOST = 6e4  # of half precision
# Pictures that a device other than a CPU looks at together.
_BATCH = 16

Found = TypeVar('Found')
# Some cells of a grid, and their (n, D) float16 features.
GridCells = tuple[Cells, np.ndarray]


@dataclass(frozen=True)
class Input:
    """A picture as a network sees it.

    Attributes:
        pixels: (H, W, 3) uint8, RGB, grey to the right of the picture and below it.
        height: of the picture in it.
        width: likewise.
        scale: pixels of the input per pixel of the picture.
    """

    pixels: np.ndarray
    height: int
    width: int
    scale: float


@dataclass(frozen=True)
class GridRows:
    """n cells of one grid, of several pictures.

    Attributes:
        features: (n, D) float16, without the constant channel.
        picture: (n,) int64.
        label: (n,) int32, see ``Cells``.
        weight: (n,) float32, likewise.
        box: (n, 4) float32, likewise.
    """

    features: np.ndarray
    picture: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    box: np.ndarray


def read_input(path: str, reader: Reader, size: int, square: bool = False) -> Input:
    """Reads a picture, as the training reads it, as a network's input.

    Args:
        path: the file.
        reader: of the training.
        size: of the picture's longer side in the input, in pixels.
        square: whether the input is to be a square of that size.

    Raises:
        BadImage: the training cannot read it.
    """
    pixels = read_pixels(read_file(path), reader)[..., ::-1]
    rows, columns = pixels.shape[:2]
    scale = size / max(rows, columns)
    height = max(1, round(rows * scale))
    width = max(1, round(columns * scale))
    smoothing = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(np.ascontiguousarray(pixels), (width, height), interpolation=smoothing)
    shape = (size, size) if square else (_whole(height), _whole(width))
    padded = np.full((*shape, 3), _GREY, np.uint8)
    padded[:height, :width] = resized
    return Input(padded, height, width, scale)


def _whole(side: int) -> int:
    """The next multiple that networks take."""
    return -(-side // _MULTIPLE) * _MULTIPLE


def cell_shards(
    pictures: Pictures, backbone: Backbone, reader: Reader, size: int, grids: Sequence[Grid]
) -> Shards:
    """The work of a stage that gathers the cells of all pictures.

    Every piece is ``cells_<number>.npz``, which ``read_cells`` reads. Pictures that cannot be read
    have no cells. Which cells are drawn depends on the picture's place alone.

    Args:
        pictures: see ``Pictures``.
        backbone: see ``Backbone``.
        reader: how the training reads the images.
        size: see ``read_input``.
        grids: see ``Grid``.
    """
    starts = range(0, len(pictures), PIECE)
    files = [cell_file(number) for number in range(len(starts))]
    sizes = [min(PIECE, len(pictures) - start) for start in starts]
    background = min(BACKGROUND, max(1, MOST_BACKGROUND // max(1, len(pictures))))

    def look(picture: int, maps: Sequence[Map], place: Input) -> list[GridCells]:
        boxes, labels = pictures.objects(picture)
        in_input = boxes * np.float32(place.scale)
        generator = np.random.default_rng([zlib.crc32(b'cells'), picture])
        return cells_of_picture(
            maps,
            backbone.strides,
            [
                choose_cells(
                    in_input, labels, grid, place.height, place.width, background, generator
                )
                for grid in grids
            ],
        )

    def compute(folder: Path, pieces: Sequence[int], done: Done) -> None:
        with keep_freed_pages(), single_threads(default_workers()) as threads:
            for piece in pieces:
                own = range(starts[piece], starts[piece] + sizes[piece])
                looked = look_at_all(own, pictures.paths, backbone, reader, size, look, threads)
                done(len(own))
                write_cells(folder / files[piece], own, looked, len(grids), sum(backbone.channels))

    return Shards(files, sizes, compute, only_share, result='', label='probe', unit='img')


def cell_file(number: int) -> str:
    """The name of a piece's file."""
    return f'cells_{number:05d}.npz'


def cells_of_picture(
    maps: Sequence[Map], strides: Sequence[int], cells: Sequence[Cells]
) -> list[GridCells]:
    """The cells of each grid with what the maps of their picture say there, (n, D) float16.

    All grids are interpolated at once, so that a device is asked once.
    """
    x = np.concatenate([own.x for own in cells])
    y = np.concatenate([own.y for own in cells])
    features = interpolate(maps, strides, x, y).clip(-_MOST, _MOST).astype(np.float16)
    ends = np.cumsum([len(own.x) for own in cells])
    return list(zip(cells, np.split(features, ends[:-1]), strict=True))


def look_at(
    path: str, backbone: Backbone, reader: Reader, size: int
) -> tuple[list[Map], Input] | None:
    """The maps of a picture, (h, w, c) float32 each, and its place in them; None if unreadable."""
    try:
        place = read_input(path, reader, size, square=backbone.side is not None)
    except BadImage:
        return None
    maps = backbone.maps(place.pixels[None])
    return [values[0] for values in maps], place


def bytes_of_cells(pictures: int, channels: int, grids: int) -> int:
    """About how many bytes the cells of some pictures take on disk.

    Args:
        pictures: how many.
        channels: of all maps together.
        grids: number of grids.
    """
    background = min(BACKGROUND, max(1, MOST_BACKGROUND // max(1, pictures)))
    cells = grids * background + _OBJECT_CELLS
    return pictures * cells * (2 * channels + _REST)


def time_pictures(
    paths: Sequence[str], backbone: Backbone, reader: Reader, size: int, most: int = 16
) -> float:
    """Seconds that looking at a picture takes here on average, all workers together.

    Args:
        paths: pictures, of which some at equal distances are looked at.
        backbone: see ``Backbone``.
        reader: how the training reads the images.
        size: see ``read_input``.
        most: how many are looked at.
    """
    places = np.linspace(0, len(paths) - 1, min(most, len(paths))).astype(int)
    chosen = [paths[place] for place in np.unique(places)]

    def look(path: str) -> None:
        look_at(path, backbone, reader, size)

    with keep_freed_pages(), single_threads(default_workers()) as threads:
        look(chosen[0])  # Loads the network before the clock starts.
        start = time.perf_counter()
        list(threads.map(look, chosen))
        seconds = time.perf_counter() - start
    return seconds / len(chosen)


def look_at_all(
    chosen: Sequence[int],
    paths: Sequence[str],
    backbone: Backbone,
    reader: Reader,
    size: int,
    work: Callable[[int, Sequence[Map], Input], Found],
    threads: ThreadPoolExecutor,
) -> list[Found | None]:
    """What some work makes of the maps of pictures; None for those that cannot be read.

    On a CPU threads look at a picture each; other devices get pictures of a shape together.

    Args:
        chosen: indices of the pictures.
        paths: of all pictures.
        backbone: see ``Backbone``.
        reader: how the images are read.
        size: see ``read_input``.
        work: takes an index, the (h, w, c) maps and the picture's place in them.
        threads: that do it.
    """

    def read(picture: int) -> Input | None:
        try:
            return read_input(paths[picture], reader, size, square=backbone.side is not None)
        except BadImage:
            return None

    def look(batch: Sequence[int]) -> list[Found]:
        own = [inputs[number] for number in batch]
        maps = backbone.maps(np.stack([place.pixels for place in own]))
        found = []
        for index, number in enumerate(batch):
            of_picture = [values[index] for values in maps]
            found.append(work(chosen[number], of_picture, own[index]))
        return found

    read_inputs = list(threads.map(read, chosen))
    inputs = {number: place for number, place in enumerate(read_inputs) if place is not None}
    at_once = 1 if getattr(backbone, 'device', 'cpu') == 'cpu' else _BATCH
    batches = _batches(inputs, at_once)
    result: list[Found | None] = [None] * len(chosen)
    for batch, found in zip(batches, threads.map(look, batches), strict=True):
        for number, item in zip(batch, found, strict=True):
            result[number] = item
    return result


def _batches(inputs: Mapping[int, Input], most: int) -> list[list[int]]:
    """Inputs of the same shape together."""
    of_shape: dict[tuple[int, ...], list[int]] = {}
    for number, place in inputs.items():
        of_shape.setdefault(place.pixels.shape, []).append(number)
    batches = []
    for numbers in of_shape.values():
        batches += [numbers[start : start + most] for start in range(0, len(numbers), most)]
    return batches


def write_cells(
    file: Path,
    pictures: Sequence[int],
    looked: Sequence[Sequence[GridCells] | None],
    grids: int,
    channels: int,
) -> None:
    """Writes a piece, which ``read_cells`` reads.

    Args:
        file: a name by ``cell_file``.
        pictures: their indices.
        looked: the cells of each grid of every picture; None for an unreadable one.
        grids: G.
        channels: D.
    """
    arrays = {}
    for grid in range(grids):
        features = [np.empty((0, channels), np.float16)]
        picture = [np.empty(0, np.int64)]
        cells = [Cells(*(np.empty(0, np.float32),) * 4, np.empty((0, 4), np.float32))]
        for number, seen in zip(pictures, looked, strict=True):
            if seen:
                own, own_features = seen[grid]
                cells.append(own)
                features.append(own_features)
                picture.append(np.full(len(own_features), number))
        arrays[f'features_{grid}'] = np.concatenate(features)
        arrays[f'picture_{grid}'] = np.concatenate(picture)
        labels = np.concatenate([item.label for item in cells])
        arrays[f'label_{grid}'] = labels.astype(np.int32)
        arrays[f'weight_{grid}'] = np.concatenate([item.weight for item in cells])
        arrays[f'box_{grid}'] = np.concatenate([item.box for item in cells])

    with atomic_open(file) as stream:
        np.savez(stream, **arrays)


def read_cells(folder: Path, pieces: int, grid: int) -> Iterator[GridRows]:
    """The cells of a grid, piece by piece."""
    for number in range(pieces):
        with np.load(folder / cell_file(number)) as arrays:
            yield GridRows(
                features=arrays[f'features_{grid}'],
                picture=arrays[f'picture_{grid}'],
                label=arrays[f'label_{grid}'],
                weight=arrays[f'weight_{grid}'],
                box=arrays[f'box_{grid}'],
            )
