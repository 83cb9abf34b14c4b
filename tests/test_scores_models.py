"""What detectors and classifiers say about the objects of a sample."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData

from adadedup_mm.base.errors import UserError
from adadedup_mm.detectors.losses import per_sample_gradient_norms
from adadedup_mm.proxy import per_sample_losses, proxy_config
from adadedup_mm.scores import measure as measuring
from adadedup_mm.scores.observe import batch_size, observe

OURS = Path(__file__).parents[1] / 'configs' / 'proxy'
CLASSES = 3
LOGITS = (1.0, -0.5, 0.2)
ANCHORS = dict(type='AnchorGenerator', ratios=[1.0], strides=[4, 8, 16, 32, 64])
RETINA = dict(
    type='RetinaHead',
    num_classes=CLASSES,
    in_channels=16,
    feat_channels=16,
    stacked_convs=1,
    anchor_generator=dict(ANCHORS, octave_base_scale=4, scales_per_octave=2),
    loss_cls=dict(type='FocalLoss', use_sigmoid=True),
    loss_bbox=dict(type='L1Loss'),
)
ATSS = dict(
    type='ATSSHead',
    num_classes=CLASSES,
    in_channels=16,
    feat_channels=16,
    stacked_convs=1,
    norm_cfg=None,
    anchor_generator=dict(ANCHORS, octave_base_scale=8, scales_per_octave=1),
    loss_cls=dict(type='FocalLoss', use_sigmoid=True),
    loss_bbox=dict(type='GIoULoss'),
)
PAA = dict(ATSS, type='PAAHead', loss_centerness=dict(type='CrossEntropyLoss', use_sigmoid=True))
FCOS = dict(
    type='FCOSHead',
    num_classes=CLASSES,
    in_channels=16,
    feat_channels=16,
    stacked_convs=1,
    norm_cfg=None,
)


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def two_stage(**changes):
    config = proxy_config(Config.fromfile(OURS / 'faster_rcnn_tiny.py'), CLASSES)
    config.merge_from_dict({'model.roi_head.bbox_head.fc_out_channels': 16} | changes)
    return config.model


def cascade():
    model = two_stage()
    stages, train = 2, model.train_cfg.rcnn
    model.roi_head.update(
        type='CascadeRoIHead',
        num_stages=stages,
        stage_loss_weights=[1.0, 0.5],
        bbox_head=[dict(model.roi_head.bbox_head, reg_class_agnostic=True)] * stages,
    )
    model.train_cfg.rcnn = [train] * stages
    return model


def single_stage(head):
    model = two_stage()
    for name in ('rpn_head', 'roi_head'):
        model.pop(name)
    assigner = (
        dict(type='ATSSAssigner', topk=9)
        if head is ATSS
        else dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0)
    )
    model.update(
        type='SingleStageDetector',
        bbox_head=head,
        test_cfg=None,
        train_cfg=dict(
            assigner=assigner, sampler=dict(type='PseudoSampler'), allowed_border=-1, pos_weight=-1
        ),
    )
    model.neck.update(out_channels=16, num_outs=5, start_level=0, add_extra_convs=False)
    return model


def built(config):
    torch.manual_seed(0)
    return MODELS.build(config).eval()


def make_batch(*numbers_of_objects, seed=0):
    from mmdet.structures import DetDataSample

    rng = np.random.default_rng(seed)
    samples, images = [], []
    for i, count in enumerate(numbers_of_objects):
        corners = rng.uniform(0, 70, (count, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(15, 50, (count, 2))], 1)
        shapes = dict.fromkeys(
            ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), (128, 128)
        )
        sample = DetDataSample(metainfo=dict(shapes, img_id=i, scale_factor=(1.0, 1.0)))
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            labels=torch.from_numpy(rng.integers(CLASSES, size=count)),
        )
        sample.ignored_instances = InstanceData(
            bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64)
        )
        samples.append(sample)
        images.append(torch.from_numpy(rng.integers(0, 255, (3, 128, 128)).astype(np.uint8)))
    return dict(inputs=images, data_samples=samples)


def constant(layer, logits):
    """Lets a prediction layer answer the same everywhere."""
    torch.nn.init.zeros_(layer.weight)
    layer.bias.data = torch.tensor(logits).repeat(len(layer.bias) // len(logits))


def errors_of(scores, labels):
    return np.linalg.norm(scores - np.eye(len(scores))[labels], axis=1)


@pytest.mark.parametrize('make', [two_stage, cascade])
def test_box_heads_give_every_object_the_error_of_its_regions(make):
    model = built(make())
    head = model.roi_head.bbox_head
    constant((head[-1] if isinstance(head, torch.nn.ModuleList) else head).fc_cls, (*LOGITS, 0.0))
    # More objects than the head's sampler would take.
    batch = make_batch(40)
    rows = observe(model, batch, 'error', is_classifier=False)
    labels = batch['data_samples'][0].gt_instances.labels.numpy()
    scores = np.exp([*LOGITS, 0.0]) / np.exp([*LOGITS, 0.0]).sum()
    assert rows.shape == (40, 3) and not rows[:, 0].any()
    assert rows[:, 1] == pytest.approx(errors_of(scores, labels), abs=1e-6)
    assert np.array_equal(rows[:, 2], labels == 0)


@pytest.mark.parametrize(
    'head, layer', [(RETINA, 'retina_cls'), (ATSS, 'atss_cls'), (PAA, 'atss_cls')]
)
def test_anchor_heads_give_every_object_the_error_of_its_anchors(head, layer):
    model = built(single_stage(head))
    constant(getattr(model.bbox_head, layer), LOGITS)
    batch = make_batch(6)
    rows = observe(model, batch, 'error', is_classifier=False)
    labels = batch['data_samples'][0].gt_instances.labels.numpy()
    scores = 1 / (1 + np.exp(-np.array(LOGITS)))
    assert rows[:, 1] == pytest.approx(errors_of(scores, labels), abs=1e-6)
    assert np.array_equal(rows[:, 2], labels == 0)


def test_anchors_are_booked_to_the_object_that_they_overlap():
    """Two objects of one class, and scores that are high on the left half of the image only."""
    model = built(single_stage(RETINA))
    batch = make_batch(2)
    objects = batch['data_samples'][0].gt_instances
    objects.bboxes = torch.tensor([[80.0, 40.0, 112.0, 72.0], [16.0, 40.0, 48.0, 72.0]])
    objects.labels = torch.tensor([1, 1])
    forward = model.bbox_head.forward

    def left_is_sure(features):
        scores, boxes = forward(features)
        scores = [torch.full_like(level, -9.0) for level in scores]
        for level in scores:
            level[..., : level.shape[-1] // 2] = 9.0
        return scores, boxes

    model.bbox_head.forward = left_is_sure
    right, left = observe(model, batch, 'error', is_classifier=False)
    assert right[1] == pytest.approx(1, abs=1e-3)
    assert left[1] == pytest.approx(np.sqrt(2), abs=1e-3)


@pytest.mark.parametrize('make', [two_stage, lambda: single_stage(RETINA)])
def test_images_without_objects_have_no_rows_and_nothing_is_left_behind(make):
    model = built(make())
    before = {name: dict(vars(module)) for name, module in model.named_modules()}
    losses = per_sample_losses(model, make_batch(3))
    assert observe(model, make_batch(0), 'error', is_classifier=False).shape == (0, 3)
    first = observe(model, make_batch(3), 'error', is_classifier=False)
    assert np.array_equal(first, observe(model, make_batch(3), 'error', is_classifier=False))
    for name, module in model.named_modules():
        assert vars(module).keys() == before[name].keys()
    assert torch.equal(per_sample_losses(model, make_batch(3)), losses)


@pytest.mark.parametrize('left_over', [float('nan'), -float('inf'), 1e30])
def test_the_trial_does_not_depend_on_what_unset_weights_hold(left_over, monkeypatch, tmp_path):
    model, batch = built(single_stage(RETINA)), make_batch(2)
    for value in model.neck.parameters():
        value.data.fill_(left_over)
    with pytest.raises(UserError, match='not finite'):
        observe(model, batch, 'loss', is_classifier=False)
    items = [dict(inputs=batch['inputs'][0], data_samples=batch['data_samples'][0])]
    monkeypatch.setattr(measuring, 'build_detector', lambda config: model)
    monkeypatch.setattr(measuring, 'build_scored_dataset', lambda config, dataset: items)
    measuring.try_measure(Config(), {}, 0, 'loss', tmp_path / 'trial.log')


def test_a_detector_that_hides_its_assignment_is_refused_in_one_line():
    with pytest.raises(UserError, match='adadedup.proxy.config.*gradients or losses') as error:
        observe(built(single_stage(FCOS)), make_batch(2), 'error', is_classifier=False)
    assert '\n' not in str(error.value)
    assert (
        observe(built(single_stage(FCOS)), make_batch(2), 'gradient', is_classifier=False)[0, 1] > 0
    )


@pytest.mark.parametrize('make', [two_stage, lambda: single_stage(FCOS)])
def test_gradient_norms_are_those_of_each_image_alone(make):
    model = built(make())
    batch = make_batch(3, 0, 5)
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    chosen = [parameter for name, parameter in model.named_parameters() if 'head' in name]
    norms = per_sample_gradient_norms(model, batch, chosen, seed=4)
    alone = [
        per_sample_gradient_norms(
            model, dict(inputs=[image], data_samples=[sample]), chosen, seed=4
        )
        for image, sample in zip(batch['inputs'], batch['data_samples'], strict=True)
    ]
    assert torch.allclose(norms, torch.cat(alone))
    assert (norms > 0).all()
    assert flags == {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert all(parameter.grad is None for parameter in model.parameters())
    rows = observe(
        model,
        dict(inputs=batch['inputs'][:1], data_samples=batch['data_samples'][:1]),
        'gradient',
        is_classifier=False,
        seed=4,
    )
    assert rows[0, 1] == pytest.approx(float(norms[0]))


def test_a_gradient_norm_says_how_fast_the_loss_falls():
    """A step of length h against the gradient lowers the loss by about h times its norm."""
    model = built(single_stage(RETINA))
    batch, step = make_batch(3), 1e-3
    chosen = [parameter for name, parameter in model.named_parameters() if 'bbox_head' in name]
    norm = float(per_sample_gradient_norms(model, batch, chosen))
    before = float(per_sample_losses(model, batch))
    inputs = model.data_preprocessor(batch, training=True)
    total, _ = model.parse_losses(model.loss(inputs['inputs'], inputs['data_samples']))
    for parameter, gradient in zip(chosen, torch.autograd.grad(total, chosen), strict=True):
        parameter.data -= step * gradient / norm
    assert before - float(per_sample_losses(model, batch)) == pytest.approx(step * norm, rel=0.05)


def classifier(**head):
    pytest.importorskip('mmpretrain')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        torch.manual_seed(0)
        return MODELS.build(
            dict(
                type='ImageClassifier',
                data_preprocessor=dict(num_classes=CLASSES, mean=[0], std=[255], to_rgb=False),
                backbone=dict(
                    type='ResNet_CIFAR', depth=18, in_channels=1, stem_channels=4, base_channels=4
                ),
                neck=dict(type='GlobalAveragePooling'),
                head=head or dict(type='LinearClsHead', num_classes=CLASSES, in_channels=32),
            )
        ).eval()


def labelled(count):
    from mmpretrain.structures import DataSample

    rng = np.random.default_rng(1)
    samples = [
        DataSample(metainfo=dict(num_classes=CLASSES)).set_gt_label(int(rng.integers(CLASSES)))
        for _ in range(count)
    ]
    return dict(
        inputs=[
            torch.from_numpy(rng.integers(0, 255, (1, 8, 8)).astype(np.uint8)) for _ in range(count)
        ],
        data_samples=samples,
    )


def test_classifiers_count_an_image_as_one_object():
    model = classifier()
    batch = labelled(7)
    rows = {
        measure: observe(model, batch, measure, is_classifier=True)
        for measure in ('error', 'gradient', 'loss')
    }
    logits = model(model.data_preprocessor(batch)['inputs']).detach()
    labels = torch.tensor([int(sample.gt_label) for sample in batch['data_samples']])
    errors = logits.softmax(1) - torch.nn.functional.one_hot(labels, CLASSES)
    assert rows['error'][:, 0].tolist() == list(range(7))
    assert rows['error'][:, 1] == pytest.approx(errors.norm(dim=1).numpy(), rel=1e-5)
    assert np.array_equal(rows['error'][:, 2], (logits.argmax(1) == labels).numpy())
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction='none')
    assert rows['loss'][:, 1] == pytest.approx(losses.numpy())
    last = list(model.head.fc.parameters())
    assert rows['gradient'][:, 1] == pytest.approx(
        per_sample_gradient_norms(model, batch, last).numpy(), rel=1e-4
    )
    for measure, whole in rows.items():
        single = [
            observe(
                model, dict(inputs=[image], data_samples=[sample]), measure, is_classifier=True
            )[0, 1:]
            for image, sample in zip(batch['inputs'], batch['data_samples'], strict=True)
        ]
        assert np.array(single) == pytest.approx(whole[:, 1:], rel=1e-4)


def test_classifiers_without_a_linear_end_have_no_last_layer():
    model = classifier()
    weight, bias = model.head.fc.weight, model.head.fc.bias
    model.head.fc = torch.nn.Conv2d(32, CLASSES, 1)
    model.head.forward = lambda features: torch.nn.functional.linear(features[-1], weight, bias)
    assert len(observe(model, labelled(2), 'error', is_classifier=True)) == 2
    with pytest.raises(UserError, match='linear layer'):
        observe(model, labelled(2), 'gradient', is_classifier=True)


def test_only_objects_and_gradients_of_detectors_are_taken_one_by_one():
    assert (
        batch_size('loss', False, 8)
        == batch_size('error', True, 8)
        == batch_size('gradient', True, 8)
        == 16
    )
    assert batch_size('error', False, 8) == batch_size('gradient', False, 8) == 1
