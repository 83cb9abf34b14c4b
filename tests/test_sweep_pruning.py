"""Half of small data is pruned with MMDetection's packaged configs.

``make sweep`` takes one for each dataset class and detector family, an ordinary run of the tests
one for each dataset class (docs/TESTING.md).
"""

import hashlib
import logging
from collections import Counter
from importlib.util import find_spec

import pyarrow.parquet as pq
import pytest
from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from pruning_runs import fails, run, samples
from sweep.configs import FAMILIES, chosen, inner_datasets, mmdet_scope, packaged, write_config
from sweep.data import COUNT, WITHOUT_DATA, fill, objects_by_class

# One for each dataset class and wrapper, but for those below. 'val: ' is before configs whose
# validation set stands in for a training set, because no config trains on its class.
DATASET_CLASSES = """
bytetrack/bytetrack_yolox_x_8xb4-80e_crowdhuman-mot20train_test-mot20test.py
cityscapes/faster-rcnn_r50_fpn_1x_cityscapes.py
crowddet/crowddet-rcnn_r50_fpn_8xb2-30e_crowdhuman.py
deepfashion/mask-rcnn_r50_fpn_15e_deepfashion.py
dsdl/coco.py
fast_rcnn/fast-rcnn_r50_fpn_1x_coco.py
faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py
_base_/datasets/coco_semantic.py
_base_/datasets/isaid_instance.py
lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1.py
lvis/mask-rcnn_r50_fpn_sample1e-3_ms-2x_lvis-v0.5.py
mask2former_vis/mask2former_r50_8xb2-8e_youtubevis2019.py
maskformer/maskformer_r50_ms-16xb1-75e_coco.py
mm_grounding_dino/coco/grounding_dino_swin-t_finetune_16xb4_1x_sft_coco.py
mm_grounding_dino/refcoco/grounding_dino_swin-t_finetune_8xb4_5e_refcoco.py
objects365/retinanet_r50_fpn_1x_objects365v1.py
objects365/faster-rcnn_r50_fpn_16xb4-1x_objects365v2.py
openimages/retinanet_r50_fpn_32xb2-1x_openimages.py
openimages/faster-rcnn_r50_fpn_32xb2-1x_openimages-challenge.py
pascal_voc/retinanet_r50_fpn_1x_voc0712.py
qdtrack/qdtrack_faster-rcnn_r50_fpn_8xb2-4e_mot17halftrain_test-mot17halfval.py
reid/reid_r50_8xb32-6e_mot17train80_test-mot17val20.py
soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py
v3det/fcos_r50_fpn_8x4_sample1e-3_mstrain_v3det_2x.py
wider_face/retinanet_r50_fpn_1x_widerface.py
val: _base_/datasets/ade20k_instance.py
val: _base_/datasets/ade20k_panoptic.py
val: _base_/datasets/ade20k_semantic.py
val: _base_/datasets/coco_caption.py
val: _base_/datasets/refcoco.py
val: grounding_dino/dod/grounding_dino_swin-t_pretrain_zeroshot_concat_dod.py
""".strip().splitlines()

# Configs so long that writing them takes seconds; the first one has thirteen datasets.
LONG = """
mm_grounding_dino/grounding_dino_swin-l_pretrain_all.py
mm_grounding_dino/lvis/grounding_dino_swin-t_finetune_16xb4_1x_lvis.py
val: mm_grounding_dino/flickr30k/grounding_dino_swin-t-pretrain_flickr30k.py
val: mm_grounding_dino/refcoco/grounding_dino_swin-t_pretrain_zeroshot_refexp.py
""".strip().splitlines()
EVERYTHING = dict.fromkeys([*DATASET_CLASSES, *LONG, *FAMILIES])

VIDEOS = 'video_id, images, video_length'
# What cannot be pruned, and words of the line that says so.
REFUSED = {
    'mask2former_vis/mask2former_r50_8xb2-8e_youtubevis2019.py': VIDEOS,
    'masktrack_rcnn/masktrack-rcnn_mask-rcnn_r50_fpn_8xb1-12e_youtubevis2019.py': VIDEOS,
    'qdtrack/qdtrack_faster-rcnn_r50_fpn_8xb2-4e_mot17halftrain_test-mot17halfval.py': VIDEOS,
}
# Dataset classes that read their files with a package that MMDetection does not bring along.
PACKAGES = dict(
    DODDataset='d_cube', DSDLDetDataset='dsdl', LVISV05Dataset='lvis', LVISV1Dataset='lvis'
)


def training_set(name, folder):
    """A packaged config's training set with small data below a folder, and its inner datasets."""
    is_validation = name.startswith('val: ')
    loader = 'val_dataloader' if is_validation else 'train_dataloader'
    settings = packaged(name.removeprefix('val: '))[loader]['dataset'].to_dict()
    if is_validation:
        settings = next(inner_datasets(settings))
        settings.pop('test_mode', None)
    inner = list(inner_datasets(settings))
    for part in inner:
        fill(part, folder)
    return settings, inner


def missing_package(inner):
    """A package that the inner datasets need and that is not installed, or None."""
    names = [PACKAGES[part['type']] for part in inner if part['type'] in PACKAGES]
    return next((name for name in names if find_spec(name) is None), None)


def hashes(folder):
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob('*')
        if path.is_file()
    }


def pictures(settings):
    """The paths of what the inner datasets of a training set yield."""
    with mmdet_scope():
        for part in inner_datasets(settings):
            inner = part['dataset'] if part['type'] == 'PrunedDataset' else part
            inner['pipeline'] = []
            dataset = DATASETS.build(part)
            yield from (dataset.get_data_info(index)['img_path'] for index in range(len(dataset)))


@pytest.mark.parametrize('name', chosen(EVERYTHING, DATASET_CLASSES))
def test_half_of_a_packaged_training_set_is_kept(name, tmp_path, capsys, monkeypatch):
    # MMEngine's logger holds on to the output that pytest captures for the first test.
    monkeypatch.setattr(logging, 'raiseExceptions', False)
    register_all_modules(False)
    settings, inner = training_set(name, tmp_path / 'data')
    before = hashes(tmp_path / 'data')
    options = dict(strategy='clip_dedup', keep_ratio=0.5, embedder=dict(type='PixelEmbedder'))
    config = write_config(tmp_path / 'config.py', name.removeprefix('val: '), settings, options)
    package = missing_package(inner)
    if package or name in REFUSED:
        assert REFUSED.get(name, 'install') in fails(capsys, config, tmp_path / 'run')
    elif inner[0]['type'] in WITHOUT_DATA:
        pytest.skip(f'no data is made for {inner[0]["type"]}')
    else:
        work_dir = run(config, tmp_path / 'run')
        assert hashes(tmp_path / 'data') == before
        check_run(work_dir, inner)
        return
    assert hashes(tmp_path / 'data') == before


def check_run(work_dir, inner):
    """Half of the samples is kept and trained on, and classes have their names."""
    table = samples(work_dir)
    count = COUNT * len(inner)
    assert (len(table), table['kept'].sum()) == (count, count // 2)
    kept = [path for [path] in table['image_paths'][table['kept']]]
    written = Config.fromfile(work_dir / 'config.py')
    assert sorted(pictures(written.train_dataloader.dataset)) == sorted(kept)
    expected = sum((objects_by_class(part) for part in inner), Counter())
    if expected:
        classes = pq.read_table(work_dir / 'classes.parquet').to_pylist()
        assert {row['class']: row['instances'] for row in classes if row['instances']} == expected
