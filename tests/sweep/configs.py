"""MMDetection's packaged configs, one for each family, and a user's config that is based on one."""

import os
from pathlib import Path

import mmdet
import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope

PACKAGED = Path(mmdet.__file__).parent / '.mim/configs'

# One of each folder with a training set, the smallest model where there are several.
FAMILIES = """
albu_example/mask-rcnn_r50_fpn_albu-1x_coco.py
atss/atss_r50_fpn_1x_coco.py
autoassign/autoassign_r50-caffe_fpn_1x_coco.py
boxinst/boxinst_r50_fpn_ms-90k_coco.py
bytetrack/bytetrack_yolox_x_8xb4-80e_crowdhuman-mot20train_test-mot20test.py
carafe/faster-rcnn_r50_fpn-carafe_1x_coco.py
cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py
cascade_rpn/cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco.py
centernet/centernet_r18_8xb16-crop512-140e_coco.py
centripetalnet/centripetalnet_hourglass104_16xb6-crop511-210e-mstest_coco.py
cityscapes/faster-rcnn_r50_fpn_1x_cityscapes.py
condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py
conditional_detr/conditional-detr_r50_8xb2-50e_coco.py
convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py
cornernet/cornernet_hourglass104_8xb6-210e-mstest_coco.py
crowddet/crowddet-rcnn_r50_fpn_8xb2-30e_crowdhuman.py
dab_detr/dab-detr_r50_8xb2-50e_coco.py
dcn/faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco.py
dcnv2/faster-rcnn_r50_fpn_mdpool_1x_coco.py
ddod/ddod_r50_fpn_1x_coco.py
ddq/ddq-detr-4scale_r50_8xb2-12e_coco.py
deepfashion/mask-rcnn_r50_fpn_15e_deepfashion.py
deformable_detr/deformable-detr_r50_16xb2-50e_coco.py
detectors/detectors_cascade-rcnn_r50_1x_coco.py
detr/detr_r18_8xb2-500e_coco.py
dino/dino-4scale_r50_8xb2-12e_coco.py
double_heads/dh-faster-rcnn_r50_fpn_1x_coco.py
dsdl/coco.py
dyhead/atss_r50_fpn_dyhead_1x_coco.py
dynamic_rcnn/dynamic-rcnn_r50_fpn_1x_coco.py
efficientnet/retinanet_effb3_fpn_8xb4-crop896-1x_coco.py
empirical_attention/faster-rcnn_r50-attn0010_fpn_1x_coco.py
fast_rcnn/fast-rcnn_r50_fpn_1x_coco.py
faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py
fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py
foveabox/fovea_r50_fpn_4xb4-1x_coco.py
fpg/retinanet_r50_fpg_crop640_50e_coco.py
free_anchor/freeanchor_r50_fpn_1x_coco.py
fsaf/fsaf_r50_fpn_1x_coco.py
gcnet/mask-rcnn_r50-gcb-r4-c3-c5_fpn_1x_coco.py
gfl/gfl_r50_fpn_1x_coco.py
ghm/retinanet_r50_fpn_ghm-1x_coco.py
glip/glip_atss_swin-t_a_fpn_dyhead_16xb2_ms-2x_funtune_coco.py
gn/mask-rcnn_r50_fpn_gn-all_2x_coco.py
gn+ws/faster-rcnn_r50_fpn_gn-ws-all_1x_coco.py
grid_rcnn/grid-rcnn_r50_fpn_gn-head_1x_coco.py
groie/faste-rcnn_r50_fpn_groie_1x_coco.py
grounding_dino/grounding_dino_r50_scratch_8xb2_1x_coco.py
guided_anchoring/ga-retinanet_r50_fpn_1x_coco.py
hrnet/faster-rcnn_hrnetv2p-w18-1x_coco.py
htc/htc_r50_fpn_1x_coco.py
instaboost/mask-rcnn_r50_fpn_instaboost-4x_coco.py
lad/lad_r50-paa-r101_fpn_2xb8_coco_1x.py
ld/ld_r18-gflv1-r101_fpn_1x_coco.py
legacy_1.x/retinanet_r50_fpn_1x_coco_v1.py
libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco.py
lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1.py
mask2former/mask2former_r50_8xb2-lsj-50e_coco.py
mask2former_vis/mask2former_r50_8xb2-8e_youtubevis2019.py
mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py
maskformer/maskformer_r50_ms-16xb1-75e_coco.py
masktrack_rcnn/masktrack-rcnn_mask-rcnn_r50_fpn_8xb1-12e_youtubevis2019.py
misc/d2_faster-rcnn_r50-caffe_fpn_ms-90k_coco.py
mm_grounding_dino/grounding_dino_swin-t_pretrain_obj365.py
ms_rcnn/ms-rcnn_r50_fpn_1x_coco.py
nas_fcos/nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco.py
nas_fpn/retinanet_r50_nasfpn_crop640-50e_coco.py
objects365/retinanet_r50_fpn_1x_objects365v1.py
ocsort/ocsort_yolox_x_8xb4-amp-80e_crowdhuman-mot20train_test-mot20test.py
openimages/retinanet_r50_fpn_32xb2-1x_openimages.py
paa/paa_r50_fpn_1x_coco.py
pafpn/faster-rcnn_r50_pafpn_1x_coco.py
panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py
pascal_voc/retinanet_r50_fpn_1x_voc0712.py
pisa/faster-rcnn_r50_fpn_pisa_1x_coco.py
point_rend/point-rend_r50-caffe_fpn_ms-1x_coco.py
pvt/retinanet_pvt-t_fpn_1x_coco.py
qdtrack/qdtrack_faster-rcnn_r50_fpn_8xb2-4e_mot17halftrain_test-mot17halfval.py
queryinst/queryinst_r50_fpn_1x_coco.py
regnet/retinanet_regnetx-800MF_fpn_1x_coco.py
reid/reid_r50_8xb32-6e_mot17train80_test-mot17val20.py
reppoints/reppoints-moment_r50_fpn_1x_coco.py
res2net/faster-rcnn_res2net-101_fpn_2x_coco.py
resnest/faster-rcnn_s50_fpn_syncbn-backbone+head_ms-range-1x_coco.py
resnet_strikes_back/retinanet_r50-rsb-pre_fpn_1x_coco.py
retinanet/retinanet_r18_fpn_1x_coco.py
rpn/rpn_r50_fpn_1x_coco.py
rtmdet/rtmdet_tiny_8xb32-300e_coco.py
sabl/sabl-retinanet_r50_fpn_1x_coco.py
scnet/scnet_r50_fpn_1x_coco.py
scratch/faster-rcnn_r50-scratch_fpn_gn-all_6x_coco.py
seesaw_loss/mask-rcnn_r50_fpn_seesaw-loss_random-ms-2x_lvis-v1.py
selfsup_pretrain/mask-rcnn_r50-swav-pre_fpn_1x_coco.py
simple_copy_paste/mask-rcnn_r50_fpn_rpn-2conv_4conv1fc_syncbn-all_32xb2-ssj-scp-90k_coco.py
soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py
solo/solo_r50_fpn_1x_coco.py
solov2/solov2_r50_fpn_1x_coco.py
sort/faster-rcnn_r50_fpn_8xb2-4e_mot17halftrain_test-mot17halfval.py
sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py
ssd/ssd300_coco.py
strong_baselines/mask-rcnn_r50_fpn_rpn-2conv_4conv1fc_syncbn-all_lsj-50e_coco.py
strongsort/yolox_x_8xb4-80e_crowdhuman-mot20train_test-mot20test.py
swin/retinanet_swin-t-p4-w7_fpn_1x_coco.py
timm_example/retinanet_timm-tv-resnet50_fpn_1x_coco.py
tood/tood_r50_fpn_1x_coco.py
tridentnet/tridentnet_r50-caffe_1x_coco.py
v3det/fcos_r50_fpn_8x4_sample1e-3_mstrain_v3det_2x.py
vfnet/vfnet_r50_fpn_1x_coco.py
wider_face/retinanet_r50_fpn_1x_widerface.py
yolact/yolact_r50_1xb8-55e_coco.py
yolo/yolov3_d53_8xb8-320-273e_coco.py
yolof/yolof_r50-c5_8xb8-1x_coco.py
yolox/yolox_tiny_8xb8-300e_coco.py
""".strip().splitlines()


