"""Decoding and embedding, each against the usual loop.

The usual loop takes one image at a time, PIL, the default transform and float32.

    python benchmarks/features.py [--quick] [--rounds 3] [--images FOLDER ...]

Without ``--images``, images of the sizes of COCO and nuScenes are drawn. CLIP has random weights,
which cost the same. Methods alternate, and ratios are medians over the rounds. Ratios are of images
per core-second, which count the time that this process computes: what else runs on the machine
matters less to them. The usual loop runs on one thread, because it does less per core-second on
more of them.
"""

import argparse
import contextlib
import functools
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import timm
import torch
from figures import Figure, parse, save
from PIL import Image
from torch import nn

from adadedup_mm.features import (
    Embedder,
    OfflineEmbedder,
    OpenCLIPEmbedder,
    decode,
    feature_shards,
    plain_decode,
)
from adadedup_mm.stages import StageStore

Preprocess = Callable[[Image.Image], torch.Tensor]
PRECISIONS = ('fp32', 'bf16')
CLIP, LITE = 'CLIP ViT-B-32', 'offline'
# What is asked for in times the speed of the usual loop.
DECODING = {'640x480': 1.8, '1600x900': 4}
END_TO_END = {(CLIP, 'fp32'): 1.7, (CLIP, 'bf16'): 5, (LITE, 'fp32'): 2.2, (LITE, 'bf16'): 3}


def main() -> None:
    """Runs all methods in turn and prints two tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--rounds', type=int, default=3, help='runs of each method')
    parser.add_argument(
        '--images', type=Path, nargs='+', default=[], help='folders with JPEGs, one set each'
    )
    args = parse(__doc__, parser)
    logging.disable()  # open_clip warns of random weights
    rounds, count = (1, 96) if args.quick else (args.rounds, 384)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sets = {
            images.name: sorted(map(str, images.rglob('*.jpg')))[:count] for images in args.images
        } or {
            f'{width}x{height}': draw(folder / str(width), count, height, width)
            for width, height in ((640, 480), (1600, 900))
        }
        clip, clip_file = random_clip(folder)
        lite = OfflineEmbedder()._load()[0].eval()
        usual: dict[str, tuple[nn.Module, Preprocess]] = {
            CLIP: (clip, open_clip.image_transform(224, is_train=False)),
            LITE: (lite, timm.data.create_transform(**timm.data.resolve_model_data_config(lite))),
        }
        embedders: dict[str, list[Embedder]] = {
            CLIP: [
                OpenCLIPEmbedder('ViT-B-32', clip_file, precision=precision)
                for precision in PRECISIONS
            ],
            LITE: [OfflineEmbedder(precision) for precision in PRECISIONS],
        }
        figures: list[Figure] = []
        print(
            f'{"decoding":36}{"usual":>9}{"ours":>9}{"ratio":>8}   feature cosine, mean and minimum'
        )
        for network, (_, preprocess) in usual.items():
            for name, paths in sets.items():
                *speeds, cosines = decoding(
                    paths[: count // 4], preprocess, embedders[network][0], rounds
                )
                print_row(f'{network}, {name}', speeds, cosines)
                if network == CLIP:
                    figures += [
                        Figure(
                            f'JPEG {name} to the input of CLIP: images per core-second',
                            "PIL and open_clip's default transform",
                            speeds[2],
                            DECODING.get(name),
                        ),
                        *cosine_figures(
                            f'JPEG {name} to the input of CLIP', cosines, 0.9999, 0.997
                        ),
                    ]
        print(
            f'\n{"files to features":36}{"img/s":>9}{"per core":>9}{"ratio":>8}   feature cosine, '
            'mean and minimum'
        )
        for network, size in ((CLIP, count // 6), (LITE, count)):
            paths = next(iter(sets.values()))[:size]
            for method, (*speeds, cosines) in end_to_end(
                paths, *usual[network], embedders[network], rounds
            ).items():
                print_row(f'{network}, {method}', speeds, cosines)
                if method in PRECISIONS:
                    figures.append(
                        Figure(
                            f'{network} {method}, files to features: images per core-second',
                            'the usual loop in fp32',
                            speeds[2],
                            END_TO_END[network, method],
                        )
                    )
                if (network, method) == (LITE, 'bf16'):
                    figures += cosine_figures(
                        f'{network} {method}, files to features', cosines, None, 0.995
                    )
    save(figures, args.figures)


def print_row(name: str, speeds: Sequence[float], cosines: np.ndarray) -> None:
    """One line of a table."""
    rates = f'{speeds[0]:9.1f}{speeds[1]:9.1f}{speeds[2]:8.2f}'
    print(f'{name:36}{rates}{cosines.mean():12.6f} {cosines.min():.6f}', flush=True)


def cosine_figures(
    name: str, cosines: np.ndarray, mean: float | None, least: float | None
) -> list[Figure]:
    """The mean and the minimum where something is asked of them."""
    measured = (('mean', cosines.mean(), mean), ('minimum', cosines.min(), least))
    return [
        Figure(
            f'{name}: {word} cosine',
            'the features of the usual way',
            float(value),
            target,
            form='{:.5f}',
        )
        for word, value, target in measured
        if target is not None
    ]


def draw(folder: Path, count: int, height: int, width: int) -> list[str]:
    """Writes JPEGs with edges and texture, in about the bytes of photos of their size."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    paths = []
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 255, (6, 9, 3), dtype=np.uint8))
        image = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(
            np.int16
        )
        for _ in range(60):
            top, left = rng.integers(height - 20), rng.integers(width - 20)
            bottom, right = top + rng.integers(5, height // 4), left + rng.integers(5, width // 4)
            patch = image[top:bottom, left:right]
            patch += rng.integers(-60, 60, 3, dtype=np.int16)
            if rng.random() < 0.3:
                patch += rng.integers(-30, 30, patch.shape, dtype=np.int16)
        paths.append(str(folder / f'{i:04d}.jpg'))
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=85)
    return paths


