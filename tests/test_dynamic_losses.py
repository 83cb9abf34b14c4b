"""Every registered loss in every head that takes it: a dynamic step trains as a plain one does.

``FUZZ=1`` tries all of MMDetection's losses in all places of nine detectors instead of three
places.
"""

import copy
import inspect
import os
import warnings

import pytest
import torch
from mmdet.registry import MODELS as DETECTION
from test_dynamic_detectors import (
    atss,
    deformable_detr,
    detector,
    dino,
    faster_rcnn,
    fcos,
    gfl,
    retinanet,
    samples,
    yolox,
)
from test_dynamic_training import Clouds, Perceptron
from torch import nn

from adadedup_mm.base.errors import UserError
from adadedup_mm.detectors.criteria import copied
from adadedup_mm.detectors.isolation import ModuleMemory
from adadedup_mm.dynamic import SampleLosses

WEIGHTS = torch.tensor([2.0, 0.0, 0.5])
CLASSES = 80


def yolo3():
    return detector(
        'yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py',
        backbone=dict(
            _delete_=True,
            type='ResNet',
            depth=18,
            base_channels=4,
            out_indices=(1, 2, 3),
            norm_eval=True,
        ),
        neck=dict(in_channels=[32, 16, 8], out_channels=[16, 16, 16]),
        bbox_head=dict(in_channels=[16, 16, 16], out_channels=[16, 16, 16]),
    )


EVERYTHING = [retinanet, faster_rcnn, fcos, atss, gfl, deformable_detr, dino, yolox, yolo3]
PLACES = (
    [(build, '') for build in EVERYTHING]
    if 'FUZZ' in os.environ
    else [(retinanet, ''), (faster_rcnn, 'Shared2FCBBoxHead.loss_cls')]
)


def small_samples():
    """Three images of 64 x 64 with one to three objects."""
    inputs, labels = samples()
    for sample in labels:
        keys = ('img_shape', 'pad_shape', 'batch_input_shape', 'ori_shape')
        sample.set_metainfo(dict.fromkeys(keys, (64, 64)))
        sample.gt_instances.bboxes = sample.gt_instances.bboxes / 2
    return inputs[..., ::2, ::2], labels


def losses_of(registry, package):
    """The classes of a package that a registry knows, by name."""
    return {
        name: kind
        for name, kind in sorted(registry.module_dict.items())
        if kind.__module__.startswith(package)
    }


def variants(kind, classes):
    """A loss in all ways in which it can be built: sigmoid or softmax, with a memory, as a sum."""
    known = inspect.signature(kind.__init__).parameters
    needed = dict(num_classes=classes) if 'num_classes' in known else {}
    for change in ({}, dict(use_sigmoid=True), dict(momentum=0.75), dict(reduction='sum')):
        if set(change) <= set(known):
            try:
                yield kind(
                    **needed, **change, **(dict(loss_weight=3.0) if 'loss_weight' in known else {})
                )
            except (AssertionError, NotImplementedError, TypeError):
                continue


def slots(model):
    """The heads of a model and the names of their criteria."""
    for _, head in model.named_modules():
        for name, child in head.named_children():
            if (
                name.startswith('loss')
                and 'Head' in type(head).__name__
                and isinstance(child, nn.Module)
            ):
                yield head, name


def step(model, data, weights=None, mode='auto', watched=True, backward=False):
    """Total loss, losses of the samples and mode of a step on a copy of the model, and the copy."""
    model, (inputs, labels) = copy.deepcopy(model), copy.deepcopy(data)
    losses = SampleLosses(model, mode) if watched else None
    if losses is not None:
        losses.start(torch.ones(len(labels)) if weights is None else weights)
    torch.manual_seed(0)
    total = model.parse_losses(model.loss(inputs, labels))[0]
    values = None if losses is None else losses.take()
    if backward:
        total.backward()
    return total.detach(), values, losses, model


def assert_same_or_told(model, data, name):
    """Compares a dynamic step to a plain one; returns the mode, or None if a plain one fails."""
    try:
        plain, _, _, left = step(model, data, watched=False)
    except Exception:
        return None  # The head does not take that loss.
    if not plain.isfinite():
        return None
    state = torch.get_rng_state()
    try:
        total, values, losses, model_after = step(model, data)
    except UserError as error:
        assert '\n' not in str(error), name
        return 'refused'
    assert torch.equal(total, plain), name
    # Buffers of criteria and normalisation layers, and random numbers, go on as after the plain
    # step.
    for key, value in left.state_dict().items():
        assert torch.equal(value, model_after.state_dict()[key]), (name, key)
    assert torch.equal(state, torch.get_rng_state()), name
    if losses.mode == 'image':
        double = step(model, data, torch.full((3,), 2.0))[0]
        torch.testing.assert_close(double, 2 * plain, rtol=1e-3, atol=1e-6, msg=name)
        return 'image'
    torch.testing.assert_close(values.mean(), total, rtol=1e-3, atol=1e-6, msg=name)
    weighted, values, _, _ = step(model, data, WEIGHTS)
    torch.testing.assert_close(weighted, (WEIGHTS * values).mean(), rtol=1e-3, atol=1e-6, msg=name)
    return losses.mode


