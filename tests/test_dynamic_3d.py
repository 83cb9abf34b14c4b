"""Per-sample losses out of a 3D detector's training step, and BEVFormer with dynamic pruning."""

import copy
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

mmdet3d = pytest.importorskip('mmdet3d')

from mmdet3d.registry import MODELS  # noqa: E402
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes  # noqa: E402
from mmdet3d.utils import register_all_modules  # noqa: E402

from adadedup_mm.cli.make_minidrive import main as make_minidrive  # noqa: E402
from adadedup_mm.dynamic import DynamicPruningRunner, SampleLosses  # noqa: E402
from adadedup_mm.settings.load import load_config  # noqa: E402

ROOT = Path(__file__).parents[1]
MODEL_CONFIGS = Path(sys.modules['mmdet3d'].__file__).parent / '.mim/configs/_base_/models'
SMALL = {'layer_nums': [1, 1, 1], 'out_channels': [16, 16, 16]}


def build(name, change):
    register_all_modules(False)
    init_default_scope('mmdet3d')
    config = Config.fromfile(MODEL_CONFIGS / name)
    config.merge_from_dict({f'model.{key}': value for key, value in change.items()})
    torch.manual_seed(0)
    return MODELS.build(config.model).train()


def pointpillars():
    area = [0, -10.24, -3, 20.48, 10.24, 1]
    return build(
        'pointpillars_hv_secfpn_kitti.py',
        {
            'data_preprocessor.voxel_layer.point_cloud_range': area,
            'voxel_encoder.point_cloud_range': area,
            'middle_encoder.output_shape': [128, 128],
            'neck.in_channels': [16, 16, 16],
            'neck.out_channels': [16, 16, 16],
            'bbox_head.in_channels': 48,
            'bbox_head.feat_channels': 48,
            'bbox_head.anchor_generator.ranges': [
                [0, -10.24, z, 20.48, 10.24, z] for z in (-0.6, -0.6, -1.78)
            ],
            **{f'backbone.{key}': value for key, value in SMALL.items()},
        },
    )


def centerpoint():
    area = [-12.8, -12.8, -5.0, 12.8, 12.8, 3.0]
    return build(
        'centerpoint_pillar02_second_secfpn_nus.py',
        {
            'data_preprocessor.voxel_layer.point_cloud_range': area,
            'pts_voxel_encoder.point_cloud_range': area,
            'pts_voxel_encoder.in_channels': 4,
            'pts_middle_encoder.output_shape': (128, 128),
            'pts_neck.in_channels': [16, 16, 16],
            'pts_neck.out_channels': [16, 16, 16],
            'pts_bbox_head.in_channels': 48,
            'pts_bbox_head.bbox_coder.pc_range': area[:2],
            'train_cfg.pts.grid_size': [128, 128, 1],
            'train_cfg.pts.point_cloud_range': area,
            **{f'pts_backbone.{key}': value for key, value in SMALL.items()},
        },
    )


def batch(model, numbers):
    """Samples of random points, with more boxes the higher the number."""
    inputs, samples = [], []
    for i in numbers:
        rng = np.random.default_rng(i)
        points = rng.uniform([1, -9, -2, 0], [12, 9, 0.5, 1], (400, 4))
        size = [[3.9, 1.6, 1.56]] * (i + 1)
        boxes = np.concatenate(
            [
                rng.uniform([3, -7, -1.7], [11, 7, -1.5], (i + 1, 3)),
                size,
                rng.uniform(-3, 3, (i + 1, 1)),
                rng.normal(size=(i + 1, 2)),
            ],
            1,
        ).astype(np.float32)
        boxes = boxes if hasattr(model, 'pts_bbox_head') else boxes[:, :7]
        sample = Det3DDataSample(metainfo=dict(box_type_3d=LiDARInstance3DBoxes))
        sample.gt_instances_3d = InstanceData(
            bboxes_3d=LiDARInstance3DBoxes(torch.from_numpy(boxes), boxes.shape[1]),
            labels_3d=torch.zeros(i + 1, dtype=torch.long),
        )
        inputs.append(torch.from_numpy(points.astype(np.float32)))
        samples.append(sample)
    return model.data_preprocessor(
        dict(inputs=dict(points=inputs), data_samples=samples), training=True
    )


def observed(model, numbers, weights=None):
    """Total loss of one step, with weights also that of each sample."""
    data = batch(model, numbers)
    if weights is None:
        return model.parse_losses(model.loss(data['inputs'], data['data_samples']))[0], None
    losses = SampleLosses(model)
    losses.start(weights)
    total = model.parse_losses(model.loss(data['inputs'], data['data_samples']))[0]
    values = losses.take()
    losses.detach()
    return total, values


@pytest.mark.parametrize('make', [pointpillars, centerpoint])
def test_detectors_of_points_train_on_the_plain_loss_and_tell_their_samples_own(make):
    model = make()
    # A batch of copies has the batch statistics of a sample alone.
    for numbers in ([0, 1, 2], [0, 0], [1, 1], [2, 2]):
        plain = observed(copy.deepcopy(model), numbers)[0]
        ones, twos = torch.ones(len(numbers)), torch.full((len(numbers),), 2.0)
        total, values = observed(copy.deepcopy(model), numbers, ones)
        assert torch.equal(total, plain)
        double, others = observed(copy.deepcopy(model), numbers, twos)
        torch.testing.assert_close(double, 2 * plain, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(others, values, rtol=1e-4, atol=1e-5)
        if len(numbers) == 2:
            alone = observed(copy.deepcopy(model), numbers[:1])[0].detach()
            torch.testing.assert_close(values, alone.expand(2), rtol=1e-4, atol=1e-5)
            uneven = observed(copy.deepcopy(model), numbers, torch.tensor([2.0, 0.5]))[0]
            torch.testing.assert_close(uneven, 1.25 * plain, rtol=1e-4, atol=1e-5)


def test_bevformer_trains_with_dynamic_pruning(tmp_path):
    make_minidrive(
        [
            str(tmp_path / 'world'),
            '--scenes',
            '6',
            '--frames',
            '2',
            '--formats',
            'nuscenes',
            '--cameras',
            'all',
        ]
    )
    path = tmp_path / 'config.py'
    path.write_text(f"""
_base_ = [
    '{ROOT}/configs/bevformer/bevformer_minidrive.py',
    '{ROOT}/configs/_base_/dynamic_infobatch.py',
]
work_dir = '{tmp_path}/run'
data_root = '{tmp_path}/world/nuscenes/'
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root=data_root))
val_dataloader = None
val_evaluator = None
val_cfg = None
test_dataloader = None
test_evaluator = None
test_cfg = None
train_cfg = dict(max_epochs=2)
launcher = 'none'
""")
    runner = DynamicPruningRunner.from_cfg(load_config(path))
    hook = next(hook for hook in runner.hooks if type(hook).__name__ == 'DynamicPruningHook')
    modes = []
    hook.after_train_epoch = lambda runner, call=hook.after_train_epoch: (
        modes.append(hook.losses.mode),
        call(runner),
    )
    runner.train()
    table = pq.read_table(tmp_path / 'run/dynamic_samples.parquet').to_pydict()
    assert set(modes) == {'image'} and table['losses_seen'] == table['epochs_used']
    assert (
        max(table['epochs_used']) == 2
        and min(table['epochs_used']) == 1
        and np.std(table['mean_score']) > 0
    )
    assert all(table['sample_id']) and (tmp_path / 'run/dynamic_samples.png').exists()