def chosen(everything, quick):
    """All of them with ``SWEEP=all``, else what an ordinary test run takes."""
    return everything if os.environ.get('SWEEP') == 'all' else quick


def packaged(name):
    """A packaged config; those whose backbones come from MMPretrain are skipped without it."""
    if name.startswith(('convnext/', 'timm_example/')):
        pytest.importorskip('mmpretrain')
    return Config.fromfile(PACKAGED / name)


def inner_datasets(settings):
    """The dicts of the datasets inside the wrappers of a config."""
    if 'datasets' in settings:
        for part in settings['datasets']:
            yield from inner_datasets(part)
    elif 'dataset' in settings and settings['type'] != 'PrunedDataset':
        yield from inner_datasets(settings['dataset'])
    else:
        yield settings


def write_config(path, name, training_set, options):
    """A user's config: the packaged one, with data of the user's and an ``adadedup`` dict."""
    replaces = '_delete_=True, ' if 'train_dataloader' in packaged(name) else ''
    path.write_text(
        f'_base_ = [{str(PACKAGED / name)!r}]\n'
        "default_scope = 'mmdet'\n"
        f'adadedup = {options!r}\n'
        f'train_dataloader = dict(dataset=dict({replaces}**{training_set!r}))\n'
    )
    return path


def mmdet_scope():
    """Inside, registries find what MMDetection's configs name."""
    return DefaultScope.overwrite_default_scope('mmdet')
