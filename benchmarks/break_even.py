"""What pruning costs beside one training of the target detector, from rates measured here.

    python benchmarks/break_even.py [--quick]

Rates are seconds per image of the package's own stages and of training steps, on drawn images of
the sizes of COCO and nuScenes with about the objects of COCO; networks have random weights, which
cost the same. Pruning and training run on the same processor. They are scaled up to the sets:
118,287 images, 12 epochs of Faster R-CNN R50; 28,130 frames, 24 epochs of BEVFormer-S. A step of
BEVFormer-S takes minutes on a processor. In its place stand steps of Faster R-CNN R50 on the
pictures of its 6 cameras, at a lower resolution and with a smaller backbone than BEVFormer-S has
and without its encoder: a lower bound of its cost, so that the share is an upper bound.
"""

import json
import logging
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from features import draw, random_clip
from figures import Figure, parse, save
from kmeans import make_features
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from adadedup_mm.base.files import write_array
from adadedup_mm.benchmark.results import read_results
from adadedup_mm.clusters import SphericalKMeans
from adadedup_mm.density import KCenter
from adadedup_mm.features import Embedder, OfflineEmbedder, OpenCLIPEmbedder
from adadedup_mm.features.extract import time_images
from adadedup_mm.proxy import loss_shards, proxy_config
from adadedup_mm.proxy.estimate import time_training
from adadedup_mm.settings.load import load_config
from adadedup_mm.settings.options import resolve_options
from adadedup_mm.stages import StageStore

ROOT = Path(__file__).resolve().parents[1]
TARGET = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
CLASSES, OBJECTS, SHARE = 80, 7, 0.15
# Samples, epochs of the target detector, pictures of it in a sample, size of the pictures.
SETS = {
    'COCO, Faster R-CNN R50': (118_287, 12, 1, (640, 480)),
    'nuScenes, 6 x Faster R-CNN R50 as a lower bound of BEVFormer-S': (28_130, 24, 6, (1600, 900)),
}


def make_dataset(folder: Path, count: int, width: int, height: int) -> dict[str, Any]:
    """Config of a COCO dataset of drawn images."""
    paths = draw(folder, count, height, width)
    generator = np.random.default_rng(0)
    images = [
        dict(id=i, file_name=Path(path).name, width=width, height=height)
        for i, path in enumerate(paths)
    ]
    sizes = generator.uniform(0.05, 0.4, (count, OBJECTS, 2)) * (width, height)
    corners = generator.random((count, OBJECTS, 2)) * ((width, height) - sizes)
    boxes = np.concatenate([corners, sizes], 2).reshape(-1, 4)
    annotations = [
        dict(
            id=i,
            image_id=i // OBJECTS,
            category_id=i % CLASSES,
            bbox=box.tolist(),
            iscrowd=0,
            area=float(box[2] * box[3]),
        )
        for i, box in enumerate(boxes)
    ]
    names = [f'class {i}' for i in range(CLASSES)]
    categories = [dict(id=i, name=name) for i, name in enumerate(names)]
    file = folder / 'instances.json'
    file.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return dict(
        type='CocoDataset',
        ann_file=str(file),
        data_prefix=dict(img=str(folder)),
        metainfo=dict(classes=tuple(names)),
    )


def random_weights(config: Config, file: Path) -> Path:
    """Weights of a detector that was never trained."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(config.model)
    torch.save(dict(state_dict=model.state_dict()), file)
    return file


def step_seconds(config: Config, dataset: dict[str, Any], folder: Path, quick: bool) -> float:
    """Seconds of an image in a detector's training."""
    if quick:
        config.train_dataloader.update(batch_size=1, num_workers=0)
    return time_training(config, dataset, folder, 3 if quick else 6).seconds_per_image


def loss_seconds(
    config: Config, dataset: dict[str, Any], size: tuple[int, int], count: int, folder: Path
) -> float:
    """Seconds of the loss of an image under a proxy."""
    weights = random_weights(config, folder / 'proxy.pth')
    # What starting takes does not grow with the number of images.
    ends = []
    for part, images in enumerate((4, count)):
        start = time.perf_counter()
        shards = loss_shards(
            config,
            weights,
            lambda folder: dataset,
            np.arange(images),
            np.tile(size[::-1], (images, 1)),
            finish=write_array,
        )
        StageStore(folder).run(f'losses_{part}', 'key', shards)
        ends.append(time.perf_counter() - start)
    return (ends[1] - ends[0]) / (count - 4)


