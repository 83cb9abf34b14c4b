"""Cells, sums, heads and detections of the probe, from a sample of images to COCO's 118,287.

    python benchmarks/probe.py [--quick] [--selections S]

Maps are random ones of EfficientNet-Lite0's shapes at 640 pixels, boxes are seven an image, of 80
classes and of COCO's sizes. Everything is measured on some images and multiplied. References are
the plain ways: all cells instead of drawn ones, and products of all rows for each selection.
"""

import argparse
import functools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from figures import Figure, parse, peak_memory, save

from adadedup_mm.base.cpu import default_workers, keep_freed_pages, single_threads
from adadedup_mm.probe.backbones import OfflineBackbone
from adadedup_mm.probe.cells import GRIDS, Cells, choose_cells, interpolate
from adadedup_mm.probe.collect import (
    GridCells,
    GridRows,
    cell_file,
    cells_of_picture,
    read_cells,
    write_cells,
)
from adadedup_mm.probe.detect import Detections, Detector, Head, with_constant
from adadedup_mm.probe.fit import class_targets, cross_fitted_losses, fit_heads
from adadedup_mm.probe.precision import Truth
from adadedup_mm.probe.sums import sum_cells

COCO = 118_287
CLASSES, OBJECTS = 80, 7
STRIDES, CHANNELS = (4, 8, 16, 32), (24, 40, 112, 320)
D = sum(CHANNELS)
HEIGHT, WIDTH = 480, 640
# As many cells without object as the probe draws of a set of this size, and as a small one has.
BACKGROUND = 16
RATIOS = (0.1, 0.2, 0.3, 0.5, 0.7)
PIECE = 64
VALIDATION = 2000
# Seconds are counted of all cores together, minutes are said of this many.
CORES = 2


