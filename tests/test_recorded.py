"""What runs choose and write, compared with a recorded set: a change of the code's shape must not
change a selection.

``RECORD=1 .venv/bin/python -m pytest tests/test_recorded.py`` writes the set anew, after a change
that is meant to change selections.
"""

import hashlib
import json
import os
import platform
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from pruning_runs import run

from adadedup_mm.annotations.pickles import load_pickle
from adadedup_mm.cli.make_minidrive import main as make_minidrive

ROOT = Path(__file__).parents[1]
AERIAL_CARS = ROOT.parent / 'shared' / 'data' / 'aerial_cars'
RECORDS = Path(__file__).parent / 'data' / 'recorded_runs.json'
CLASSES = ('car', 'truck', 'bus', 'bicycle', 'pedestrian', 'traffic_cone')
NUSCENES = (
    'car',
    'truck',
    'construction_vehicle',
    'bus',
    'trailer',
    'barrier',
    'motorcycle',
    'bicycle',
    'pedestrian',
    'traffic_cone',
)
COCO = dict(
    type='CocoDataset',
    data_root='{world}/coco/',
    ann_file='annotations/instances_train.json',
    data_prefix=dict(img='images/'),
    metainfo=dict(classes=CLASSES),
    filter_cfg=dict(filter_empty_gt=True),
    pipeline=[],
)
DATASETS = dict(
    coco=COCO,
    two_parts=dict(
        type='ConcatDataset',
        datasets=[
            dict(COCO, indices=20),
            dict(type='RepeatDataset', times=2, dataset=dict(COCO, indices=-28)),
        ],
    ),
    aerial_cars=dict(
        type='CocoDataset',
        data_root=f'{AERIAL_CARS}/',
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=('car',)),
        pipeline=[],
    ),
    nuscenes=dict(
        type='NuScenesDataset',
        data_root='{world}/nuscenes/',
        ann_file='nuscenes_infos_train.pkl',
        data_prefix=dict(pts='samples/LIDAR_TOP'),
        metainfo=dict(classes=NUSCENES),
        pipeline=[],
    ),
    temporal=dict(
        type='BEVFormerDataset',
        data_root='{world}/nuscenes/',
        queue_length=3,
        ann_file='nuscenes_infos_temporal_train.pkl',
        metainfo=dict(classes=NUSCENES),
        pipeline=[],
    ),
    waymo=dict(
        type='WaymoDataset',
        data_root='{world}/waymo/kitti_format/',
        ann_file='waymo_infos_train.pkl',
        data_prefix=dict(pts='training/velodyne'),
        metainfo=dict(classes=['Car', 'Pedestrian', 'Cyclist']),
        pipeline=[],
    ),
    kitti=dict(
        type='KittiDataset',
        data_root='{world}/kitti/',
        ann_file='kitti_infos_train.pkl',
        data_prefix=dict(pts='training/velodyne_reduced'),
        metainfo=dict(classes=['Pedestrian', 'Cyclist', 'Car']),
        pipeline=[],
    ),
)
PROXY = f"""_base_ = '{ROOT}/configs/proxy/faster_rcnn_tiny.py'
model = dict(neck=dict(out_channels=16),
             rpn_head=dict(in_channels=16, feat_channels=16),
             roi_head=dict(bbox_roi_extractor=dict(out_channels=16),
                           bbox_head=dict(in_channels=16, fc_out_channels=16)))
"""
NO_PROXY = {'feedback.beta': 0}
ONE_RUN = {'strategy.runs': 1, 'strategy.epochs': 1}
# Name of the run: layout, strategy, further options.
RUNS = {
    'random': ('coco', 'random', {}),
    'random_per_cluster': ('coco', 'random', {'strategy.per': 'cluster'}),
    'random_per_scene': ('coco', 'random', {'strategy.per': 'scene'}),
    'uniform_stride': ('coco', 'uniform_stride', {}),
    'clip_dedup': ('coco', 'clip_dedup', {}),
    'clip_dedup_semdedup': ('coco', 'clip_dedup', {'density.type': 'SemDeDup'}),
    'clip_dedup_min_gap': ('coco', 'clip_dedup', {'min_gap': 1}),
    'clip_dedup_scenes': ('coco', 'clip_dedup', {'group_by': 'scene'}),
    'adadedup_no_proxy': ('coco', 'adadedup', NO_PROXY),
    'adadedup_plain_layout': ('coco', 'adadedup', {**NO_PROXY, 'feedback.layout': 0}),
    'tfdp': ('coco', 'tfdp', {}),
    'vlm_sse': ('coco', 'vlm_sse', {}),
    'two_parts': ('two_parts', 'adadedup', NO_PROXY),
    'aerial_cars': ('aerial_cars', 'adadedup', NO_PROXY),
    'aerial_cars_clip_dedup': ('aerial_cars', 'clip_dedup', {}),
    'nuscenes': ('nuscenes', 'adadedup', NO_PROXY),
    'nuscenes_all_views': ('nuscenes', 'adadedup', {**NO_PROXY, 'views': 'all'}),
    'temporal': ('temporal', 'adadedup', NO_PROXY),
    'waymo': ('waymo', 'adadedup', NO_PROXY),
    'kitti': ('kitti', 'adadedup', NO_PROXY),
}
# The same, where a network is trained: bit for bit only on the same kind of processor and torch.
TRAINED = {
    'adadedup': ('coco', 'adadedup', {}),
    'adadedup_paper': (
        'coco',
        'adadedup',
        {'feedback.gap': 'mean', 'feedback.shrink': False, 'feedback.layout': 0},
    ),
    'adadedup_held_out': ('coco', 'adadedup', {'feedback.gap': 'held_out', 'proxy.held_out': 0.3}),
    'adadedup_temporal': ('temporal', 'adadedup', {}),
    'el2n': ('coco', 'el2n', ONE_RUN),
    'grand': ('coco', 'grand', ONE_RUN),
    'loss_topk': ('coco', 'loss_topk', ONE_RUN),
    'forgetting': ('coco', 'forgetting', {'strategy.runs': 1, 'strategy.epochs': 2}),
}


