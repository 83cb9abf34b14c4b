"""How much longer a training step is with dynamic pruning's losses than without.

    python benchmarks/dynamic_overhead.py [NAME ...] [--steps 20]
    python benchmarks/dynamic_overhead.py CONFIG [--modes batch image] [--cfg-options data_root=...]

NAME is one of the narrow models below, run on random images; without one all of them are. CONFIG is
any training config, run on its own data. Steps alternate between the ways in one process and on the
same batches. Without a GPU the process's own seconds on the processor are counted, which other
processes disturb less than the clock's.
"""

import argparse
import statistics
import time
from typing import Any

import numpy as np
import torch
from mmengine.config import DictAction
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner

from adadedup_mm.dynamic import SampleLosses
from adadedup_mm.dynamic.losses import MODES
from adadedup_mm.settings.load import load_config

# A quarter of ResNet-18's channels and 48 channels in the heads: the smaller the model, the more
# overhead shows.
_NARROW = {
    'backbone.depth': 18,
    'backbone.base_channels': 16,
    'backbone.init_cfg': None,
    'neck.in_channels': [16, 32, 64, 128],
    'neck.out_channels': 48,
}
_ANCHORS = {**_NARROW, 'bbox_head.in_channels': 48, 'bbox_head.feat_channels': 48}
_ROIS = {
    **_NARROW,
    'rpn_head.in_channels': 48,
    'rpn_head.feat_channels': 48,
    'roi_head.bbox_roi_extractor.out_channels': 48,
}
_NO_AUGMENTS = {'data_preprocessor.batch_augments': None}
_DETR = {
    **_NARROW,
    'neck.in_channels': [32, 64, 128],
    'neck.out_channels': 256,
    'encoder.num_layers': 1,
    'decoder.num_layers': 2,
    'num_queries': 100,
}
DETECTORS: dict[str, tuple[str, dict[str, Any]]] = {
    'faster_rcnn': (
        'faster_rcnn/faster-rcnn_r50_fpn_1x_coco',
        {**_ROIS, 'roi_head.bbox_head.in_channels': 48, 'roi_head.bbox_head.fc_out_channels': 128},
    ),
    'retinanet': ('retinanet/retinanet_r50_fpn_1x_coco', _ANCHORS),
    'fcos': (
        'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco',
        {**_ANCHORS, 'bbox_head.feat_channels': 64},
    ),
    'atss': ('atss/atss_r50_fpn_1x_coco', {**_ANCHORS, 'bbox_head.feat_channels': 64}),
    'gfl': ('gfl/gfl_r50_fpn_1x_coco', {**_ANCHORS, 'bbox_head.feat_channels': 64}),
    'yolox': ('yolox/yolox_tiny_8xb8-300e_coco', _NO_AUGMENTS),
    'rtmdet': ('rtmdet/rtmdet_tiny_8xb32-300e_coco', {**_NO_AUGMENTS, 'backbone.init_cfg': None}),
    'deformable_detr': ('deformable_detr/deformable-detr_r50_16xb2-50e_coco', _DETR),
}