@pytest.mark.parametrize('build, place', PLACES, ids=[build.__name__ for build, _ in PLACES])
def test_every_loss_of_mmdetection_in_every_head(build, place):
    model, data = build(), small_samples()
    modes = {}
    for head, slot in list(slots(model)):
        if place not in f'{type(head).__name__}.{slot}':
            continue
        before = getattr(head, slot)
        for name, kind in losses_of(DETECTION, 'mmdet.models.losses').items():
            for i, loss in enumerate(variants(kind, CLASSES)):
                setattr(head, slot, loss)
                channels = getattr(head, 'fc_cls', None)
                if (
                    slot == 'loss_cls'
                    and channels is not None
                    and hasattr(loss, 'get_cls_channels')
                ):
                    head.fc_cls = nn.Linear(channels.in_features, loss.get_cls_channels(CLASSES))
                with warnings.catch_warnings():
                    warnings.simplefilter('ignore')
                    label = f'{name}[{i}] as {type(head).__name__}.{slot}'
                    modes[label] = assert_same_or_told(model, data, label)
                if channels is not None:
                    head.fc_cls = channels
        setattr(head, slot, before)
    taken = {label: mode for label, mode in modes.items() if mode is not None}
    assert len(taken) > 10
    if build is retinanet:
        assert {taken[f'GHMC[{i}] as RetinaHead.loss_cls'] for i in range(3)} == {'batch'}
    if build is faster_rcnn:
        assert taken['EQLV2Loss[0] as Shared2FCBBoxHead.loss_cls'] == 'image'


def points():
    data = [Clouds().prepare_data(i) for i in range(5)]
    return torch.stack([item['inputs'] for item in data]), [item['data_samples'] for item in data]


def plain_and_dynamic(criterion, mode='auto', weights=None, model=None):
    """A perceptron's losses of a plain and a dynamic step, the samples' losses, what took them."""
    torch.manual_seed(0)
    model = model or Perceptron()
    model.criterion = criterion
    inputs, labels = points()
    other = copy.deepcopy(model)
    torch.manual_seed(1)
    plain = other(inputs, labels, mode='loss')
    losses = SampleLosses(model, mode)
    losses.start(torch.ones(5) if weights is None else weights)
    torch.manual_seed(1)
    total = model(inputs, labels, mode='loss')
    values = losses.take()
    for key, value in other.state_dict().items():
        assert torch.equal(value, model.state_dict()[key])
    return sum(plain.values()), sum(total.values()), values, losses


class Counting(nn.Module):
    """Weights by the classes seen so far, and some noise: another loss at every call."""

    def __init__(self):
        super().__init__()
        self.reduction = 'mean'
        self.register_buffer('counts', torch.ones(2))
        self.calls = 0

    def forward(self, scores, target, reduction_override=None):
        self.calls += 1
        self.counts += torch.bincount(target, minlength=2)
        noise = 1 + torch.rand(len(target))
        losses = (
            nn.functional.cross_entropy(scores, target, reduction='none')
            * noise
            / self.counts[target]
        )
        return (
            losses
            if (reduction_override or self.reduction) == 'none'
            else losses.sum() / self.calls
        )


class Rooted(nn.MSELoss):
    """The root of a mean, which is no sum over samples."""

    def forward(self, scores, target):
        losses = super().forward(scores[:, 0], target.float())
        return losses if self.reduction == 'none' else losses.sqrt()


class Hardest(nn.Module):
    """The mean of the highest elements, but all of them where one asks for elements."""

    reduction = 'mean'

    def forward(self, scores, target, reduction_override=None):
        losses = nn.functional.cross_entropy(scores, target, reduction='none')
        return losses if reduction_override == 'none' else losses.topk(2)[0].mean()


class Scalar(nn.Module):
    """Takes no notice of what is asked for."""

    def forward(self, scores, target, reduction_override=None):
        return nn.functional.cross_entropy(scores, target)


class Asserting(nn.CrossEntropyLoss):
    def forward(self, scores, target):
        assert self.reduction == 'mean'
        return super().forward(scores, target)