def cluster_seconds(n: int) -> float:
    """Seconds of clusters and density scores of n samples."""
    features = make_features(n, 512)
    start = time.perf_counter()
    KCenter()(features, SphericalKMeans()(features, None, 0), 0)
    return time.perf_counter() - start


def share(
    case: str,
    step: float,
    embedder: Embedder,
    base: str,
    dataset: dict[str, Any],
    folder: Path,
    quick: bool,
) -> float:
    """Cost of pruning / cost of one training on all samples; prints what it is made of.

    Args:
        case: one of ``SETS``.
        step: seconds of an image in the target's training.
        embedder: of the features.
        base: config with the default options.
        dataset: drawn images of the set's size.
        folder: for logs and weights.
        quick: fewer images.
    """
    n, epochs, pictures, size = SETS[case]
    options = resolve_options(Config.fromfile(ROOT / 'configs/_base_' / base))
    proxy = proxy_config(load_config(options.proxy.config), CLASSES, options.proxy.epochs)
    image, _ = time_images(
        [str(path) for path in sorted(folder.parent.glob('images/*.jpg'))], embedder
    )
    learn = step_seconds(proxy, dataset, folder / 'proxy', quick)
    loss = loss_seconds(proxy, dataset, size, 12 if quick else 100, folder)
    parts = {
        'features': n * image,
        'clusters': cluster_seconds(n // 10) * 10 if quick else cluster_seconds(n),
        'proxy': options.keep_ratio
        * (1 - options.proxy.held_out)
        * n
        * proxy.train_cfg.max_epochs
        * learn,
        'losses': min(options.proxy.max_loss_samples or n, n) * loss,
    }
    training = n * epochs * pictures * step
    print(
        f'{case}, {base}: training {training / 3600:.1f} h ({step:.3f} s an image); pruning '
        + ', '.join(f'{name} {seconds / 3600:.2f} h' for name, seconds in parts.items())
        + f' (image {image:.4f} s, proxy step {learn:.4f} s, loss {loss:.4f} s)',
        flush=True,
    )
    return sum(parts.values()) / training


def minidrive() -> Figure:
    """From the trainings in docs/RESULTS.md, where the proxy is almost as large as the detector."""
    rows = [
        row
        for row in read_results(ROOT / 'docs/results/minidrive_quick.parquet')
        if row['status'] == 'done'
    ]
    full = fmean(row['training_seconds'] for row in rows if row['variant'] == 'full')
    pruning = fmean(row['pruning_seconds'] for row in rows if row['variant'] == 'adadedup')
    return Figure(
        'pruning on MiniDrive (minidrive_quick in docs/RESULTS.md, 50 % kept)',
        "one training of MiniDrive's small detector",
        pruning / full,
        SHARE,
        at_most=True,
        form='{:.1%}',
    )


def main() -> None:
    """Command line."""
    arguments = parse(__doc__)
    logging.disable()
    figures = []
    for case, (_, epochs, _, size) in list(SETS.items())[: 1 if arguments.quick else None]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            dataset = make_dataset(folder / 'images', 12 if arguments.quick else 100, *size)
            target = proxy_config(load_config(TARGET), CLASSES)
            target.model.backbone.init_cfg = None
            step = step_seconds(target, dataset, folder / 'target', arguments.quick)
            clip = OpenCLIPEmbedder('ViT-B-32', random_clip(folder)[1])
            for base, embedder, words in (
                ('adadedup.py', clip, 'default settings'),
                ('adadedup_offline.py', OfflineEmbedder(), 'settings for CPUs'),
            ):
                (folder / base).mkdir()
                figures.append(
                    Figure(
                        f'pruning, {words}: {case.split(", ")[0]}, rates of this CPU',
                        f'one training, {case.split(", ")[1]}, {epochs} epochs',
                        share(case, step, embedder, base, dataset, folder / base, arguments.quick),
                        SHARE,
                        at_most=True,
                        form='{:.1%}',
                    )
                )
    save([*figures, minidrive()], arguments.figures)


if __name__ == '__main__':
    main()
