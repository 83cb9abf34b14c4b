"""The work of looking at pictures: the cells that the probe learns from, piece by piece."""

import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..base.cpu import default_workers, keep_freed_pages, single_threads
from ..base.files import atomic_open
from ..images import BadImage, Reader, read_file, read_pixels
from ..stages import Done, Shards, only_share
from .backbones import Backbone
from .cells import Cells, Grid, choose_cells, interpolate
from .pictures import Pictures

# Pictures per piece.
PIECE = 64
# Cells without object that are drawn in a grid of a picture, and in a grid of all pictures.
BACKGROUND = 48
MOST_BACKGROUND = 2_000_000
# Networks take multiples of this many pixels.
_MULTIPLE = 32
_GREY = 127
_MOST = 6e4  # of half precision


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

    def look(picture: int) -> list[tuple[Cells, np.ndarray]]:
        seen = look_at(pictures.paths[picture], backbone, reader, size)
        if seen is None:
            return []
        maps, place = seen
        boxes, labels = pictures.objects(picture)
        generator = np.random.default_rng([zlib.crc32(b'cells'), picture])
        result = []
        for grid in grids:
            cells = choose_cells(
                boxes * np.float32(place.scale),
                labels,
                grid,
                place.height,
                place.width,
                background,
                generator,
            )
            features = interpolate(maps, backbone.strides, cells.x, cells.y)
            result.append((cells, features.clip(-_MOST, _MOST).astype(np.float16)))
        return result

    def compute(folder: Path, pieces: Sequence[int], done: Done) -> None:
        with keep_freed_pages(), single_threads(default_workers()) as threads:
            for piece in pieces:
                own = range(starts[piece], starts[piece] + sizes[piece])
                looked = list(threads.map(look, own))
                done(len(own))
                _write(folder / files[piece], own, looked, len(grids), sum(backbone.channels))

    return Shards(files, sizes, compute, only_share, result='', label='probe', unit='img')


def cell_file(number: int) -> str:
    """The name of a piece's file."""
    return f'cells_{number:05d}.npz'


def look_at(
    path: str, backbone: Backbone, reader: Reader, size: int
) -> tuple[list[np.ndarray], Input] | None:
    """The maps of a picture, (h, w, c) float32 each, and its place in them; None if unreadable."""
    try:
        place = read_input(path, reader, size, square=backbone.side is not None)
    except BadImage:
        return None
    maps = backbone.maps(place.pixels[None])
    return [values[0] for values in maps], place


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


def _write(
    file: Path,
    pictures: Sequence[int],
    looked: Sequence[Sequence[tuple[Cells, np.ndarray]]],
    grids: int,
    channels: int,
) -> None:
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
