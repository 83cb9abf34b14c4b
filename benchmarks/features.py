"""Decoding and embedding, each against the usual loop: one image at a time, PIL, the default transform, float32.

    python benchmarks/features.py [--quick] [--rounds 3] [--images FOLDER ...]

Without ``--images``, images of the sizes of COCO and nuScenes are drawn. CLIP has random weights, which cost the same.
Methods alternate, and ratios are medians over the rounds. Ratios are of images per core-second, which count the time
that this process computes: what else runs on the machine matters less to them. The usual loop runs on one thread,
because it does less per core-second on more of them.
"""

import argparse
import contextlib
import functools
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import timm
import torch
from PIL import Image
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from adadedup_mm.features import (
    Embedder,
    OfflineEmbedder,
    OpenCLIPEmbedder,
    decode,
    extract_shards,
    merge_shards,
    plain_decode,
)

Preprocess = Callable[[Image.Image], torch.Tensor]
PRECISIONS = ('fp32', 'bf16')


def main() -> None:
    """Runs all methods in turn and prints two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--quick', action='store_true', help='fewer images, one round')
    parser.add_argument('--rounds', type=int, default=3, help='runs of each method')
    parser.add_argument('--images', type=Path, nargs='+', default=[], help='folders with JPEGs, one set each')
    args = parser.parse_args()
    logging.disable()  # open_clip warns of random weights
    rounds, count = (1, 96) if args.quick else (args.rounds, 384)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sets = {images.name: sorted(map(str, images.rglob('*.jpg')))[:count] for images in args.images} or {
            f'{width}x{height}': draw(folder / str(width), count, height, width)
            for width, height in ((640, 480), (1600, 900))}
        clip, clip_file = random_clip(folder)
        lite = OfflineEmbedder()._load()[0].eval()
        usual: dict[str, tuple[nn.Module, Preprocess]] = {
            'CLIP ViT-B-32': (clip, open_clip.image_transform(224, is_train=False)),
            'offline': (lite, timm.data.create_transform(**timm.data.resolve_model_data_config(lite)))}
        embedders: dict[str, list[Embedder]] = {
            'CLIP ViT-B-32': [OpenCLIPEmbedder('ViT-B-32', clip_file, precision=precision) for precision in PRECISIONS],
            'offline': [OfflineEmbedder(precision) for precision in PRECISIONS]}
        print(f'{"decoding":36}{"usual":>9}{"ours":>9}{"ratio":>8}   feature cosine, mean and minimum')
        for network, (_, preprocess) in usual.items():
            for name, paths in sets.items():
                row = decoding(paths[:count // 4], preprocess, embedders[network][0], rounds)
                print(f'{f"{network}, {name}":36}{row}')
        print(f'\n{"files to features":36}{"img/s":>9}{"per core":>9}{"ratio":>8}   feature cosine, mean and minimum')
        for network, size in (('CLIP ViT-B-32', count // 6), ('offline', count)):
            paths = next(iter(sets.values()))[:size]
            for method, row in end_to_end(paths, *usual[network], embedders[network], rounds).items():
                print(f'{f"{network}, {method}":36}{row}')


def draw(folder: Path, count: int, height: int, width: int) -> list[str]:
    """Writes JPEGs with edges and texture, in about the bytes of photos of their size."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    paths = []
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 255, (6, 9, 3), dtype=np.uint8))
        image = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
        for _ in range(60):
            top, left = rng.integers(height - 20), rng.integers(width - 20)
            bottom, right = top + rng.integers(5, height // 4), left + rng.integers(5, width // 4)
            patch = image[top:bottom, left:right]
            patch += rng.integers(-60, 60, 3, dtype=np.int16)
            if rng.random() < .3:
                patch += rng.integers(-30, 30, patch.shape, dtype=np.int16)
        paths.append(str(folder / f'{i:04d}.jpg'))
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=85)
    return paths


def random_clip(folder: Path) -> tuple[nn.Module, str]:
    """ViT-B-32's image side with random weights, and a file that holds them."""
    torch.manual_seed(0)
    network = open_clip.create_model('ViT-B-32').visual.eval()
    torch.save({f'visual.{name}': value for name, value in network.state_dict().items()}, folder / 'clip.pt')
    return network, str(folder / 'clip.pt')


def decoding(paths: Sequence[str], preprocess: Preprocess, embedder: Embedder, rounds: int) -> str:
    """A row: images per core-second to the network's input, and what the shortcut does to the features."""
    transform = embedder.transform
    usual, ours = [], []
    with one_thread():
        for _ in range(rounds):
            usual.append(timed(lambda: [preprocess(Image.open(path)) for path in paths], len(paths))[2])
            ours.append(timed(lambda: [decode(path, transform) for path in paths], len(paths))[2])
    fast, plain = (np.concatenate([embedder.encode(read(path, transform)[None]) for path in paths])
                   for read in (decode, plain_decode))
    speeds = f'{statistics.median(usual):9.0f}{statistics.median(ours):9.0f}{ratio(ours, usual):8.2f}'
    return speeds + cosine(fast, plain)


def end_to_end(paths: Sequence[str], network: nn.Module, preprocess: Preprocess, embedders: Sequence[Embedder],
               rounds: int) -> dict[str, str]:
    """Rows by method: images per second on all cores and per core-second."""
    methods = {'usual': functools.partial(one_by_one, paths, network, preprocess)} | {
        embedder.precision: functools.partial(staged, paths, embedder) for embedder in embedders}
    features: dict[str, np.ndarray] = {}
    wall: dict[str, list[float]] = {name: [] for name in methods}
    core: dict[str, list[float]] = {name: [] for name in methods}
    for number in range(rounds + 1):
        for name, method in methods.items():
            features[name], *speeds = timed(method, len(paths))
            if number:  # the first one warms up
                wall[name].append(speeds[0])
                core[name].append(speeds[1])
    return {name: f'{statistics.median(wall[name]):9.1f}{statistics.median(core[name]):9.1f}'
                  f'{ratio(core[name], core["usual"]):8.2f}' + cosine(features[name], features['usual'])
            for name in methods}


@torch.inference_mode()
def one_by_one(paths: Sequence[str], network: nn.Module, preprocess: Preprocess) -> np.ndarray:
    """The usual loop."""
    with one_thread():
        features = [network(preprocess(Image.open(path))[None]) for path in paths]
    return nn.functional.normalize(torch.cat(features)).numpy()


def staged(paths: Sequence[str], embedder: Embedder) -> np.ndarray:
    """The package's stage."""
    with tempfile.TemporaryDirectory() as folder:
        images = [(path,) for path in paths]
        extract_shards(images, ('image',), 'front', embedder, Path(folder))
        merge_shards(images, ('image',), 'front', Path(folder))
        return np.load(Path(folder) / 'features.npy')


def timed(function: Callable[[], Any], count: int) -> tuple[Any, float, float]:
    """The result, images per second, and images per core-second."""
    wall, core = time.perf_counter(), time.process_time()
    result = function()
    return result, count / (time.perf_counter() - wall), count / (time.process_time() - core)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median over the rounds."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def cosine(a: np.ndarray, b: np.ndarray) -> str:
    """Mean and minimum over the images, as text."""
    cosines = (a * b).sum(axis=1)
    return f'{cosines.mean():12.6f} {cosines.min():.6f}'


if __name__ == '__main__':
    main()