def machine():
    """What the last bits of a training depend on."""
    lines = Path('/proc/cpuinfo').read_text().splitlines()
    processor = next(
        (line.split(':')[1].strip() for line in lines if line.startswith('model name')), ''
    )
    capability = torch.backends.cpu.get_cpu_capability()
    return f'{platform.machine()}, {processor}, {capability}, torch {torch.__version__}'


@pytest.fixture(scope='module')
def worlds(tmp_path_factory):
    folder = tmp_path_factory.mktemp('recorded')
    make_minidrive([str(folder / 'world'), '--scenes', '12', '--frames', '6'])
    (folder / 'proxy.py').write_text(PROXY)
    return folder


def write_config(folder, layout, strategy, options):
    dataset = eval(repr(DATASETS[layout]).replace('{world}', str(folder / 'world')))
    given = dict(
        keep_ratio=0.5,
        strategy=dict(type=strategy),
        embedder=dict(type='PixelEmbedder', _delete_=True),
        proxy=dict(config=str(folder / 'proxy.py'), epochs=1),
        feedback=dict(signal='proxy'),
    )
    path = folder / f'{layout}_{strategy}.py'
    lines = ["_base_ = 'adadedup_mm::_base_/adadedup_offline.py'"]
    if layout in ('nuscenes', 'temporal', 'waymo', 'kitti'):
        pytest.importorskip('mmdet3d')
        lines.append("default_scope = 'mmdet3d'")
        lines.append(
            "custom_imports = dict(imports=['adadedup_mm.models.bevformer'], "
            'allow_failed_imports=False)'
        )
    else:
        lines.append("default_scope = 'mmdet'")
    lines.append(f'adadedup = {given!r}')
    lines.append(f'train_dataloader = dict(batch_size=2, num_workers=0, dataset={dataset!r})')
    path.write_text('\n'.join(lines))
    return path


def digest(path):
    """Hash of a text file; of a pickle, whose bytes depend on numpy's version, of the frames and
    their links."""
    if path.suffix != '.pkl':
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    content = load_pickle(path)
    records = content['infos' if 'infos' in content else 'data_list']
    links = [
        [str(record.get(key)) for key in ('token', 'sample_idx', 'prev', 'next')]
        for record in records
    ]
    return hashlib.sha256(json.dumps(links).encode()).hexdigest()[:16]


def result(work_dir):
    """What a run chose and wrote, small enough to be stored."""
    samples = pq.read_table(work_dir / 'samples.parquet').to_pydict()
    clusters = pq.read_table(work_dir / 'clusters.parquet').to_pydict()
    classes = pq.read_table(work_dir / 'classes.parquet').to_pydict()
    kept = [
        name for name, stays in zip(samples['sample_id'], samples['kept'], strict=True) if stays
    ]
    reasons = json.dumps(samples['reason'])
    return dict(
        kept=len(kept),
        samples=hashlib.sha256('\n'.join(kept).encode()).hexdigest()[:16],
        reasons=hashlib.sha256(reasons.encode()).hexdigest()[:16],
        thresholds=[
            None if value is None else float(f'{value:.4g}') for value in clusters['threshold']
        ],
        classes=dict(zip(classes['class'], classes['instances_kept'], strict=True)),
        files={
            path.name: digest(path)
            for path in sorted((work_dir / 'annotations').rglob('*'))
            if path.is_file()
        },
    )


def compare(name, case, worlds, tmp_path, same_machine=None):
    layout, strategy, options = case
    if layout == 'aerial_cars' and not AERIAL_CARS.is_dir():
        pytest.skip('needs the set aerial_cars')
    config = write_config(worlds, layout, strategy, options)
    changes = [f'adadedup.{key}={value}' for key, value in options.items()]
    work_dir = run(config, tmp_path / 'run', *(['--cfg-options', *changes] if changes else []))
    records = json.loads(RECORDS.read_text()) if RECORDS.exists() else {}
    if 'RECORD' in os.environ:
        records[name] = dict(
            result(work_dir), **({'machine': same_machine} if same_machine else {})
        )
        RECORDS.write_text(json.dumps(dict(sorted(records.items())), indent=1) + '\n')
        return
    expected = records[name]
    expected.pop('machine', None)
    assert result(work_dir) == expected


@pytest.mark.parametrize('name', RUNS)
def test_runs_choose_and_write_what_they_did(name, worlds, tmp_path):
    compare(name, RUNS[name], worlds, tmp_path)


@pytest.mark.parametrize('name', TRAINED)
def test_runs_with_trainings_choose_and_write_what_they_did(name, worlds, tmp_path):
    recorded = json.loads(RECORDS.read_text()).get(name, {}).get('machine')
    if 'RECORD' not in os.environ and recorded != machine():
        pytest.skip(f'recorded on another kind of machine: {recorded}')
    compare(name, TRAINED[name], worlds, tmp_path, machine())
