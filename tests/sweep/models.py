"""The models of packaged configs, smaller and without pretrained weights, and batches for them."""

import contextlib
import copy
import random
from unittest.mock import patch

import numpy as np
import torch
from mmdet.models import TrackDataPreprocessor
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample, TrackDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData, PixelData
from torch import nn

from .configs import PACKAGED, packaged

SIDE = 128
# Samples and proposals of an image, queries of a transformer.
MOST = dict(num=64, nms_pre=200, max_per_img=200, num_queries=30)
# Where random numbers come from in MMDetection's losses.
NUMBERS = ('rand', 'rand_like', 'randint', 'randint_like', 'randn', 'randn_like')
RANDOM = {
    torch: ('multinomial', 'randperm', *NUMBERS),
    np.random: ('choice', 'permutation', 'randint', 'shuffle', 'uniform'),
}


def small_model(name):
    """The model of a packaged config, in training mode."""
    torch.manual_seed(0)
    settings = packaged(name).model
    simplify(settings)
    model = MODELS.build(settings)
    model.init_weights()
    for module in model.modules():
        if type(module).__name__ == 'TridentConv':
            # Without pretrained weights they are whatever the memory held.
            nn.init.kaiming_normal_(module.weight)
    # A Runner says so.
    MessageHub.get_current_instance().update_info('epoch', 0)
    model.train()
    return model


def simplify(settings):
    """Changes a model's dict: no pretrained weights, one process, small images, fewer channels."""
    for part in dicts_in(settings):
        if 'checkpoint' in (part.get('init_cfg') or {}):
            part['init_cfg'] = None
        if part.get('type') in ('SyncBN', 'MMSyncBN'):
            part['type'] = 'BN'
        # Some batches are enlarged to a size of their own.
        for key in ('pretrained', 'teacher_ckpt', 'batch_augments'):
            if key in part:
                part[key] = False if part[key] is True else None
        if isinstance(part.get('teacher_config'), str):
            teacher = Config.fromfile(PACKAGED / part['teacher_config'].removeprefix('configs/'))
            simplify(teacher.model)
            part['teacher_config'] = teacher
        if part.get('type') == 'SparseRoIHead':
            shorten(part)
        for key, most in MOST.items():
            if isinstance(part.get(key), int):
                part[key] = min(part[key], most)
        for prefix in ('', 'teacher_'):
            narrow(part.get(f'{prefix}backbone'), part.get(f'{prefix}neck'))


def dicts_in(value):
    """All dicts in nested dicts and lists."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from dicts_in(item)


def shorten(head):
    """Two of the stages that refine each other's boxes: untrained, each makes more of roundings."""
    head['num_stages'] = 2
    for key in ('bbox_head', 'mask_head', 'stage_loss_weights'):
        if isinstance(head.get(key), list):
            head[key] = head[key][:2]


