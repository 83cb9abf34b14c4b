"""Per-sample losses out of a detector's training step, and trainings with dynamic pruning."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from adadedup_mm.base.errors import UserError
from adadedup_mm.cli.train import main
from adadedup_mm.dynamic import IndexedDataset, SampleLosses
from adadedup_mm.settings.load import load_config

ROOT = Path(__file__).parents[1]
MMDET = Path(sys.modules['mmdet'].__file__).parent / '.mim/configs'
SMALL = dict(
    backbone=dict(depth=18, base_channels=4, init_cfg=None),
    neck=dict(in_channels=[4, 8, 16, 32], out_channels=16),
)


def detector(name, **change):
    """A small detector that uses all of its candidates, so that only its weights are random."""
    register_all_modules(False)
    init_default_scope('mmdet')
    config = Config.fromfile(MMDET / name)
    config.merge_from_dict({f'model.{key}': value for key, value in dict(SMALL, **change).items()})
    torch.manual_seed(0)
    return MODELS.build(config.model).train()


def faster_rcnn():
    everything = {f'{part}.sampler': dict(num=10_000) for part in ('rpn', 'rcnn')}
    return detector(
        'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
        rpn_head=dict(in_channels=16, feat_channels=16),
        roi_head=dict(
            bbox_roi_extractor=dict(out_channels=16),
            bbox_head=dict(in_channels=16, fc_out_channels=16),
        ),
        **{f'train_cfg.{key}': value for key, value in everything.items()},
    )


def retinanet():
    return detector(
        'retinanet/retinanet_r50_fpn_1x_coco.py', bbox_head=dict(in_channels=16, feat_channels=16)
    )


def fcos():
    return detector(
        'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
        bbox_head=dict(in_channels=16, feat_channels=64),
    )


def atss():
    return detector(
        'atss/atss_r50_fpn_1x_coco.py', bbox_head=dict(in_channels=16, feat_channels=32)
    )


def gfl():
    return detector('gfl/gfl_r50_fpn_1x_coco.py', bbox_head=dict(in_channels=16, feat_channels=32))


def yolox():
    return detector(
        'yolox/yolox_tiny_8xb8-300e_coco.py',
        backbone=dict(widen_factor=0.125),
        neck=dict(in_channels=[32, 64, 128], out_channels=32, num_csp_blocks=1),
        bbox_head=dict(in_channels=32, feat_channels=32),
    )


def transformer(name, dims, **change):
    layer = dict(
        self_attn_cfg=dict(embed_dims=dims, num_heads=4, dropout=0.0),
        ffn_cfg=dict(embed_dims=dims, feedforward_channels=32, ffn_drop=0.0),
    )
    decoder = dict(layer, cross_attn_cfg=dict(embed_dims=dims, num_heads=4, dropout=0.0))
    model = detector(
        name,
        neck=dict(in_channels=[8, 16, 32], out_channels=dims, norm_cfg=dict(num_groups=8)),
        num_queries=20,
        encoder=dict(num_layers=1, layer_cfg=layer),
        bbox_head=dict(embed_dims=dims),
        decoder=dict(num_layers=2, layer_cfg=decoder),
        positional_encoding=dict(num_feats=dims // 2),
        **change,
    )
    # Until then the embeddings of the levels are whatever the memory held.
    model.init_weights()
    return model


def deformable_detr():
    return transformer('deformable_detr/deformable-detr_r50_16xb2-50e_coco.py', 32)


def dino():
    # Without the random noise on its denoising queries, which follows the order of the images.
    return transformer(
        'dino/dino-4scale_r50_8xb2-12e_coco.py',
        256,
        dn_cfg=dict(label_noise_scale=1e-9, box_noise_scale=1e-9),
    )


def samples(count=3, seed=0):
    """A batch as the data preprocessor yields it: pixels and ground truth of images of one size."""
    rng = np.random.default_rng(seed)
    result = []
    for i in range(count):
        corner = rng.uniform(0, 60, (i + 1, 2))
        boxes = torch.tensor(
            np.concatenate([corner, corner + rng.uniform(20, 60, (i + 1, 2))], 1),
            dtype=torch.float32,
        )
        sample = DetDataSample(
            metainfo=dict(
                img_shape=(128, 128),
                pad_shape=(128, 128),
                batch_input_shape=(128, 128),
                ori_shape=(128, 128),
                scale_factor=(1.0, 1.0),
                img_id=i,
            )
        )
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.arange(i + 1))
        result.append(sample)
    return torch.from_numpy(rng.normal(size=(count, 3, 128, 128)).astype(np.float32)), result


def observed(model, inputs, data_samples, weights=None, mode='auto'):
    """Total loss and per-sample losses of one step, and the mode."""
    losses = SampleLosses(model, mode)
    losses.start(torch.ones(len(data_samples)) if weights is None else weights)
    torch.manual_seed(0)
    total = model.parse_losses(model.loss(inputs, data_samples))[0]
    values = losses.take()
    losses.detach()
    return total.detach(), values, losses.mode


def parts(model, inputs, data_samples):
    """The entries of the loss of a plain step."""
    torch.manual_seed(0)
    losses = model.parse_losses(model.loss(inputs, data_samples))[1]
    return {name: value.detach() for name, value in losses.items() if 'loss_' in name}


@pytest.mark.parametrize('build', [faster_rcnn, retinanet, fcos, atss, gfl, deformable_detr, dino])
def test_the_batch_loss_is_unchanged_and_split_over_its_images(build):
    model, (inputs, data) = build(), samples()
    model.backbone.eval()
    torch.manual_seed(0)
    plain = model.parse_losses(model.loss(inputs, data))[0]
    total, values, mode = observed(model, inputs, data)
    assert mode == 'batch' and torch.equal(total, plain)
    torch.testing.assert_close(values.mean(), plain, rtol=1e-5, atol=0)
    # Each share goes with its image.
    order = [2, 0, 1]
    torch.testing.assert_close(
        observed(model, inputs[order], [data[i] for i in order])[1],
        values[order],
        rtol=1e-4,
        atol=1e-6,
    )
    # And a weight multiplies the loss of the right image.
    weights = torch.tensor([2.0, 0.0, 0.5])
    torch.testing.assert_close(
        observed(model, inputs, data, weights)[0], (weights * values).mean(), rtol=1e-4, atol=0
    )
    # The last image changes, and only its share does; elsewhere what the batch loss is divided by
    # changes as well.
    if build is retinanet:
        changed = torch.cat([inputs[:2], inputs[2:] * 3])
        others = observed(model, changed, data)[1]
        torch.testing.assert_close(others[:2], values[:2], rtol=1e-5, atol=0)
        assert abs(others[2] - values[2]) > 1e-3 * values[2]


@pytest.mark.parametrize('build, mode', [(yolox, 'auto'), (fcos, 'image'), (faster_rcnn, 'image')])
def test_other_detectors_tell_their_images_own_losses_and_weigh_them(build, mode):
    model, (inputs, data) = build(), samples()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    plain = parts(model, inputs, data)
    total, values, taken = observed(model, inputs, data, mode=mode)
    assert taken == 'image' and torch.equal(total, sum(plain.values()))
    alone = [parts(model, inputs[i : i + 1], data[i : i + 1]) for i in range(3)]
    own = torch.stack([sum(entries.values()) for entries in alone])
    torch.testing.assert_close(values, own, rtol=1e-4, atol=1e-5)
    # With weights the parts are as large as in the batch where all weights are 1.
    weights = torch.tensor([2.0, 0.0, 0.5])
    expected = 0
    for name, value in plain.items():
        entries = torch.stack([image[name] for image in alone])
        mean = entries.mean()
        expected += (weights * entries).mean() * (value / mean if mean else 1)
    total, values, _ = observed(model, inputs, data, weights, mode)
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(values, own, rtol=1e-4, atol=1e-5)
    if build is yolox:
        with pytest.raises(UserError, match="use 'image'"):
            SampleLosses(model, 'batch')


def test_gradients_of_a_weighted_step_are_those_of_the_weighted_loss():
    model, (inputs, data) = retinanet(), samples()
    model.backbone.eval()
    losses = SampleLosses(model)
    losses.start(torch.tensor([0.0, 0.0, 0.0]))
    model.parse_losses(model.loss(inputs, data))[0].backward()
    assert all(
        not parameter.grad.any() for parameter in model.parameters() if parameter.grad is not None
    )
    assert losses.take().min() > 0


def test_mixed_images_carry_the_index_of_the_main_one(world):
    config = load_config(
        ROOT / 'configs/minidrive/faster_rcnn_minidrive.py', dict(data_root=f'{world}/coco/')
    )
    register_all_modules(True)
    inner = config.train_dataloader.dataset
    inner.data_root = f'{world}/coco/'
    pack, inner.pipeline = inner.pipeline[-1], inner.pipeline[:2]
    dataset = IndexedDataset(
        dict(
            type='MultiImageMixDataset',
            dataset=inner,
            pipeline=[dict(type='Mosaic', img_scale=(96, 160), pad_val=0.0), pack],
        )
    )
    assert dataset[7]['data_samples'].metainfo['dynamic_index'] == 7 and len(dataset) == len(
        dataset.dataset
    )


CONFIG = """
_base_ = ['{root}/configs/dynamic/faster_rcnn_minidrive_{policy}.py']
data_root = '{world}/coco/'
train_dataloader = dict(batch_size=4, dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
train_cfg = dict(max_epochs=2, val_interval=2)
dynamic = dict({dynamic})
model = dict(backbone=dict(base_channels=4), neck=dict(in_channels=[4, 8, 16, 32], out_channels=16),
             rpn_head=dict(in_channels=16, feat_channels=16),
             roi_head=dict(bbox_roi_extractor=dict(out_channels=16),
                           bbox_head=dict(in_channels=16, fc_out_channels=16)))
{more}
"""


def run_train(tmp_path, world, policy='ucb', dynamic='', more='', processes=1):
    """``tools/train.py``; returns the table of samples and the logged rows."""
    config = tmp_path / 'config.py'
    config.write_text(
        CONFIG.format(root=ROOT, world=world, policy=policy, dynamic=dynamic, more=more)
    )
    arguments = [
        str(config),
        '--work-dir',
        str(tmp_path / 'run'),
        '--cfg-options',
        'default_hooks.logger.interval=1',
    ]
    if processes == 1:
        main(arguments)
    else:
        start = [
            '-m',
            'torch.distributed.run',
            f'--nproc_per_node={processes}',
            '--master_port=29541',
        ]
        environment = dict(
            os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT), CUDA_VISIBLE_DEVICES=''
        )
        done = subprocess.run(
            [
                sys.executable,
                '-W',
                'ignore',
                *start,
                str(ROOT / 'tools/train.py'),
                *arguments,
                '--launcher',
                'pytorch',
            ],
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        assert done.returncode == 0, done.stdout[-3000:]
    [log] = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    rows = [row for row in map(json.loads, log.read_text().splitlines()) if 'loss' in row]
    return pq.read_table(tmp_path / 'run/dynamic_samples.parquet').to_pydict(), rows


@pytest.mark.parametrize('loss', ['auto', 'image'])
def test_two_processes_train_each_selected_sample_once(loss, world, tmp_path):
    table, rows = run_train(tmp_path, world, dynamic=f'period=1, loss={loss!r}', processes=2)
    # 24 of 48 samples over two ranks in batches of 4, for two epochs.
    assert len(rows) == 6
    assert sum(table['epochs_used']) == 48 and table['losses_seen'] == table['epochs_used']
    assert all(
        (loss is not None) == bool(seen)
        for loss, seen in zip(table['last_loss'], table['losses_seen'], strict=True)
    )


def test_a_policy_on_top_of_a_statically_pruned_set(world, tmp_path):
    more = "adadedup = dict(strategy='random', keep_ratio=.5, embedder=dict(type='PixelEmbedder'))"
    table, rows = run_train(tmp_path, world, 'epsilon_greedy', more=more)
    assert len(table['index']) == 24 and sum(table['epochs_used']) == 24 and len(rows) == 6
    assert (tmp_path / 'run/adadedup/manifest.json').exists()


def test_random_needs_no_losses(world, tmp_path):
    table, rows = run_train(tmp_path, world, 'random')
    assert sum(table['epochs_used']) == 48 and len(rows) == 12 and set(table['losses_seen']) == {0}


MOSAIC = """
train_dataloader = dict(
    _delete_=True, batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='MultiImageMixDataset',
        dataset=dict(
            type='CocoDataset', data_root=data_root, ann_file='annotations/instances_train.json',
            data_prefix=dict(img='images/'), metainfo={{_base_.metainfo}},
            filter_cfg=dict(filter_empty_gt=True),
            pipeline=[
                dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)]),
        pipeline=[
            dict(type='Mosaic', img_scale=(96, 160)),
            dict(type='Resize', scale=(160, 96), keep_ratio=True),
            dict(type='PackDetInputs')]))
"""


def test_mixed_images_train(world, tmp_path):
    table, rows = run_train(tmp_path, world, 'ucb', dynamic='period=1', more=MOSAIC)
    assert sum(table['epochs_used']) == sum(table['losses_seen']) == 48 and len(rows) == 12