def build(name: str) -> tuple[Any, list[Any]]:
    """A narrow detector and four batches of 8 random images of 320 x 192."""
    path, change = DETECTORS[name]
    init_default_scope('mmdet')
    from mmdet.structures import DetDataSample
    from mmdet.utils import register_all_modules
    from mmengine.structures import InstanceData

    register_all_modules(False)
    config = load_config(f'mmdet::{path}.py')
    config.model.pop('init_cfg', None)
    config.merge_from_dict({f'model.{key}': value for key, value in change.items()})
    model = MODELS.build(config.model)
    # It tells about every single parameter otherwise.
    MMLogger.get_instance('dynamic_overhead', log_level='ERROR')
    model.init_weights()
    rng = np.random.default_rng(0)
    batches = []
    for _ in range(4):
        batch: dict[str, list[Any]] = dict(inputs=[], data_samples=[])
        for _ in range(8):
            corners = rng.uniform(0, [240, 120], (rng.integers(1, 10), 2))
            boxes = np.concatenate(
                [corners, corners + rng.uniform(20, 70, corners.shape)], 1
            ).astype(np.float32)
            sample = DetDataSample(
                metainfo=dict(img_shape=(192, 320), ori_shape=(192, 320), scale_factor=(1.0, 1.0))
            )
            sample.gt_instances = InstanceData(
                bboxes=torch.from_numpy(boxes),
                labels=torch.from_numpy(rng.integers(0, 80, len(boxes))),
            )
            sample.ignored_instances = InstanceData(
                bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)
            )
            batch['inputs'].append(torch.from_numpy(rng.integers(0, 256, (3, 192, 320), np.uint8)))
            batch['data_samples'].append(sample)
        batches.append(batch)
    return model, batches


def from_config(
    path: str, overrides: dict[str, Any] | None, work_dir: str
) -> tuple[Any, list[Any]]:
    """The model of a config and the first four batches of its training data."""
    config = load_config(path, overrides)
    config.work_dir, config.log_level = work_dir, 'ERROR'
    init_default_scope(config.get('default_scope', 'mmengine'))
    runner = Runner.from_cfg(config)
    loader = runner.build_dataloader(config.train_dataloader, seed=0)
    return runner.model, [batch for _, batch in zip(range(4), loader, strict=False)]


def clock() -> float:
    """Seconds of the clock once the GPU is done, or of this process on the CPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def step_seconds(model: Any, optimizer: Any, batch: Any, losses: SampleLosses | None) -> float:
    """Seconds of one training step, with what the hook does around it; None is plain training."""
    torch.manual_seed(0)
    start = clock()
    if losses is not None:
        losses.start(torch.ones(len(batch['data_samples'])))
    model.train_step(batch, optimizer)
    if losses is not None:
        assert len(losses.take()) == len(batch['data_samples'])
    return clock() - start


def compare(name: str, model: Any, batches: list[Any], modes: list[str] | None, steps: int) -> None:
    """Prints a line for each way of computing per-sample losses."""
    from mmengine.optim import OptimWrapper

    optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-5))
    model.train()
    if modes is None:
        mode = SampleLosses(model).mode
        modes = [mode] if mode in ('element', 'image') else [mode, 'image']
    ways: dict[str, SampleLosses | None] = dict(
        plain=None, **{mode: SampleLosses(model, mode) for mode in modes}
    )
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    names = list(ways)
    for step in range(steps + 2):
        # Every way is the first one as often as the others.
        for way in names[step % len(names) :] + names[: step % len(names)]:
            elapsed = step_seconds(model, optimizer, batches[step % len(batches)], ways[way])
            # The first steps warm up; in the first one the losses are looked at as well.
            if step >= 2:
                seconds[way].append(elapsed)
    for way in modes:
        ratios = [a / b for a, b in zip(seconds[way], seconds['plain'], strict=True)]
        print(
            f'{name:24} plain {1000 * statistics.median(seconds["plain"]):7.1f} ms   {way:8}'
            f'{1000 * statistics.median(seconds[way]):7.1f} ms   ratio '
            f'{statistics.median(ratios):.3f}',
            flush=True,
        )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('models', nargs='*', metavar='NAME|CONFIG')
    parser.add_argument('--steps', type=int, default=20)
    parser.add_argument(
        '--modes', nargs='+', choices=MODES, help="default: what 'auto' takes, and 'image'"
    )
    parser.add_argument('--work-dir', default='work_dirs/dynamic_overhead')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    args = parser.parse_args()
    for name in args.models or DETECTORS:
        model, batches = (
            build(name) if name in DETECTORS else from_config(name, args.cfg_options, args.work_dir)
        )
        compare(name, model, batches, args.modes, args.steps)


if __name__ == '__main__':
    main()