@pytest.mark.parametrize(
    'criterion',
    [
        nn.CrossEntropyLoss(reduction='sum'),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0])),
        nn.CrossEntropyLoss(label_smoothing=0.2),
        nn.CrossEntropyLoss(ignore_index=1),
        nn.MultiMarginLoss(),
        nn.MultiMarginLoss(reduction='sum'),
        Counting(),
    ],
    ids=lambda criterion: type(criterion).__name__,
)
def test_criteria_that_sum_weigh_or_count_are_trained_on_as_they_are(criterion):
    plain, total, values, losses = plain_and_dynamic(criterion)
    assert losses.mode == 'element' and torch.equal(plain, total)
    torch.testing.assert_close(values.mean(), total)
    weights = torch.tensor([2.0, 0.0, 1.0, 1.0, 3.0])
    _, weighted, values, _ = plain_and_dynamic(criterion, weights=weights)
    torch.testing.assert_close(weighted, (weights * values).mean())


@pytest.mark.parametrize('mode', ['auto', 'element'])
@pytest.mark.parametrize(
    'criterion',
    [Rooted(), Hardest(), Scalar(), Asserting()],
    ids=lambda criterion: type(criterion).__name__,
)
def test_criteria_that_are_no_sum_over_samples_are_refused_in_one_line(criterion, mode):
    with pytest.raises(UserError, match=type(criterion).__name__) as error:
        plain_and_dynamic(criterion, mode)
    assert '\n' not in str(error.value) and 'policy random' in str(error.value)


class WithPenalty(Perceptron):
    """A part of the loss that no criterion computes."""

    factor = 1.0

    def forward(self, inputs, data_samples=None, mode='tensor'):
        result = super().forward(inputs, data_samples, mode)
        size = self.factor * self.layers[0].weight.square().sum()
        return result if mode == 'tensor' else dict(result, loss_size=size)


def test_a_part_of_the_loss_that_no_sample_has_is_told():
    with pytest.raises(UserError, match='do not add up'):
        plain_and_dynamic(nn.CrossEntropyLoss(), model=WithPenalty())


class InPairs(Perceptron):
    """Two rows for each sample, of which it is not known which belong together."""

    def forward(self, inputs, data_samples=None, mode='tensor'):
        twice = torch.cat([inputs, inputs])
        return super().forward(
            twice, None if mode == 'tensor' else [*data_samples, *data_samples], mode
        )


def test_elements_that_are_not_one_for_each_sample_are_told():
    with pytest.raises(UserError, match='10 loss elements do not belong to 5 samples'):
        plain_and_dynamic(nn.CrossEntropyLoss(), model=InPairs())


def test_a_criterion_that_is_replaced_is_looked_at_again():
    torch.manual_seed(0)
    model, (inputs, labels) = Perceptron().eval(), points()
    losses = SampleLosses(model)
    for criterion in (
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(reduction='sum'),
        nn.MultiMarginLoss(),
    ):
        model.criterion = criterion
        losses.start(torch.ones(5))
        total = model(inputs, labels, mode='loss')['loss']
        torch.testing.assert_close(losses.take().mean(), total)
        assert torch.equal(total, model(inputs, labels, mode='loss')['loss'])
    model.criterion = Hardest()
    losses.start(torch.ones(5))
    with pytest.raises(UserError, match='Hardest'):
        model(inputs, labels, mode='loss')


def test_between_steps_the_model_is_as_it_was():
    model, (inputs, labels) = retinanet(), small_samples()
    losses = SampleLosses(model)
    for _ in range(2):
        losses.start(torch.ones(3))
        assert 'loss' in vars(model)
        model.loss(inputs, labels)
        losses.take()
        assert not any(
            'forward' in vars(module) or 'loss' in vars(module) for module in model.modules()
        )
        assert 'loss_by_feat_single' not in vars(model.bbox_head)


def test_a_part_of_the_loss_that_comes_in_later_is_noticed():
    model, (inputs, labels) = WithPenalty().eval(), points()
    model.factor = 0.0
    losses = SampleLosses(model)
    for factor, message in ((0.0, None), (1.0, 'no longer add up')):
        model.factor = factor
        losses.start(torch.ones(5))
        model(inputs, labels, mode='loss')
        losses.take()
        problem = losses.problem()
        assert (problem is None) if message is None else message in problem
    assert losses.problem() is None
    with pytest.raises(UserError, match='no longer add up'):
        losses.reject(problem)