def make_maps(generator: np.random.Generator, height: int, width: int) -> list[np.ndarray]:
    """(h, w, c) float32, not negative."""
    return [
        np.abs(generator.standard_normal((height // stride, width // stride, channels), np.float32))
        for stride, channels in zip(STRIDES, CHANNELS, strict=True)
    ]


def make_boxes(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(7, 4) float32 boxes and (7,) int32 labels; sides around 60 pixels, from 10 to 400."""
    sides = np.exp(generator.normal(4.1, 0.9, (OBJECTS, 2))).clip(10, 400)
    corner = generator.random((OBJECTS, 2)) * ([WIDTH, HEIGHT] - sides)
    boxes = np.hstack([corner, corner + sides]).astype(np.float32)
    return boxes, generator.integers(0, CLASSES, OBJECTS, np.int32)


def seconds_of(work: Callable[[], object]) -> float:
    """Of all cores together, which other work on the machine changes little."""
    start = time.process_time()
    work()
    return time.process_time() - start


def picture_cells(picture: int, background: int = BACKGROUND) -> list[Cells]:
    """The cells that are chosen in a picture."""
    generator = np.random.default_rng(picture)
    boxes, labels = make_boxes(generator)
    return [
        choose_cells(boxes, labels, grid, HEIGHT, WIDTH, background, generator) for grid in GRIDS
    ]


def write_pieces(folder: Path, maps: list[list[np.ndarray]], images: int) -> None:
    """The cells of some images, as the probe keeps them."""

    def look(picture: int) -> list[GridCells]:
        return cells_of_picture(maps[picture % len(maps)], STRIDES, picture_cells(picture))

    with keep_freed_pages(), single_threads(default_workers()) as threads:
        for number, start in enumerate(range(0, images, PIECE)):
            own = range(start, min(start + PIECE, images))
            write_cells(
                folder / cell_file(number), own, list(threads.map(look, own)), len(GRIDS), D
            )


def all_cells(maps: list[list[np.ndarray]], images: int) -> None:
    """The plain way: what the maps say at every cell of every grid."""
    for picture in range(images):
        for cells in picture_cells(picture, HEIGHT * WIDTH):
            interpolate(maps[picture % len(maps)], STRIDES, cells.x, cells.y)


def make_selections(images: int, count: int) -> np.ndarray:
    """(S, N) bool, nested ones of several strategies: each ranks images in another way."""
    generator = np.random.default_rng(0)
    selections = []
    while len(selections) < count:
        rank = generator.permutation(images)
        selections += [rank < ratio * images for ratio in RATIOS]
    return np.array(selections[:count])


def plain_sums(read: Callable, kept: np.ndarray) -> None:
    """The sums of each selection from its own rows, and of all images."""
    for chosen in [np.ones_like(kept[0]), *kept]:
        for grid in range(len(GRIDS)):
            for rows in read(grid):
                add_plain(rows, chosen[rows.picture])


def add_plain(rows: GridRows, own: np.ndarray) -> None:
    """Products of some of the cells, for classes and for boxes."""
    features = with_constant(rows.features[own].astype(np.float32))
    targets = class_targets(rows.label[own], CLASSES)
    objects = rows.label[own] >= 0
    sum_cells(features, rows.weight[own], targets)
    equal = np.ones(int(objects.sum()), np.float32)
    sum_cells(features[objects], equal, rows.box[own][objects])


def make_heads(count: int, classes: int) -> list[Head]:
    """Heads that find some boxes by chance."""
    generator = np.random.default_rng(0)
    return [
        Head(
            classes=tuple(make_weights(generator, classes, 1e-4) for _ in GRIDS),
            boxes=tuple(make_weights(generator, 4, 1e-2) for _ in GRIDS),
        )
        for _ in range(count)
    ]


def make_weights(generator: np.random.Generator, outputs: int, scale: float) -> np.ndarray:
    """(D + 1, outputs) float32."""
    return scale * generator.standard_normal((D + 1, outputs), np.float32)


def measure_precision(pictures: int) -> float:
    """Seconds that a selection's detections in some pictures take to be compared with objects."""
    generator = np.random.default_rng(0)
    objects = [make_boxes(generator) for _ in range(pictures)]
    truth = Truth([boxes for boxes, _ in objects], [labels for _, labels in objects], CLASSES)
    found = []
    for boxes, labels in objects:
        others, other_labels = zip(*[make_boxes(generator) for _ in range(6)], strict=True)
        near = boxes + generator.normal(0, 4, (OBJECTS, 1)).astype(np.float32)
        everything = np.concatenate([near, *others])
        kinds = np.concatenate([labels, *other_labels]).astype(np.int64)
        scores = generator.random(len(kinds), np.float32)
        found.append(Detections(everything, scores, kinds))
    blocks = np.array_split(np.arange(pictures), 10)
    return seconds_of(lambda: truth.precision(found, blocks))


class Report:
    """Prints what is measured and keeps it."""

    def __init__(self) -> None:
        self.figures: list[Figure] = []

    def minutes(self, name: str, seconds: float, images: int, target: float | None = None) -> None:
        """Seconds for some images, multiplied to COCO's size."""
        minutes = seconds / images * COCO / 60 / CORES
        milliseconds = 1e3 * seconds / images
        print(f'{name}: {milliseconds:.2f} core-ms an image, {minutes:.1f} min', flush=True)
        reference = f'{COCO:,} images on {CORES} cores, from {images:,}'
        self.figures.append(
            Figure(f'probe, {name}: minutes', reference, minutes, target, True, '{:.1f}')
        )

    def ratio(self, name: str, reference: str, value: float) -> None:
        """How many times as long the reference takes."""
        print(f'{name}: {value:.2f} x as fast as {reference}', flush=True)
        self.figures.append(Figure(f'probe, {name}: speed', reference, value))


def measure_learning(report: Report, images: int, selections: int, folder: Path) -> None:
    """Cells, sums and heads."""
    generator = np.random.default_rng(0)
    maps = [make_maps(generator, HEIGHT, WIDTH) for _ in range(4)]
    cells = seconds_of(lambda: write_pieces(folder, maps, images))
    report.minutes('cells at 640 pixels from given maps, written', cells, images)
    few = max(8, images // 64)
    every = seconds_of(lambda: all_cells(maps, few))
    report.ratio('cells', 'all cells', every / few / (cells / images))

    pieces = -(-images // PIECE)
    read = functools.partial(read_cells, folder, pieces)
    size = sum(file.stat().st_size for file in folder.iterdir()) / images * COCO / 1e9
    print(f'cells on disk: {size:.1f} GB')
    reading = seconds_of(lambda: [sum(len(rows.features) for rows in read(g)) for g in range(3)])
    report.minutes('reading the cells once', reading, images)

    kept = make_selections(images, selections)
    one = per_image(fit, folder, pieces, kept[-1:])
    report.minutes('sums of all images and of one selection', one * images, images)
    many = per_image(fit, folder, pieces, kept)
    report.minutes(f'sums of {selections} selections', many * images, images)
    plain = per_image(plain_sums, folder, pieces, kept)
    report.ratio(f'sums of {selections} selections', 'each by itself', plain / many)
    report.minutes('cells, and sums of a selection', cells + one * images, images, target=15)
    losses = per_image(cross_fit, folder, pieces, kept[RATIOS.index(0.5)])
    report.minutes('cross-fitted losses, half of the images learned from', losses * images, images)


def per_image(work: Callable, folder: Path, pieces: int, kept: np.ndarray) -> float:
    """Seconds for each further image: without what heads take, however many images there are."""
    some = seconds_of(lambda: work(functools.partial(read_cells, folder, pieces // 4), kept))
    every = seconds_of(lambda: work(functools.partial(read_cells, folder, pieces), kept))
    return (every - some) / (PIECE * (pieces - pieces // 4))


def fit(read: Callable, kept: np.ndarray) -> None:
    """Sums and heads of all selections."""
    fit_heads(read, len(GRIDS), D, CLASSES, kept)


def cross_fit(read: Callable, learned: np.ndarray) -> None:
    """Losses of all images."""
    cross_fitted_losses(read, len(GRIDS), D, CLASSES, learned)


def measure_looking(report: Report, images: int, selections: int) -> None:
    """The backbone, detections and their precision."""
    backbone = OfflineBackbone()
    generator = np.random.default_rng(0)
    for side in (320, 640):
        pixels = generator.integers(0, 256, (1, side * 3 // 4, side, 3), np.uint8)
        backbone.maps(pixels)
        with keep_freed_pages(), single_threads(default_workers()) as threads:
            work = functools.partial(threads.map, backbone.maps, [pixels] * images)
            seconds = seconds_of(lambda work=work: list(work()))
        report.minutes(f'backbone of {side} pixels', seconds, images)

        maps = make_maps(generator, -(-side * 3 // 128) * 32, side)
        detector = Detector(make_heads(selections, CLASSES), GRIDS, CHANNELS, STRIDES)
        few = max(2, images // 16)
        with keep_freed_pages(), single_threads(default_workers()) as threads:
            work = functools.partial(
                threads.map, lambda _, d=detector, m=maps, s=side: d(m, s * 3 // 4, s), range(few)
            )
            seconds = seconds_of(lambda work=work: list(work()))
        name = f'{selections} heads of {CLASSES} classes in {VALIDATION:,} images of {side} pixels'
        print(f'{name}: {seconds / few * VALIDATION / 60 / CORES:.1f} min, from {few}', flush=True)

    pictures = 4 * images
    seconds = measure_precision(pictures) / pictures * VALIDATION
    print(
        f'precision of a selection in {VALIDATION:,} images: {seconds:.1f} core-s, from {pictures}'
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--selections', type=int, default=15, help='that heads learn from')
    arguments = parse(__doc__, parser)
    images = 256 if arguments.quick else 1024
    report = Report()
    with tempfile.TemporaryDirectory() as folder:
        measure_learning(report, images, arguments.selections, Path(folder))
    measure_looking(report, 16 if arguments.quick else 64, arguments.selections)
    report.figures.append(
        Figure('probe: peak memory', 'the whole process', peak_memory() / 1e3, 4, True, '{:.1f} GB')
    )
    print(f'peak memory: {peak_memory():.0f} MB')
    save(report.figures, arguments.figures)


if __name__ == '__main__':
    main()
