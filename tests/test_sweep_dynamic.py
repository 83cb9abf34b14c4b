"""One step of dynamic pruning beside the plain step, for models of MMDetection's packaged configs.

``make sweep`` takes one of each detector family, an ordinary run of the tests those whose losses
are taken in different ways (docs/TESTING.md).
"""

import copy

import pytest
import torch
from mmdet.utils import register_all_modules
from mmengine.registry import init_default_scope
from sweep.configs import FAMILIES, chosen, packaged
from sweep.models import class_count, copy_batch, make_batch, repeatable, settle, small_model

from adadedup_mm.base.errors import UserError
from adadedup_mm.dynamic import SampleLosses
from adadedup_mm.dynamic.runner import apply_dynamic

QUICK = """
atss/atss_r50_fpn_1x_coco.py
autoassign/autoassign_r50-caffe_fpn_1x_coco.py
condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py
dino/dino-4scale_r50_8xb2-12e_coco.py
detr/detr_r18_8xb2-500e_coco.py
faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py
fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py
ghm/retinanet_r50_fpn_ghm-1x_coco.py
mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py
retinanet/retinanet_r18_fpn_1x_coco.py
rtmdet/rtmdet_tiny_8xb32-300e_coco.py
soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py
tood/tood_r50_fpn_1x_coco.py
yolox/yolox_tiny_8xb8-300e_coco.py
""".strip().splitlines()
TEXT_ENCODER = 'its text encoder is a pretrained one'
YOLOX = 'its detector is that of yolox/, in the largest size'
# Models of which no step is made here.
LEFT_OUT = {
    'bytetrack/bytetrack_yolox_x_8xb4-80e_crowdhuman-mot20train_test-mot20test.py': YOLOX,
    'carafe/faster-rcnn_r50_fpn-carafe_1x_coco.py': 'CARAFE has no implementation for CPUs',
    'dcnv2/faster-rcnn_r50_fpn_mdpool_1x_coco.py': 'its pooling has no implementation for CPUs',
    'glip/glip_atss_swin-t_a_fpn_dyhead_16xb2_ms-2x_funtune_coco.py': TEXT_ENCODER,
    'grounding_dino/grounding_dino_r50_scratch_8xb2_1x_coco.py': TEXT_ENCODER,
    'misc/d2_faster-rcnn_r50-caffe_fpn_ms-90k_coco.py': 'it is a model of Detectron2',
    'mm_grounding_dino/grounding_dino_swin-t_pretrain_obj365.py': TEXT_ENCODER,
    'ocsort/ocsort_yolox_x_8xb4-amp-80e_crowdhuman-mot20train_test-mot20test.py': YOLOX,
    'reid/reid_r50_8xb32-6e_mot17train80_test-mot17val20.py': 'its samples are groups of pictures',
    'strongsort/yolox_x_8xb4-80e_crowdhuman-mot20train_test-mot20test.py': YOLOX,
}
STEPS = [name for name in FAMILIES if name not in LEFT_OUT]
# Packages without which a model cannot be built.
PACKAGES = {'boxinst/boxinst_r50_fpn_ms-90k_coco.py': 'skimage'}
# The smallest feature maps must be as large as the model's kernels.
SIDES = {
    'ddod/ddod_r50_fpn_1x_coco.py': 384,
    'lad/lad_r50-paa-r101_fpn_2xb8_coco_1x.py': 192,
    'ssd/ssd300_coco.py': 300,
    'vfnet/vfnet_r50_fpn_1x_coco.py': 384,
}
# Samplers that no subset can replace, which the line about it names, and configs that have them.
OTHER_SAMPLERS = {
    'TrackImgSampler': [
        'masktrack_rcnn/masktrack-rcnn_mask-rcnn_r50_fpn_8xb1-12e_youtubevis2019.py',
        'qdtrack/qdtrack_faster-rcnn_r50_fpn_8xb2-4e_mot17halftrain_test-mot17halfval.py',
    ],
    'GroupMultiSourceSampler': [
        'soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py',
    ],
}
# Models without losses of samples in batches, and words of the line that says so.
REFUSED = {'mask2former_vis/mask2former_r50_8xb2-8e_youtubevis2019.py': 'policy random'}


@pytest.mark.parametrize('name', chosen(STEPS, QUICK))
def test_a_step_trains_on_the_loss_of_the_packaged_model(name):
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name])
    settings = packaged(name)
    settings['dynamic'] = dict(policy='epsilon_greedy', period=1)
    for sampler, names in OTHER_SAMPLERS.items():
        if name in names:
            with pytest.raises(UserError, match=f'sampler is {sampler}'):
                apply_dynamic(settings)
            return
    apply_dynamic(settings)
    model, batch = settled_model(name)
    if name in REFUSED:
        with pytest.raises(UserError, match=REFUSED[name]):
            pruning_step(model, batch)
        return
    plain = step(model, batch)
    trained, values, mode = pruning_step(model, batch)
    total = sum(trained.values())
    assert total.isfinite() and total.requires_grad
    if mode == 'image':
        compare_with_images(model, batch, trained, values, plain)
    else:
        assert_equal(trained, plain)
        torch.testing.assert_close(values.mean(), total.detach(), rtol=1e-4, atol=1e-6)
        assert_goes_with_its_image(model, batch, values)


def settled_model(name):
    """A model in which images meet only where losses are divided, and a batch for it."""
    register_all_modules(False)
    init_default_scope('mmdet')
    model = small_model(name)
    batch = make_batch(model, class_count(packaged(name).model), SIDES.get(name, 128))
    settle(model, batch)
    return model, batch


def loss_parts(model, losses):
    """The entries of a loss dict that are trained on."""
    _, entries = model.parse_losses(losses)
    return {name: value for name, value in entries.items() if 'loss' in name and name != 'loss'}


def step(model, batch):
    """The parts of the loss of a plain step, which leaves the model as it was."""
    model = copy.deepcopy(model)
    with repeatable():
        return loss_parts(model, model.loss(*copy_batch(batch)))


def pruning_step(model, batch, weight=1.0):
    """The parts of the loss with all weights alike, the losses of the samples, and the mode."""
    model = copy.deepcopy(model)
    losses = SampleLosses(model, 'auto')
    losses.start(torch.full((len(batch['data_samples']),), weight))
    with repeatable():
        parts = loss_parts(model, model.loss(*copy_batch(batch)))
    sum(parts.values()).backward()
    return parts, losses.take(), losses.mode


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def assert_goes_with_its_image(model, batch, values):
    """The losses are swapped where the images are."""
    _, swapped, _ = pruning_step(model, in_order(batch, [1, 0]))
    torch.testing.assert_close(swapped.flip(0), values, rtol=5e-4, atol=1e-6)


def compare_with_images(model, batch, trained, values, plain):
    """The parts of the loss are the batch's, and the losses of the samples the images' own."""
    assert_equal(trained, plain)
    double, _, _ = pruning_step(model, batch, 2.0)
    assert double.keys() == plain.keys()
    for name, value in plain.items():
        torch.testing.assert_close(double[name], 2 * value, rtol=1e-4, atol=1e-6, msg=name)
    alone = [step(model, in_order(batch, [i])) for i in range(len(batch['data_samples']))]
    own = torch.stack([sum(parts.values()) for parts in alone]).detach()
    torch.testing.assert_close(values, own, rtol=1e-4, atol=1e-6)


def in_order(batch, positions):
    """The batch with the images at these positions."""
    samples = [batch['data_samples'][position] for position in positions]
    return dict(inputs=batch['inputs'][positions], data_samples=samples)
