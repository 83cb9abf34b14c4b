"""Per-sample losses of a small Faster R-CNN, against running images one by one.

    python benchmarks/proxy_losses.py [--quick]

Images are of mixed sizes; the ways alternate, and ratios are medians.
"""

import logging
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from figures import Figure, one_thread, parse, save

one_thread()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from mmdet.structures import DetDataSample  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.registry import MODELS, DefaultScope  # noqa: E402
from mmengine.structures import InstanceData  # noqa: E402

from adadedup_mm.detectors.losses import sample_seed  # noqa: E402
from adadedup_mm.proxy import per_sample_losses, proxy_config  # noqa: E402

SIZES = ((112, 192), (192, 112), (128, 160))
ROOT = Path(__file__).resolve().parents[1]
BATCH_SIZE = 16
TARGETS = {'ours, one process': 1.25, 'ours, two processes': 1.9}


def make_model() -> Any:
    """The small proxy with random weights."""
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    config = proxy_config(Config.fromfile(ROOT / 'configs/proxy/faster_rcnn_tiny.py'), 3)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(config.model)
    model.init_weights()
    return model.eval()


def make_samples(count: int) -> list[tuple[torch.Tensor, DetDataSample]]:
    """Images of mixed sizes, ordered by size as the scoring stage orders them."""
    generator = np.random.default_rng(0)
    samples = []
    for i in range(count):
        height, width = SIZES[i * len(SIZES) // count]
        corners = generator.uniform(0, 0.7, (i % 5, 2))
        boxes = np.concatenate([corners, corners + generator.uniform(0.1, 0.3, corners.shape)], 1)
        sample = DetDataSample(
            metainfo=dict(img_id=i, img_shape=(height, width), scale_factor=(1.0, 1.0))
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor(boxes * np.tile([width, height], 2), dtype=torch.float32).reshape(
                -1, 4
            ),
            labels=torch.from_numpy(generator.integers(0, 3, len(boxes))),
        )
        sample.ignored_instances = InstanceData(
            bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)
        )
        samples.append(
            (
                torch.from_numpy(generator.integers(0, 256, (3, height, width), dtype=np.uint8)),
                sample,
            )
        )
    return samples


def one_by_one(model: Any, samples: list[Any]) -> torch.Tensor:
    """What one writes without this package."""
    losses = []
    with torch.no_grad():
        for image, sample in samples:
            data = model.data_preprocessor(dict(inputs=[image], data_samples=[sample]), True)
            torch.manual_seed(sample_seed(0, sample))
            losses.append(model.parse_losses(model.loss(data['inputs'], data['data_samples']))[0])
    return torch.stack(losses)


def ours(model: Any, samples: list[Any]) -> torch.Tensor:
    """In batches."""
    losses = []
    for start in range(0, len(samples), BATCH_SIZE):
        images, data_samples = zip(*samples[start : start + BATCH_SIZE], strict=True)
        losses.append(
            per_sample_losses(model, dict(inputs=list(images), data_samples=list(data_samples)))
        )
    return torch.cat(losses)


_worker: dict[str, Any] = {}


def _start_worker(count: int) -> None:
    _worker.update(model=make_model(), samples=make_samples(count))


def _score_part(part: int) -> torch.Tensor:
    half = len(_worker['samples']) // 2
    return ours(_worker['model'], _worker['samples'][part * half : (part + 1) * half])


def measure(count: int, repeats: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of each way in alternation, and how far its losses are from the first way's."""
    model, samples = make_model(), make_samples(count)
    with ProcessPoolExecutor(2, get_context('spawn'), _start_worker, (count,)) as pool:
        list(pool.map(_score_part, range(2)))
        ways: dict[str, Callable[[], torch.Tensor]] = {
            'one by one': lambda: one_by_one(model, samples),
            'ours, one process': lambda: ours(model, samples),
            'ours, two processes': lambda: torch.cat(list(pool.map(_score_part, range(2)))),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        losses = {}
        for repeat in range(repeats + 1):
            for name, way in ways.items():
                start = time.perf_counter()
                losses[name] = way()
                if repeat:
                    seconds[name].append(time.perf_counter() - start)
    differences = {
        name: float((value - losses['one by one']).abs().max()) for name, value in losses.items()
    }
    return seconds, differences


def main() -> None:
    """Command line."""
    arguments = parse(__doc__)
    count, repeats = (48, 3) if arguments.quick else (192, 9)
    seconds, differences = measure(count, repeats)
    print(f'{"way":24}{"images/s":>10}{"ratio":>8}{"max difference":>16}')
    figures = []
    for name, values in seconds.items():
        ratio = statistics.median(
            base / value for base, value in zip(seconds['one by one'], values, strict=True)
        )
        rate = count / statistics.median(values)
        print(f'{name:24}{rate:10.1f}{ratio:8.2f}{differences[name]:16.1e}')
        if name in TARGETS:
            figures.append(
                Figure(
                    f'per-sample losses, {name.removeprefix("ours, ")} of one thread: speed',
                    'image by image, one process',
                    ratio,
                    TARGETS[name],
                )
            )
    figures.append(
        Figure(
            'per-sample losses: largest difference',
            'image by image',
            max(differences.values()),
            1e-5,
            at_most=True,
            form='{:.0e}',
        )
    )
    save(figures, arguments.figures)


if __name__ == '__main__':
    main()