@pytest.mark.parametrize('kind', ['EQLV2Loss', 'SeesawLoss'])
def test_what_a_criterion_remembers_in_mode_image_is_the_batch(kind):
    model, data = faster_rcnn(), small_samples()
    head = model.roi_head.bbox_head
    head.loss_cls = DETECTION.build(dict(type=kind, num_classes=CLASSES))
    if hasattr(head.loss_cls, 'get_cls_channels'):
        head.fc_cls = nn.Linear(head.fc_cls.in_features, head.loss_cls.get_cls_channels(CLASSES))
    before = dict(head.loss_cls.named_buffers())
    plain, _, _, left = step(model, data, watched=False)
    wanted = dict(left.roi_head.bbox_head.loss_cls.named_buffers())
    assert any(not torch.equal(before[name], value) for name, value in wanted.items())
    for weights in (torch.ones(3), WEIGHTS):
        total, _, losses, after = step(model, data, weights, 'image', backward=True)
        assert losses.mode == 'image' and losses.note
        assert torch.equal(total, plain) == (weights is not WEIGHTS)
        for name, value in after.roi_head.bbox_head.loss_cls.named_buffers():
            assert torch.equal(value, wanted[name])


def test_yolov3_which_sums_over_its_images_is_trained_on_the_same_sum():
    model, data = yolo3(), small_samples()
    plain = step(model, data, watched=False)[0]
    total, values, losses, _ = step(model, data)
    assert losses.mode == 'image' and not losses.note
    assert torch.equal(total, plain)
    torch.testing.assert_close(values.sum(), plain, rtol=1e-4, atol=0)
    total, values, losses, _ = step(model, data, WEIGHTS)
    torch.testing.assert_close(total, (WEIGHTS * values).sum(), rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    'build, mode, half',
    [
        (yolox, 'auto', False),
        (yolox, 'auto', True),
        (yolo3, 'auto', True),
        (faster_rcnn, 'image', False),
    ],
)
def test_a_step_of_mode_image_is_the_plain_step_to_the_last_bit(build, mode, half):
    model, data = build(), small_samples()
    with torch.autocast('cpu', torch.bfloat16, enabled=half):
        plain, _, _, left = step(model, data, watched=False, backward=True)
        state = torch.get_rng_state()
        total, values, _, after = step(model, data, mode=mode, backward=True)
    assert torch.equal(total, plain) and torch.equal(state, torch.get_rng_state())
    assert not values.requires_grad and values.isfinite().all()
    assert build is faster_rcnn or not torch.isclose(values.mean(), plain, rtol=1e-2)
    for name, value in left.state_dict().items():
        assert torch.equal(value, after.state_dict()[name]), name
    for one, other in zip(left.parameters(), after.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        assert one.grad is None or torch.equal(one.grad, other.grad)


@pytest.mark.parametrize('build, mode', [(yolox, 'auto'), (faster_rcnn, 'image')])
def test_weights_change_no_more_of_mode_image_than_what_each_sample_has(build, mode):
    model, data = build(), small_samples()
    plain, _, _, left = step(model, data, watched=False)
    double, _, _, after = step(model, data, torch.full((3,), 2.0), mode)
    torch.testing.assert_close(double, 2 * plain, rtol=1e-5, atol=0)
    for name, value in left.state_dict().items():
        assert torch.equal(value, after.state_dict()[name]), name
    ones, values, _, _ = step(model, data, mode=mode)
    weighted, others, _, _ = step(model, data, WEIGHTS, mode)
    assert torch.equal(ones, plain) and not torch.isclose(weighted, plain, rtol=1e-2)
    torch.testing.assert_close(others, values, rtol=1e-5, atol=0)


class Sparse:
    """Features that are no tensor."""

    def __init__(self, features):
        self.features = features * 2


def test_features_that_cannot_be_copied_are_told_in_one_line():
    leaf = torch.ones(3, requires_grad=True)
    [tensor], plain = copied(([leaf * 2], dict(number=3)))
    assert not tensor.requires_grad and plain == dict(number=3)
    with pytest.raises(UserError, match='Sparse has gradients') as error:
        copied([Sparse(leaf)])
    assert '\n' not in str(error.value)


class Assigner:
    def __init__(self):
        self.seen, self.top = [], 0.5


def test_what_a_module_and_its_helpers_remember_is_put_back():
    norm = nn.BatchNorm1d(2)
    norm.assigner = Assigner()
    memory = ModuleMemory([norm])
    mean = norm.running_mean.clone()
    for factor in (1.0, 2.0):
        result = norm(torch.rand(4, 2, requires_grad=True) * factor)
        norm.assigner.seen.append(factor)
        norm.assigner.top = factor
        assert not torch.equal(norm.running_mean, mean)
        memory.restore()
        assert torch.equal(norm.running_mean, mean) and norm.num_batches_tracked == 0
        assert norm.assigner.seen == [] and norm.assigner.top == 0.5
        result.sum().backward()
