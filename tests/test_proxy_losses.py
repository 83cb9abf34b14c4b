import copy
import random
from pathlib import Path

import mmdet
import numpy as np
import pytest
import torch
from mmdet.models import RetinaNet
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData

from adadedup_mm.base.errors import UserError
from adadedup_mm.detectors.losses import sample_seed
from adadedup_mm.proxy import forward_losses_per_image, per_sample_losses

MMDET = Path(mmdet.__file__).parent / '.mim' / 'configs'
OURS = Path(__file__).parents[1] / 'configs' / 'proxy'
MIXED = [(64, 96), (96, 64), (64, 96), (60, 90), (64, 96)]
COUNTS = [3, 2, 0, 4, 1]

RESNET = {
    'model.backbone.depth': 18,
    'model.backbone.base_channels': 16,
    'model.backbone.init_cfg': None,
}
FPN = RESNET | {'model.neck.in_channels': [16, 32, 64, 128], 'model.neck.out_channels': 16}
HEAD = {
    'model.bbox_head.in_channels': 16,
    'model.bbox_head.feat_channels': 16,
    'model.bbox_head.stacked_convs': 1,
}
ROI = {
    'model.rpn_head.in_channels': 16,
    'model.rpn_head.feat_channels': 16,
    'model.roi_head.bbox_roi_extractor.out_channels': 16,
    'model.train_cfg.rpn_proposal.nms_pre': 100,
    'model.train_cfg.rpn_proposal.max_per_img': 60,
}
BOX = {'in_channels': 16, 'fc_out_channels': 32}
DETR = RESNET | {
    'model.encoder.num_layers': 1,
    'model.decoder.num_layers': 2,
    'model.num_queries': 20,
}
# A deformable transformer of 32 channels.
NARROW = DETR | {
    'model.neck.in_channels': [32, 64, 128],
    'model.neck.out_channels': 32,
    'model.neck.norm_cfg.num_groups': 4,
    'model.decoder.layer_cfg.cross_attn_cfg.embed_dims': 32,
    'model.bbox_head.embed_dims': 32,
    'model.positional_encoding.num_feats': 16,
    **{
        f'model.{part}.layer_cfg.{layer}': value
        for part in ('encoder', 'decoder')
        for layer, value in (
            ('self_attn_cfg.embed_dims', 32),
            ('ffn_cfg.embed_dims', 32),
            ('ffn_cfg.feedforward_channels', 32),
        )
    },
}

# Every detector by its own config, made narrow and shallow.
DETECTORS = {
    'faster_rcnn': (OURS / 'faster_rcnn_tiny.py', {}),
    'mask_rcnn': (
        MMDET / 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
        FPN
        | ROI
        | {
            **{f'model.roi_head.bbox_head.{key}': value for key, value in BOX.items()},
            'model.train_cfg.rcnn.sampler.num': 16,
            'model.roi_head.mask_roi_extractor.out_channels': 16,
            'model.roi_head.mask_head.in_channels': 16,
            'model.roi_head.mask_head.conv_out_channels': 16,
        },
    ),
    'cascade_rcnn': (
        MMDET / 'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py',
        FPN
        | ROI
        | {
            **{
                f'model.roi_head.bbox_head.{stage}.{key}': value
                for stage in range(3)
                for key, value in BOX.items()
            },
            **{f'model.train_cfg.rcnn.{stage}.sampler.num': 16 for stage in range(3)},
        },
    ),
    'retinanet': (MMDET / 'retinanet/retinanet_r18_fpn_1x_coco.py', FPN | HEAD),
    'fcos': (
        MMDET / 'fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py',
        FPN | HEAD | {'model.bbox_head.norm_cfg': dict(type='GN', num_groups=4)},
    ),
    'atss': (
        MMDET / 'atss/atss_r50_fpn_1x_coco.py',
        FPN | HEAD | {'model.bbox_head.stacked_convs': 0},
    ),
    'gfl': (
        MMDET / 'gfl/gfl_r50_fpn_1x_coco.py',
        FPN | HEAD | {'model.bbox_head.stacked_convs': 0},
    ),
    'tood': (
        MMDET / 'tood/tood_r50_fpn_1x_coco.py',
        FPN
        | HEAD
        | {
            'model.bbox_head.norm_cfg': dict(type='GN', num_groups=4),
            'model.bbox_head.stacked_convs': 2,
        },
    ),
    'yolox': (MMDET / 'yolox/yolox_tiny_8xb8-300e_coco.py', {}),
    'ssd': (MMDET / 'ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py', {}),
    'yolov3': (MMDET / 'yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py', {}),
    'rtmdet': (MMDET / 'rtmdet/rtmdet_tiny_8xb32-300e_coco.py', {}),
    'centernet': (
        MMDET / 'centernet/centernet_r18_8xb16-crop512-140e_coco.py',
        RESNET
        | {
            'model.neck.in_channels': 128,
            'model.neck.num_deconv_filters': (64, 32, 16),
            'model.bbox_head.in_channels': 16,
            'model.bbox_head.feat_channels': 16,
        },
    ),
    'detr': (MMDET / 'detr/detr_r50_8xb2-150e_coco.py', DETR | {'model.neck.in_channels': [128]}),
    'deformable_detr': (MMDET / 'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py', NARROW),
    'dino': (
        MMDET / 'dino/dino-4scale_r50_8xb2-12e_coco.py',
        DETR | {'model.neck.in_channels': [32, 64, 128]},
    ),
}
SLOWEST_STRIDE = {'rtmdet', 'yolox', 'yolov3'}  # their configs pad in the pipeline