def random_clip(folder: Path) -> tuple[nn.Module, str]:
    """ViT-B-32's image side with random weights, and a file that holds them."""
    torch.manual_seed(0)
    network = open_clip.create_model('ViT-B-32').visual.eval()
    torch.save(
        {f'visual.{name}': value for name, value in network.state_dict().items()},
        folder / 'clip.pt',
    )
    return network, str(folder / 'clip.pt')


def decoding(
    paths: Sequence[str], preprocess: Preprocess, embedder: Embedder, rounds: int
) -> tuple[float, float, float, np.ndarray]:
    """A row: images per core-second to the network's input, and how the shortcut changes them."""
    transform = embedder.transform
    usual, ours = [], []
    with one_thread():
        for _ in range(rounds):
            usual.append(
                timed(lambda: [preprocess(Image.open(path)) for path in paths], len(paths))[2]
            )
            ours.append(timed(lambda: [decode(path, transform) for path in paths], len(paths))[2])
    fast, plain = (
        np.concatenate([embedder.encode(read(path, transform)[None]) for path in paths])
        for read in (decode, plain_decode)
    )
    return (
        statistics.median(usual),
        statistics.median(ours),
        ratio(ours, usual),
        (fast * plain).sum(axis=1),
    )


def end_to_end(
    paths: Sequence[str],
    network: nn.Module,
    preprocess: Preprocess,
    embedders: Sequence[Embedder],
    rounds: int,
) -> dict[str, tuple[float, float, float, np.ndarray]]:
    """Rows by method: images per second on all cores and per core-second."""
    methods = {'usual': functools.partial(one_by_one, paths, network, preprocess)} | {
        embedder.precision: functools.partial(staged, paths, embedder) for embedder in embedders
    }
    features: dict[str, np.ndarray] = {}
    wall: dict[str, list[float]] = {name: [] for name in methods}
    core: dict[str, list[float]] = {name: [] for name in methods}
    for number in range(rounds + 1):
        for name, method in methods.items():
            features[name], *speeds = timed(method, len(paths))
            if number:  # the first one warms up
                wall[name].append(speeds[0])
                core[name].append(speeds[1])
    return {
        name: (
            statistics.median(wall[name]),
            statistics.median(core[name]),
            ratio(core[name], core['usual']),
            (features[name] * features['usual']).sum(axis=1),
        )
        for name in methods
    }


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
        shards = feature_shards(images, ('image',), 'front', embedder)
        stage = StageStore(folder).run('features', 'key', shards)
        return np.load(stage / 'features.npy')


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


if __name__ == '__main__':
    main()