def narrow(backbone, neck):
    """A quarter of a ResNet's channels where the neck knows them; an hourglass of fewer levels."""
    if not backbone:
        return
    if backbone['type'] == 'HourglassNet':
        backbone.update(downsample_times=2, stage_channels=[64, 64, 96], stage_blocks=[1, 1, 1])
    first_neck = neck[0] if isinstance(neck, list) else neck or {}
    grouped = (backbone.get('norm_cfg') or {}).get('type') == 'GN'
    is_plain = backbone['type'] == 'ResNet' and not grouped and 'plugins' not in backbone
    if is_plain and isinstance(first_neck.get('in_channels'), list):
        backbone['base_channels'] = 16
        first_neck['in_channels'] = [channels // 4 for channels in first_neck['in_channels']]


def settle(model, batch):
    """Takes out of the layers what depends on the other images: dropout and statistics of a batch.

    The running statistics become those of one batch, so that activations stay within bounds.
    """
    kind = nn.modules.batchnorm._BatchNorm
    layers = [module for module in model.modules() if isinstance(module, kind)]
    for module in model.modules():
        for attribute in ('p', 'drop_prob', 'drop', 'dropout'):
            if isinstance(getattr(module, attribute, None), float):
                setattr(module, attribute, 0.0)
    for layer in layers:
        layer.train()
        layer.momentum = 1.0
    with torch.no_grad(), repeatable():
        model.loss(*copy_batch(batch))
    for layer in layers:
        layer.eval()


def copy_batch(batch):
    """Losses may change the data samples that they are given."""
    return batch['inputs'], copy.deepcopy(batch['data_samples'])


@contextlib.contextmanager
def repeatable():
    """Inside, random numbers depend on nothing but the call that asks for them.

    The rows of a tensor of random numbers are alike, so that the order of images does not matter.
    """
    with contextlib.ExitStack() as patches:
        for owner, names in RANDOM.items():
            for name in names:
                replacement = seeded(getattr(owner, name), alike=name in NUMBERS and owner is torch)
                patches.enter_context(patch.object(owner, name, replacement))
        yield


def seeded(function, alike):
    def call(*args, **kwargs):
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        result = function(*args, **kwargs)
        return result[:1].expand_as(result).clone() if alike and result.dim() else result

    return call


def class_count(settings):
    """The fewest classes that a part of the model knows."""
    counts = [part.get('num_classes') for part in dicts_in(settings)]
    return min((count for count in counts if isinstance(count, int)), default=1)


def make_batch(model, classes, side=SIDE, count=2):
    """A batch as the model's data preprocessor yields it: images, or pairs of frames."""
    rng = np.random.default_rng(0)
    is_track = isinstance(model.data_preprocessor, TrackDataPreprocessor)
    frames = 2 if is_track else 1
    images = torch.from_numpy(rng.integers(0, 255, (count, frames, 3, side, side), dtype=np.uint8))
    stuff = getattr(getattr(model, 'panoptic_head', None), 'num_things_classes', 0)
    has_masks = any('mask' in name for name, _ in model.named_modules())
    samples = []
    for number in range(count):
        pair = [make_sample(rng, number, classes, stuff, side, has_masks) for _ in range(frames)]
        samples.append(make_track(pair) if is_track else pair[0])
    raw = dict(inputs=list(images if is_track else images[:, 0]), data_samples=samples)
    return model.data_preprocessor(raw, training=True)


def make_track(frames):
    """A sample of two frames in which the same objects are seen."""
    for frame in frames:
        for instances in (frame.gt_instances, frame.ignored_instances):
            instances.bboxes = instances.bboxes.tensor
        frame.gt_instances.instances_ids = torch.arange(len(frame.gt_instances))
    track = TrackDataSample(metainfo=dict(key_frames_inds=[0], ref_frames_inds=[1]))
    track.video_data_samples = frames
    return track


def make_sample(rng, number, classes, stuff, side, has_masks):
    """Two or more objects: each model takes what it needs."""
    count = number + 2
    corners = rng.uniform(0, side * 0.4, (count, 2))
    sizes = rng.uniform(side * 0.25, side * 0.5, (count, 2))
    boxes = torch.from_numpy(np.concatenate([corners, corners + sizes], axis=1)).float()
    masks = np.zeros((count, side, side), np.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = 1
    sample = DetDataSample(
        metainfo=dict(
            img_id=number,
            img_shape=(side, side),
            ori_shape=(side, side),
            pad_shape=(side, side),
            scale_factor=(1.0, 1.0),
            flip=False,
            flip_direction=None,
        )
    )
    sample.gt_instances = InstanceData(
        bboxes=HorizontalBoxes(boxes), labels=torch.arange(count) % classes
    )
    sample.ignored_instances = InstanceData(
        bboxes=HorizontalBoxes(boxes[:0]), labels=torch.zeros(0, dtype=torch.long)
    )
    if has_masks:
        sample.gt_instances.masks = BitmapMasks(masks, side, side)
        sample.ignored_instances.masks = BitmapMasks(masks[:0], side, side)
    covered = torch.from_numpy(masks.max(0, keepdims=True)).long()
    sample.gt_sem_seg = PixelData(sem_seg=covered + stuff)
    moved = boxes[None] + torch.tensor([-6.0, 0, 2, 9])[:, None, None]
    sample.proposals = InstanceData(bboxes=moved.reshape(-1, 4), scores=torch.ones(4 * count))
    return sample