def build(name, **changes):
    path, overrides = DETECTORS[name]
    config = Config.fromfile(path)
    without_weights(config.model)
    config.merge_from_dict(overrides | changes)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(config.model)
    model.init_weights()
    return model


def without_weights(settings):
    """Nothing here may be downloaded."""
    for key, value in settings.items():
        if key == 'init_cfg' and isinstance(value, dict) and value.get('type') == 'Pretrained':
            settings[key] = None
        elif isinstance(value, dict):
            without_weights(value)


def make_batch(sizes=MIXED, counts=COUNTS, masks=False, classes=3):
    generator = np.random.default_rng(0)
    inputs, samples = [], []
    for i, ((height, width), count) in enumerate(zip(sizes, counts, strict=True)):
        corners = generator.uniform(0, 0.6, (count, 2))
        boxes = np.concatenate([corners, corners + generator.uniform(0.2, 0.4, (count, 2))], 1)
        boxes = (boxes * [width, height, width, height]).astype(np.float32)
        sample = DetDataSample(
            metainfo=dict(
                img_id=i + 10,
                img_shape=(height, width),
                ori_shape=(height, width),
                scale_factor=(1.0, 1.0),
            )
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.from_numpy(boxes),
            labels=torch.from_numpy(generator.integers(0, classes, count)),
        )
        sample.ignored_instances = InstanceData(
            bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)
        )
        if masks:
            bitmap = np.zeros((count, height, width), np.uint8)
            for mask, (x1, y1, x2, y2) in zip(bitmap, boxes.astype(int), strict=True):
                mask[y1:y2, x1:x2] = 1
            sample.gt_instances.masks = BitmapMasks(bitmap, height, width)
        inputs.append(
            torch.from_numpy(generator.integers(0, 256, (3, height, width), dtype=np.uint8))
        )
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


def batch_for(name):
    if name == 'ssd':
        return make_batch([(320, 320)] * 3, [2, 0, 3])
    if name in SLOWEST_STRIDE:
        return make_batch([(64, 96), (96, 64), (64, 96)], [3, 2, 0])
    return make_batch(masks=name == 'mask_rcnn')


def some(batch, positions):
    return {key: [values[i] for i in positions] for key, values in batch.items()}


def image_by_image(model, batch, seed):
    """Each image alone through MMDetection's ``model.loss``, no batch statistics or dropout."""
    model.train()
    for module in model.modules():
        if isinstance(
            module,
            (torch.nn.modules.batchnorm._BatchNorm, torch.nn.Dropout, torch.nn.MultiheadAttention),
        ):
            module.eval()
    model.data_preprocessor.batch_augments = None
    losses = []
    for image, sample in zip(batch['inputs'], batch['data_samples'], strict=True):
        data = model.data_preprocessor(
            dict(inputs=[image], data_samples=[copy.deepcopy(sample)]), True
        )
        for set_seed in (random.seed, np.random.seed, torch.manual_seed):
            set_seed(sample_seed(seed, sample))
        with torch.no_grad():
            losses.append(model.parse_losses(model.loss(data['inputs'], data['data_samples']))[0])
    return torch.stack(losses)


