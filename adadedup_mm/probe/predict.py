"""The work of looking for objects with many heads: every picture is looked at once, in pieces."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..base.cpu import default_workers, keep_freed_pages, single_threads
from ..base.files import atomic_open
from ..images import Reader
from ..stages import Done, Shards, only_share
from .backbones import Backbone
from .cells import GRIDS, Map
from .collect import Input, look_at_all
from .detect import Detections, Detector, Head
from .pictures import Pictures

# Pictures per piece.
PIECE = 32


def detection_shards(
    pictures: Pictures,
    chosen: np.ndarray,
    backbone: Backbone,
    reader: Reader,
    size: int,
    heads: Sequence[Sequence[Head]],
    fold: np.ndarray,
) -> Shards:
    """The work of a stage that notes what heads find in pictures.

    Every piece is ``detections_<number>.npz``, which ``read_detections`` reads; boxes are in pixels
    of the pictures.

    Args:
        pictures: see ``Pictures``.
        chosen: (n,) int64, which of them are looked at.
        backbone: see ``Backbone``.
        reader: how the images are read.
        size: see ``read_input``.
        heads: of each fold S heads.
        fold: (n,) int64, whose heads look at each picture that is looked at.
    """
    parts = [
        np.arange(len(chosen))[start : start + PIECE] for start in range(0, len(chosen), PIECE)
    ]
    files = [_file(number) for number in range(len(parts))]

    def compute(folder: Path, pieces: Sequence[int], done: Done) -> None:
        device = getattr(backbone, 'device', 'cpu')
        detectors = [
            Detector(of_fold, GRIDS, backbone.channels, backbone.strides, device)
            for of_fold in heads
        ]

        fold_of_picture = dict(zip(chosen.tolist(), fold.tolist(), strict=True))

        def look(picture: int, maps: Sequence[Map], shown: Input) -> list[Detections]:
            detector = detectors[fold_of_picture[picture]]
            found = detector(maps, shown.height, shown.width)
            return [_in_pixels(item, shown.scale) for item in found]

        nothing = [_nothing() for _ in heads[0]]
        with keep_freed_pages(), single_threads(default_workers()) as threads:
            for piece in pieces:
                own = chosen[parts[piece]].tolist()
                looked = look_at_all(own, pictures.paths, backbone, reader, size, look, threads)
                done(len(own))
                _write(folder / files[piece], [found or nothing for found in looked])

    sizes = [len(part) for part in parts]
    return Shards(files, sizes, compute, only_share, result='', label='validation', unit='img')


def read_detections(folder: Path, pictures: int, head: int) -> list[Detections]:
    """What a head found in each of the pictures that were looked at."""
    found = []
    for number in range(-(-pictures // PIECE)):
        with np.load(folder / _file(number)) as arrays:
            ends = arrays[f'ends_{head}']
            boxes = np.split(arrays[f'boxes_{head}'], ends[:-1])
            scores = np.split(arrays[f'scores_{head}'], ends[:-1])
            labels = np.split(arrays[f'labels_{head}'], ends[:-1])
        found += [Detections(*item) for item in zip(boxes, scores, labels, strict=True)]
    return found


def _file(number: int) -> str:
    return f'detections_{number:05d}.npz'


def _nothing() -> Detections:
    return Detections(
        boxes=np.empty((0, 4), np.float32),
        scores=np.empty(0, np.float32),
        labels=np.empty(0, np.int64),
    )


def _in_pixels(found: Detections, scale: float) -> Detections:
    boxes = (found.boxes / scale).astype(np.float32)
    return Detections(boxes, found.scores, found.labels)


def _write(file: Path, found: Sequence[Sequence[Detections]]) -> None:
    """Writes what each of S heads found in the pictures of a piece."""
    arrays = {}
    for head in range(len(found[0])):
        own = [item[head] for item in found]
        arrays[f'ends_{head}'] = np.cumsum([len(item.scores) for item in own])
        arrays[f'boxes_{head}'] = np.concatenate([item.boxes for item in own])
        arrays[f'scores_{head}'] = np.concatenate([item.scores for item in own])
        arrays[f'labels_{head}'] = np.concatenate([item.labels for item in own])
    with atomic_open(file) as stream:
        np.savez(stream, **arrays)
