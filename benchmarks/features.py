"""Decoding and embedding, each against the usual loop: one image at a time, PIL, the default transform, float32.

    python benchmarks/features.py [--quick] [--rounds 3] [--images FOLDER ...]

Without ``--images``, images of the sizes of COCO and nuScenes are drawn. CLIP has random weights, which cost the same.
Methods alternate, and ratios are medians over the rounds. Ratios are of images per core-second, which count the time
that this process computes: what else runs on the machine matters less to them. The usual loop runs on one thread, because
it does less per core-second on more of them.
"""

import argparse
import functools
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

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


def main() -> None:
    """Runs all methods in turn and prints two tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--quick', action='store_true', help='fewer images, one round')
    parser.add_argument('--rounds', type=int, default=3, help='runs of each method')
    parser.add_argument('--images', type=Path, nargs='+', default=[], help='folders with JPEGs, one set each')
    args = parser.parse_args()
    logging.disable()  # open_clip warns of random weights
    rounds, count = (1, 16) if args.quick else (args.rounds, 96)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sets = {images.name: sorted(map(str, images.rglob('*.jpg')))[:count] for images in args.images} or {
            f'drawn {width}x{height}': draw(folder / str(width), count, height, width)
            for width, height in ((640, 480), (1600, 900))}
        clip = random_clip(folder)
        decoding_table(sets, rounds, [OpenCLIPEmbedder('ViT-B-32', clip, precision='fp32'), OfflineEmbedder()])
        end_to_end_table(next(iter(sets.values())), rounds, clip, folder)


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


def random_clip(folder: Path) -> str:
    """A checkpoint of ViT-B-32's image side with random weights."""
    torch.manual_seed(0)
    weights = open_clip.create_model('ViT-B-32').visual.state_dict()
    torch.save({f'visual.{name}': value for name, value in weights.items()}, folder / 'clip.pt')
    return str(folder / 'clip.pt')


def usual_transform(embedder: Embedder) -> Callable[[Image.Image], torch.Tensor]:
    """What open_clip or timm would put before this network."""
    if isinstance(embedder, OpenCLIPEmbedder):
        return open_clip.image_transform(224, is_train=False)
    return timm.data.create_transform(**timm.data.resolve_model_data_config(timm.create_model(embedder.model)))


def decoding_table(sets: dict[str, list[str]], rounds: int, embedders: Sequence[Embedder]) -> None:
    """Images per core-second to the network's input, and what the shortcut does to the features."""
    print(f'\n{"images per core-second":40}{"usual":>8}{"ours":>8}{"ratio":>8}   feature cosine, mean and minimum')
    for embedder in embedders:
        usual, transform = usual_transform(embedder), embedder.transform
        for name, paths in sets.items():
            slow, fast = [], []
            for _ in range(rounds):
                slow.append(per_core_second(lambda path, usual=usual: usual(Image.open(path)), paths))
                fast.append(per_core_second(lambda path, transform=transform: decode(path, transform), paths))
            ours, plain = (np.concatenate([embedder.encode(torch.stack([read(path, transform) for path in paths[i:i + 16]]))
                                           for i in range(0, len(paths), 16)]) for read in (decode, plain_decode))
            label = f'decode, {type(embedder).__name__}, {name}'
            print(f'{label:40}{statistics.median(slow):8.0f}{statistics.median(fast):8.0f}{ratio(fast, slow):8.2f}'
                  f'{cosine(ours, plain)}')


def per_core_second(function: Callable[[str], object], paths: Sequence[str]) -> float:
    """Images per second of processor time on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    start = time.process_time()
    for path in paths:
        function(path)
    seconds = time.process_time() - start
    torch.set_num_threads(threads)
    return len(paths) / seconds


def end_to_end_table(paths: list[str], rounds: int, clip: str, folder: Path) -> None:
    """Files to features, on all cores."""
    model = open_clip.create_model('ViT-B-32').visual.eval()
    weights = torch.load(clip)
    model.load_state_dict({name.removeprefix('visual.'): value for name, value in weights.items()})
    lite = OfflineEmbedder()._load()[0].eval()
    lite_transform = timm.data.create_transform(**timm.data.resolve_model_data_config(lite))
    methods = {
        'CLIP ViT-B-32': (
            lambda: one_by_one(paths, model, open_clip.image_transform(224, is_train=False)),
            {precision: OpenCLIPEmbedder('ViT-B-32', clip, precision=precision) for precision in ('fp32', 'bf16')}),
        'offline embedder': (
            lambda: one_by_one(paths, lite, lite_transform),
            {precision: OfflineEmbedder(precision=precision) for precision in ('fp32', 'bf16')})}
    print(f'\n{"files to features":40}{"img/s":>8}{"per core":>8}{"ratio":>8}   feature cosine, mean and minimum')
    for name, (usual, embedders) in methods.items():
        functions = {'usual': usual} | {precision: functools.partial(staged, paths, embedder, folder)
                                        for precision, embedder in embedders.items()}
        walls: dict[str, list[float]] = {label: [] for label in functions}
        cores: dict[str, list[float]] = {label: [] for label in functions}
        features = {}
        for number in range(rounds + 1):
            for label, function in functions.items():
                features[label], wall, core = timed(function, len(paths))
                if number:  # the first one warms up
                    walls[label].append(wall)
                    cores[label].append(core)
        for label in functions:
            print(f'{f"{name}, {label}":40}{statistics.median(walls[label]):8.1f}{statistics.median(cores[label]):8.1f}'
                  f'{ratio(cores[label], cores["usual"]):8.2f}{cosine(features[label], features["usual"])}')


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median over the rounds."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def cosine(a: np.ndarray, b: np.ndarray) -> str:
    """Mean and minimum over the images, as text."""
    cosines = (a * b).sum(axis=1)
    return f'{cosines.mean():12.6f} {cosines.min():.6f}'


@torch.inference_mode()
def one_by_one(paths: Sequence[str], network: nn.Module,
               transform: Callable[[Image.Image], torch.Tensor]) -> np.ndarray:
    """The usual loop."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    features = [network(transform(Image.open(path))[None]) for path in paths]
    torch.set_num_threads(threads)
    return nn.functional.normalize(torch.cat(features)).numpy()


def staged(paths: Sequence[str], embedder: Embedder, folder: Path) -> np.ndarray:
    """The package's stage."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        images = [(path,) for path in paths]
        extract_shards(images, ('image',), 'front', embedder, Path(name))
        merge_shards(images, ('image',), 'front', Path(name))
        return np.load(Path(name) / 'features.npy')


def timed(function: Callable[[], np.ndarray], count: int) -> tuple[np.ndarray, float, float]:
    """The result, images per second, and images per core-second."""
    wall, core = time.perf_counter(), time.process_time()
    result = function()
    return result, count / (time.perf_counter() - wall), count / (time.process_time() - core)


if __name__ == '__main__':
    main()