@pytest.mark.parametrize('name', DETECTORS)
def test_equal_to_running_images_one_by_one(name, monkeypatch):
    if name == 'tood':  # asks the current training for its epoch
        from mmengine.logging import MessageHub

        monkeypatch.setattr(MessageHub, '_instance_dict', {})
        MessageHub.get_instance('test').update_info('epoch', 12)
    model, batch = build(name), batch_for(name)
    losses = per_sample_losses(model, batch, seed=3)
    assert losses.shape == (len(batch['inputs']),) and losses.dtype == torch.float32
    torch.testing.assert_close(losses, image_by_image(model, batch, 3), rtol=1e-5, atol=1e-5)
    order = [len(losses) - 1, 0, 1]
    again = per_sample_losses(model, some(batch, order), seed=3)
    torch.testing.assert_close(again, losses[order], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('name', ['faster_rcnn', 'retinanet', 'detr'])
def test_backbone_runs_once_per_padded_shape(name):
    model, sizes = build(name), []
    model.backbone.register_forward_hook(lambda module, args, output: sizes.append(len(args[0])))
    per_sample_losses(model, make_batch())
    assert sorted(sizes) == (
        [1, 4] if name != 'detr' else [1, 1, 3]
    )  # DETR does not round shapes up


def test_detector_whose_loss_changes_the_batch_is_run_image_by_image():
    class Doubling(RetinaNet):
        def loss(self, batch_inputs, batch_data_samples):
            return super().loss(
                torch.cat([batch_inputs, batch_inputs]), [*batch_data_samples, *batch_data_samples]
            )

    model, batch = build('retinanet'), make_batch()
    expected = per_sample_losses(model, batch)
    model.__class__ = Doubling
    torch.testing.assert_close(per_sample_losses(model, batch), expected)


def test_detector_whose_features_are_no_batch_is_run_image_by_image():
    class Tripling(RetinaNet):
        def extract_feat(self, batch_inputs):
            return [level.repeat(3, 1, 1, 1) for level in super().extract_feat(batch_inputs)]

        def loss(self, batch_inputs, batch_data_samples):
            return self.bbox_head.loss(self.extract_feat(batch_inputs), batch_data_samples * 3)

    model, batch = build('retinanet'), make_batch()
    expected = per_sample_losses(model, batch)
    model.__class__ = Tripling
    torch.testing.assert_close(per_sample_losses(model, batch), expected)


def test_stacked_inputs_and_wrapped_models_work():
    model, batch = build('retinanet'), make_batch([(64, 96)] * 3, [2, 0, 1])
    expected = per_sample_losses(model, batch)
    assert torch.equal(
        per_sample_losses(model, dict(batch, inputs=torch.stack(batch['inputs']))), expected
    )
    assert torch.equal(per_sample_losses(torch.nn.DataParallel(model), batch), expected)


def test_nothing_is_left_behind():
    model, batch = build('mask_rcnn').train(), make_batch(masks=True)
    model.backbone.eval()
    before = copy.deepcopy((batch, model.state_dict()))
    modes = [module.training for module in model.modules()]
    attributes = [
        set(vars(module)) for module in (model, model.rpn_head, model.rpn_head.prior_generator)
    ]
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    per_sample_losses(model, batch)
    assert states == (
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
    )
    assert modes == [module.training for module in model.modules()]
    assert attributes == [
        set(vars(module)) for module in (model, model.rpn_head, model.rpn_head.prior_generator)
    ]
    assert all(torch.equal(value, before[1][key]) for key, value in model.state_dict().items())
    for sample, old in zip(batch['data_samples'], before[0]['data_samples'], strict=True):
        assert sample.metainfo == old.metainfo
        assert torch.equal(sample.gt_instances.bboxes, old.gt_instances.bboxes)
        assert np.array_equal(sample.gt_instances.masks.masks, old.gt_instances.masks.masks)
    assert all(
        torch.equal(image, old)
        for image, old in zip(batch['inputs'], before[0]['inputs'], strict=True)
    )


def test_heads_that_remember_earlier_batches_do_not():
    dynamic = dict(
        iou_topk=5, beta_topk=5, update_iter_interval=2, initial_iou=0.4, initial_beta=1.0
    )
    model = build(
        'faster_rcnn',
        **{
            'model.roi_head.type': 'DynamicRoIHead',
            'model.train_cfg.rcnn.dynamic_rcnn': dynamic,
            'model.roi_head.bbox_head.loss_bbox': dict(type='SmoothL1Loss', beta=1.0),
        },
    )
    batch = make_batch([(64, 96)] * 6, [2, 3, 1, 2, 2, 3])
    losses = per_sample_losses(model, batch)
    assert model.roi_head.iou_history == []
    for positions in ([5, 4], [0], [2, 1, 3]):
        torch.testing.assert_close(
            per_sample_losses(model, some(batch, positions)), losses[positions]
        )


def test_class_counts_of_losses_are_put_back():
    model = build('faster_rcnn')
    model.rpn_head.loss_cls = Counting()
    batch = make_batch([(64, 96)] * 3, [2, 3, 1])
    losses = per_sample_losses(model, batch)
    assert model.rpn_head.loss_cls.seen == 0
    torch.testing.assert_close(per_sample_losses(model, some(batch, [2, 0])), losses[[2, 0]])


class Counting(torch.nn.Module):
    """A loss that grows with every call."""

    def __init__(self):
        super().__init__()
        self.register_buffer('seen', torch.zeros(()))

    def forward(self, prediction, target, weight, avg_factor):
        self.seen += 1
        return self.seen + 0 * prediction.sum()


def test_components_add_up():
    model, batch = build('faster_rcnn'), make_batch()
    total, components = per_sample_losses(model, batch, components=True)
    assert set(components) == {'loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox'}
    torch.testing.assert_close(sum(components.values()), total)
    assert components['loss_bbox'][2] == 0  # no objects
    assert torch.equal(total, per_sample_losses(model, batch))


def test_seed_and_sample_id_decide_the_roi_sampling():
    model = build('faster_rcnn', **{'model.train_cfg.rpn.sampler.num': 8})
    batch = make_batch([(64, 96)] * 3, [3, 3, 3])
    losses = per_sample_losses(model, batch, seed=1)
    assert torch.equal(per_sample_losses(model, batch, seed=1), losses)
    assert not torch.equal(per_sample_losses(model, batch, seed=2), losses)
    for sample in batch['data_samples']:
        sample.set_metainfo(dict(img_id=sample.img_id + 100))
    assert not torch.equal(per_sample_losses(model, batch, seed=1), losses)


def test_other_processes_are_not_asked(monkeypatch):
    """Averaging a normaliser over processes would mix samples and hang on uneven shards."""

    def fail(*args, **kwargs):
        raise AssertionError('a collective operation')

    model, batch = build('fcos'), make_batch()
    expected = per_sample_losses(model, batch)
    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: True)
    monkeypatch.setattr(torch.distributed, 'all_reduce', fail)
    assert torch.equal(per_sample_losses(model, batch), expected)
    assert torch.distributed.is_initialized()


def test_training_step_yields_losses_with_gradients():
    model, batch = build('faster_rcnn').train(), make_batch([(64, 96)] * 3, [2, 1, 3])
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()

    def gradients(groups):
        model.zero_grad()
        for positions in groups:
            data = model.data_preprocessor(some(batch, positions), True)
            losses = forward_losses_per_image(
                model, data['inputs'], data['data_samples'], lambda i: torch.manual_seed(0)
            )
            sum(model.parse_losses(image)[0] for image in losses).backward()
        return [
            parameter.grad.clone() for parameter in model.parameters() if parameter.requires_grad
        ]

    for together, alone in zip(gradients([[0, 1, 2]]), gradients([[0], [1], [2]]), strict=True):
        torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-5)


def test_training_step_refuses_inputs_that_are_no_images():
    samples = make_batch()['data_samples'][:2]
    with pytest.raises(UserError, match='RetinaNet.*batch size of 1'):
        forward_losses_per_image(
            build('retinanet'), dict(points=[torch.zeros(5, 4), torch.zeros(3, 4)]), samples
        )


def test_wrong_input_gives_one_clear_line():
    model, batch = build('retinanet'), make_batch()
    with pytest.raises(UserError, match="Linear has no 'loss'"):
        per_sample_losses(torch.nn.Linear(2, 2), batch)
    with pytest.raises(UserError, match="'data_samples'"):
        per_sample_losses(model, dict(inputs=batch['inputs']))
    with torch.no_grad():
        model.bbox_head.retina_cls.bias.fill_(float('nan'))
    with pytest.raises(UserError, match='RetinaNet: the loss of sample 10 is not finite'):
        per_sample_losses(model, batch)
