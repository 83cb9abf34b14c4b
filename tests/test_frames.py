"""``tools/prune.py`` on MiniDrive's layouts of 3D datasets."""

import itertools
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip('mmdet3d')

from mmengine.registry import DATASETS, DefaultScope, init_default_scope

from adadedup_mm.annotations.pickles import load_pickle
from adadedup_mm.cli.make_minidrive import main as make_minidrive
from adadedup_mm.cli.prune import main as prune_main
from adadedup_mm.settings.load import load_config

ROOT = Path(__file__).parents[1]
SCENES, FRAMES = 8, 4  # for training
CAMERAS = (
    'CAM_FRONT',
    'CAM_FRONT_RIGHT',
    'CAM_FRONT_LEFT',
    'CAM_BACK',
    'CAM_BACK_LEFT',
    'CAM_BACK_RIGHT',
)
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
PIPELINE = [
    dict(type='LoadMultiViewImageFromFiles', to_float32=True, num_views=6),
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True, with_attr_label=False),
    dict(type='ObjectRangeFilter', point_cloud_range=[-61.2, -61.2, -10.0, 61.2, 61.2, 10.0]),
    dict(type='ObjectNameFilter', classes=NUSCENES),
    dict(type='Pack3DDetInputs', keys=['img', 'gt_bboxes_3d', 'gt_labels_3d']),
]
# What users' configs say, and the annotation file that pruning rewrites.
DATASETS_OF = dict(
    nuscenes=dict(
        type='NuScenesDataset',
        data_root='{world}/nuscenes/',
        ann_file='nuscenes_infos_train.pkl',
        data_prefix=dict(pts='samples/LIDAR_TOP', **{name: f'samples/{name}' for name in CAMERAS}),
        modality=dict(use_camera=True, use_lidar=False),
        metainfo=dict(classes=NUSCENES),
        pipeline=PIPELINE,
    ),
    temporal=dict(
        type='BEVFormerDataset',
        data_root='{world}/nuscenes/',
        ann_file='nuscenes_infos_temporal_train.pkl',
        queue_length=3,
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
FRONT = dict(
    NuScenesDataset='CAM_FRONT',
    BEVFormerDataset='CAM_FRONT',
    WaymoDataset='CAM_FRONT',
    KittiDataset='CAM2',
)
FOLDERS = dict(nuscenes='CAM_FRONT/', temporal='CAM_FRONT/', waymo='image_0/', kitti='image_2/')
OFFLINE = "'adadedup_mm::_base_/adadedup_offline.py'"
# A detector of a few thousand weights.
PROXY = """_base_ = '{root}/configs/proxy/faster_rcnn_tiny.py'
model = dict(neck=dict(out_channels=16),
             rpn_head=dict(in_channels=16, feat_channels=16),
             roi_head=dict(bbox_roi_extractor=dict(out_channels=16),
                           bbox_head=dict(in_channels=16, fc_out_channels=16)))
"""


@pytest.fixture(scope='session')
def drives(tmp_path_factory):
    """A MiniDrive in all layouts; do not write into it."""
    folder = tmp_path_factory.mktemp('drives') / 'world'
    make_minidrive([str(folder), '--scenes', '12', '--frames', str(FRAMES)])
    return folder


@pytest.fixture(scope='session')
def proxy(tmp_path_factory):
    path = tmp_path_factory.mktemp('proxy') / 'proxy.py'
    path.write_text(PROXY.format(root=ROOT))
    return path


def write_config(folder, kind, world, base=OFFLINE, dataset=None, **options):
    """A training config of that layout with our line."""
    dataset = dataset or eval(repr(DATASETS_OF[kind]).replace('{world}', str(world)))
    options = dict(keep_ratio=0.5, embedder=dict(type='PixelEmbedder', _delete_=True), **options)
    path = folder / f'{kind}{"" if base else "_plain"}.py'
    path.write_text(
        f"_base_ = [{base}]\ndefault_scope = 'mmdet3d'\n"
        + (f'adadedup = {options!r}\n' if base else '')
        + "custom_imports = dict(imports=['adadedup_mm.models.bevformer'], "
        'allow_failed_imports=False)\n'
        + f'train_dataloader = dict(batch_size=2, num_workers=0, dataset={dataset!r})\n'
    )
    return path


def prune(config, work_dir, *arguments):
    prune_main([str(config), '--work-dir', str(work_dir), *map(str, arguments)])
    table = pq.read_table(work_dir / 'samples.parquet')
    return dict(zip(table['sample_id'].to_pylist(), table['kept'].to_pylist(), strict=True))


def fails(arguments, capsys):
    """Runs prune.py on wrong input and returns its one line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        prune_main([str(argument) for argument in arguments])
    assert stop.value.code == 2
    lines = [
        line for line in capsys.readouterr().err.strip().splitlines() if line.startswith('error: ')
    ]
    assert len(lines) == 1
    return lines[0]


def notes(work_dir):
    return ' '.join(json.loads((work_dir / 'manifest.json').read_text())['notes'])


def records(path):
    content = load_pickle(path)
    return content['infos' if 'infos' in content else 'data_list']


def name(record):
    return str(record.get('token', record.get('sample_idx')))


def same(first, second):
    return pickle.dumps(first) == pickle.dumps(second)


def input_file(kind, world):
    dataset = DATASETS_OF[kind]
    return Path(dataset['data_root'].format(world=world)) / dataset['ann_file']


# Every layout


@pytest.fixture(scope='module', params=DATASETS_OF)
def run(request, drives, tmp_path_factory):
    """A finished run on each layout; what it kept, its kind and its folder."""
    folder = tmp_path_factory.mktemp(request.param)
    kept = prune(
        write_config(folder, request.param, drives),
        folder / 'run',
        '--strategy',
        'clip_dedup',
        '--keep-ratio',
        '.3',
    )
    return kept, request.param, folder / 'run'


def test_kept_records_are_the_originals_and_the_budget_is_exact(run, drives):
    kept, kind, folder = run
    original, pruned = (
        input_file(kind, drives),
        folder / 'annotations' / DATASETS_OF[kind]['ann_file'],
    )
    before, after = records(original), records(pruned)
    assert len(kept) == len(before) == SCENES * FRAMES
    assert len(after) == sum(kept.values()) == 10
    links = dict(prev='', next='') if kind == 'temporal' else {}
    # One by one: a pickle of the whole list also says which records share objects.
    for ours, theirs in zip(
        after, [record for record in before if kept[name(record)]], strict=True
    ):
        assert same(
            pickle.loads(pickle.dumps(ours | links)), pickle.loads(pickle.dumps(theirs | links))
        )
    rest_before, rest_after = load_pickle(original), load_pickle(pruned)
    key = 'infos' if kind == 'temporal' else 'data_list'
    assert {**rest_before, key: None} == {**rest_after, key: None} and list(rest_before) == list(
        rest_after
    )


def test_the_pruned_chains_have_no_dangling_links_and_stay_in_their_scenes(drives, tmp_path):
    prune(write_config(tmp_path, 'temporal', drives), tmp_path / 'run', '--strategy', 'random')
    infos = records(tmp_path / 'run/annotations/nuscenes_infos_temporal_train.pkl')
    by_token = {info['token']: info for info in infos}
    walked = []
    for head in (info for info in infos if not info['prev']):
        chain = [head]
        while chain[-1]['next']:
            chain.append(by_token[chain[-1]['next']])
            assert chain[-1]['prev'] == chain[-2]['token']
        assert {info['scene_token'] for info in chain} == {head['scene_token']}
        assert [info['timestamp'] for info in chain] == sorted(info['timestamp'] for info in chain)
        walked += [info['token'] for info in chain]
    assert sorted(walked) == sorted(by_token)
    scenes = {info['scene_token'] for info in infos}
    assert (
        sum(not info['prev'] for info in infos)
        == sum(not info['next'] for info in infos)
        == len(scenes)
    )


def test_the_config_differs_in_the_annotation_file_alone(run, drives, tmp_path):
    _, kind, folder = run
    pruned = load_config(folder / 'config.py').to_dict()
    plain = load_config(write_config(tmp_path, kind, drives, base='')).to_dict()
    file = pruned['train_dataloader']['dataset'].pop('ann_file')
    assert plain['train_dataloader']['dataset'].pop('ann_file') == DATASETS_OF[kind]['ann_file']
    assert Path(file) == folder / 'annotations' / DATASETS_OF[kind]['ann_file']
    assert pruned == plain


def test_frames_of_the_pruned_file_load_as_before(drives, tmp_path):
    """The dataset and the pipeline steps that PETR's and DETR3D's configs in mmdet3d's projects
    use."""
    kept = prune(
        write_config(tmp_path, 'nuscenes', drives), tmp_path / 'run', '--strategy', 'random'
    )
    init_default_scope('mmdet3d')
    before, after = (
        DATASETS.build(load_config(path).train_dataloader.dataset)
        for path in (
            write_config(tmp_path, 'nuscenes', drives, base=''),
            tmp_path / 'run/config.py',
        )
    )
    positions = np.flatnonzero(list(kept.values()))
    assert len(after) == len(positions)
    for new, old in [(0, positions[0]), (len(after) - 1, positions[-1])]:
        ours, theirs = after[new], before[old]
        assert (ours['inputs']['img'] == theirs['inputs']['img']).all() and ours['inputs'][
            'img'
        ].shape[0] == 6
        boxes = [item['data_samples'].gt_instances_3d.bboxes_3d.tensor for item in (ours, theirs)]
        assert len(boxes[0]) and (boxes[0] == boxes[1]).all()


# Prunes, and loads a frame of what is left.
PROJECT = """
import sys
from mmengine.registry import DATASETS, init_default_scope
from adadedup_mm.cli.prune import main
from adadedup_mm.settings.load import load_config
main([sys.argv[1], '--work-dir', sys.argv[2], '--strategy', 'random'])
config = load_config(sys.argv[2] + '/config.py')
init_default_scope('mmdet3d')
frames = DATASETS.build(config.train_dataloader.dataset)
assert frames[0]['inputs']['img'].shape[0] == 6
print('frames:', len(frames))
"""


@pytest.mark.parametrize(
    'project, config',
    [('PETR', 'petr_vovnet_gridmask_p4_800x320.py'), ('DETR3D', 'detr3d_r101_gridmask.py')],
)
def test_projects_of_mmdet3d_train_on_the_pruned_file(project, config, drives, tmp_path):
    """Needs mmdet3d's source tree on PYTHONPATH: its wheel has no projects. One process cannot
    import both."""
    folder = next(
        (
            folder
            for folder in sys.path
            if (Path(folder) / 'projects' / project / 'configs').is_dir()
        ),
        None,
    )
    if folder is None:
        pytest.skip('no projects of mmdet3d here')
    ours = tmp_path / 'config.py'
    ours.write_text(
        f"_base_ = ['{folder}/projects/{project}/configs/{config}', {OFFLINE}]\n"
        f"train_dataloader = dict(dataset=dict(data_root='{drives}/nuscenes/'))\n"
    )
    variables = environment() | dict(PYTHONPATH=f'{ROOT}:{folder}')
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', PROJECT, str(ours), str(tmp_path / 'run')],
        env=variables,
        cwd=folder,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f'frames: {round(0.8 * SCENES * FRAMES)}' in done.stdout


# Processes


@pytest.fixture(scope='module', params=['nuscenes', 'temporal'])
def adapted(request, drives, proxy, tmp_path_factory):
    """A config with a proxy, and the selection of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp(request.param)
    config = write_config(
        folder,
        request.param,
        drives,
        proxy=dict(config=str(proxy), epochs=1),
        feedback=dict(signal='proxy'),
    )
    return config, prune(config, folder / 'run')


def environment():
    return dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT), CUDA_VISIBLE_DEVICES='')


def test_two_processes_choose_the_same_frames(adapted, tmp_path):
    config, expected = adapted
    done = subprocess.run(
        [
            sys.executable,
            '-W',
            'ignore',
            '-m',
            'torch.distributed.run',
            '--nproc_per_node=2',
            '--master_port=29531',
            'tools/prune.py',
            str(config),
            '--work-dir',
            str(tmp_path / 'two'),
            '--launcher',
            'pytorch',
        ],
        env=environment(),
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    table = pq.read_table(tmp_path / 'two/samples.parquet')
    assert (
        dict(zip(table['sample_id'].to_pylist(), table['kept'].to_pylist(), strict=True))
        == expected
    )


# Dies once the stage's results are written, before they count as finished.
DYING = """
import os, signal, sys
from adadedup_mm import stages
from adadedup_mm.cli.prune import main
write, stage = stages.store.write_json, sys.argv.pop(1)
stages.store.write_json = lambda path, value: (
    os.kill(os.getpid(), signal.SIGKILL) if path.parent.name == stage else write(path, value))
main()
"""


@pytest.mark.parametrize('stage', ['proxy', 'losses'])
def test_a_killed_run_resumes_to_the_identical_frames(stage, adapted, tmp_path):
    config, expected = adapted
    command = [
        sys.executable,
        '-W',
        'ignore',
        '-c',
        DYING,
        stage,
        str(config),
        '--work-dir',
        str(tmp_path / 'run'),
    ]
    done = subprocess.run(command, env=environment(), cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    assert not (tmp_path / 'run/manifest.json').exists()
    assert prune(config, tmp_path / 'run', '--resume') == expected
    assert not list((tmp_path / 'run').rglob('*.tmp'))


# Scenes


def scenes_of(world):
    return {
        record['token']: record['scene_token'] for record in records(input_file('temporal', world))
    }


@pytest.mark.parametrize('strategy', ['random', 'uniform_stride', 'clip_dedup', 'adadedup'])
def test_whole_scenes_stay_or_go(strategy, drives, proxy, tmp_path):
    config = write_config(
        tmp_path,
        'temporal',
        drives,
        group_by='scene',
        proxy=dict(config=str(proxy), epochs=1),
        feedback=dict(signal='proxy'),
    )
    kept = prune(config, tmp_path / 'run', '--strategy', strategy, '--keep-ratio', '.4')
    scenes = scenes_of(drives)
    stays = {scene for token, scene in scenes.items() if kept[token]}
    assert {token for token, scene in scenes.items() if scene in stays} == {
        token for token in kept if kept[token]
    }
    # The budget is 13 of 32 frames; scenes have 4.
    assert sum(kept.values()) == 12
    assert "group_by='scene': 3 of 8 scenes stay, with 12 samples for a budget of 13." in notes(
        tmp_path / 'run'
    )
    reasons = pq.read_table(tmp_path / 'run/samples.parquet').to_pylist()
    assert {row['reason'] for row in reasons if row['kept']} & {'kept with its scene'}


@pytest.mark.parametrize('kind', ['nuscenes', 'waymo'])
@pytest.mark.parametrize('strategy', ['random', 'clip_dedup'])
def test_kept_frames_of_a_scene_keep_their_distance(strategy, kind, drives, tmp_path):
    config = write_config(tmp_path, kind, drives, min_gap=1)
    kept = list(prune(config, tmp_path / 'run', '--strategy', strategy).values())
    assert sum(kept) == 16
    for start in range(0, len(kept), FRAMES):
        scene = kept[start : start + FRAMES]
        assert not any(a and b for a, b in itertools.pairwise(scene))
    assert 'min_gap=1: kept frames of a scene have at least 1 others between them.' in notes(
        tmp_path / 'run'
    )


def test_a_gap_that_the_budget_does_not_allow_is_said(drives, tmp_path):
    config = write_config(tmp_path, 'temporal', drives, min_gap=2)
    kept = prune(config, tmp_path / 'run', '--strategy', 'clip_dedup', '--keep-ratio', '.75')
    assert sum(kept.values()) == 24
    assert (
        'min_gap=2 cannot be met, which has room for 16 samples while 24 are kept: kept frames of '
        'a scene have at least 0 others between them.'
    ) in notes(tmp_path / 'run')


@pytest.mark.parametrize('option', [dict(group_by='scene'), dict(min_gap=1)])
def test_scenes_are_needed_where_they_are_asked_for(option, drives, tmp_path, capsys):
    config = write_config(tmp_path, 'kitti', drives, **option)
    line = fails([config, '--work-dir', tmp_path / 'run', '--strategy', 'random'], capsys)
    assert (
        f'adadedup.{next(iter(option))} needs scenes, but the annotation files name no scenes'
        in line
    )
    assert not (tmp_path / 'run').exists()


# Databases


def make_database(settings, path):
    """The database that mmdet3d's create_data.py makes of all frames; objects note their frame
    besides."""
    settings = settings | dict(pipeline=[], modality=dict(use_camera=True, use_lidar=False))
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        dataset = DATASETS.build(settings)
    database = {}
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        found, boxes = info['ann_info']['gt_labels_3d'], info['ann_info']['gt_bboxes_3d'].numpy()
        for number, (label, box) in enumerate(zip(found, boxes, strict=True)):
            if label >= 0:
                named = dataset.metainfo['classes'][label]
                database.setdefault(named, []).append(
                    dict(
                        name=named,
                        path=f'gt_database/{i}_{named}_{number}.bin',
                        image_idx=i,
                        gt_idx=number,
                        box3d_lidar=box,
                        num_points_in_gt=30,
                        of=Path(info['images'][FRONT[settings['type']]]['img_path']).name,
                    )
                )
    path.write_bytes(pickle.dumps(database))


@pytest.mark.parametrize('kind', DATASETS_OF)
def test_objects_of_pruned_frames_leave_the_database_of_the_whole_set(
    kind, drives, tmp_path, capsys
):
    dataset = eval(repr(DATASETS_OF[kind]).replace('{world}', str(drives)))
    database = tmp_path / 'dbinfos_train.pkl'
    make_database(dataset, database)
    sampler = dict(type='ObjectSample', db_sampler=dict(info_path=str(database)))
    part = dict(load_interval=2) if kind == 'waymo' else dict(indices=list(range(1, 30, 2)))
    config = write_config(tmp_path, kind, drives, dataset=dataset | part | dict(pipeline=[sampler]))
    arguments = [config, '--work-dir', tmp_path / 'run', '--strategy', 'random']
    prune(config, tmp_path / 'run', '--strategy', 'random')
    rows = pq.read_table(tmp_path / 'run/samples.parquet').to_pylist()
    column = next(i for i, path in enumerate(rows[0]['image_paths']) if FOLDERS[kind] in path)
    pruned = {Path(row['image_paths'][column]).name for row in rows if not row['kept']}
    old, new = (
        [item for items in load_pickle(path).values() for item in items]
        for path in (database, tmp_path / 'run/annotations/dbinfos_train.pkl')
    )
    assert sum(item['of'] in pruned for item in old)
    assert same([item for item in old if item['of'] not in pruned], new)
    assert 'of frames that are not in the training set: they stay' in notes(tmp_path / 'run')
    database.write_bytes(pickle.dumps({}))
    assert f'{database} has changed since' in fails(arguments, capsys)


# Bad input


def damage(folder, kind, world, change):
    """A copy of the annotation file with something wrong; the dataset's dict that reads it."""
    content = load_pickle(input_file(kind, world))
    change(content['infos' if kind == 'temporal' else 'data_list'])
    (folder / 'damaged.pkl').write_bytes(pickle.dumps(content))
    dataset = eval(repr(DATASETS_OF[kind]).replace('{world}', str(world)))
    return {**dataset, 'ann_file': str(folder / 'damaged.pkl')}


def cameras(record):
    return record['cams'] if 'cams' in record else record['images']


def no_objects(found):
    for record in found:
        for key in ('instances', 'cam_sync_instances'):
            if key in record:
                record[key] = []
        for boxes in record.get('cam_instances', {}).values():
            boxes.clear()
        if 'gt_boxes' in record:
            record.update(
                gt_boxes=np.zeros((0, 7)),
                gt_names=np.array([], str),
                gt_velocity=np.zeros((0, 2)),
                num_lidar_pts=np.zeros(0, int),
                valid_flag=np.zeros(0, bool),
            )


def no_camera(found):
    cameras(found[5]).pop(list(cameras(found[5]))[1])


def calibration(shape):
    def change(found):
        camera = cameras(found[5])['CAM2' if 'CAM2' in cameras(found[5]) else 'CAM_FRONT']
        camera['cam_intrinsic' if 'cams' in found[5] else 'cam2img'] = np.ones(shape)

    return change


def mixed(found):
    found[5] = {
        ('images' if key == 'cams' else 'cams' if key == 'images' else key): value
        for key, value in found[5].items()
    }


@pytest.mark.parametrize(
    'kind, change, words',
    [
        *((kind, no_objects, 'has an object of its classes') for kind in DATASETS_OF),
        ('nuscenes', no_camera, 'lacks CAM_FRONT_RIGHT'),
        ('waymo', no_camera, 'lacks CAM_FRONT_LEFT'),
        ('temporal', no_camera, 'has cameras CAM_FRONT, CAM_FRONT_LEFT'),
        ('nuscenes', calibration((2, 3)), 'CAM_FRONT: cam2img has shape (2, 3)'),
        ('temporal', calibration((2, 3)), "CAM_FRONT: 'cam_intrinsic' has shape (2, 3)"),
        ('waymo', calibration((5, 5)), 'cam2img has shape (5, 5)'),
        ('kitti', calibration((5, 5)), 'cam2img has shape (5, 5)'),
        ('nuscenes', mixed, 'not of the same generation'),
        ('temporal', mixed, "no 'cams'"),
    ],
)
def test_damaged_infos_give_one_line(kind, change, words, drives, tmp_path, capsys):
    dataset = damage(tmp_path, kind, drives, change)
    config = write_config(tmp_path, kind, drives, dataset=dataset)
    line = fails([config, '--work-dir', tmp_path / 'run', '--strategy', 'random'], capsys)
    assert words in line
    assert (
        change is no_objects
        or 'record 5' in line
        or name(records(input_file(kind, drives))[5]) in line
    )
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    'changes, words',
    [
        (
            dict(type='NuScenesDataset', ann_file='nuscenes_infos_temporal_train.pkl'),
            'older infos: use BEVFormerDataset',
        ),
        (dict(type='BEVFormerDataset', queue_length=2), 'no temporal infos'),
        (dict(type='KittiDataset', metainfo={}), 'is for NuScenesDataset'),
        (
            dict(type='KittiDataset'),
            'does not know the classes car, truck, construction_vehicle, ... of its metainfo',
        ),
        (
            dict(type='NuScenesDataset', ann_file='../kitti/kitti_infos_train.pkl'),
            'is for KittiDataset',
        ),
        (dict(type='ConcatDataset'), 'a training set needs infos of one generation'),
    ],
)
def test_infos_of_another_generation_or_dataset_give_one_line(
    changes, words, drives, tmp_path, capsys
):
    both = [
        eval(repr(DATASETS_OF[kind]).replace('{world}', str(drives)))
        for kind in ('nuscenes', 'temporal')
    ]
    dataset = (
        changes | dict(datasets=both)
        if changes['type'] == 'ConcatDataset'
        else {**both[0], **changes}
    )
    config = write_config(tmp_path, 'wrong', drives, dataset=dataset)
    assert words in fails([config, '--work-dir', tmp_path / 'run', '--strategy', 'random'], capsys)


@pytest.mark.parametrize(
    'kind, folder, camera',
    [
        ('nuscenes', 'nuscenes/samples/CAM_FRONT', 'CAM_FRONT'),
        ('waymo', 'waymo/kitti_format/training/image_0', 'CAM_FRONT'),
        ('kitti', 'kitti/training/image_2', 'CAM2'),
    ],
)
def test_missing_pictures_are_reported(kind, folder, camera, drives, tmp_path, capsys):
    """Some of them count as unreadable; a folder without any is an error."""
    shutil.copytree(drives, tmp_path / 'world')
    first = (
        tmp_path
        / 'world'
        / folder
        / cameras(records(input_file(kind, drives))[0])[camera]['img_path']
    )
    first.unlink()
    config = write_config(tmp_path, kind, tmp_path / 'world')
    kept = prune(config, tmp_path / 'run', '--strategy', 'clip_dedup')
    assert sum(kept.values()) == len(kept) // 2
    rows = pq.read_table(tmp_path / 'run/samples.parquet').to_pylist()
    assert [row['kept'] for row in rows if row['reason'] == 'unreadable image'] == [True]
    assert first.name in notes(tmp_path / 'run')
    shutil.rmtree(tmp_path / 'world' / folder)
    (tmp_path / 'world' / folder).mkdir()
    line = fails([config, '--work-dir', tmp_path / 'other', '--strategy', 'clip_dedup'], capsys)
    assert 'none of the 32 images in' in line and folder in line


def test_folders_of_other_cameras_are_not_needed(drives, tmp_path):
    shutil.copytree(drives / 'nuscenes', tmp_path / 'world/nuscenes')
    expected = prune(
        write_config(tmp_path, 'nuscenes', drives), tmp_path / 'all', '--strategy', 'clip_dedup'
    )
    for camera in CAMERAS[1:]:
        shutil.rmtree(tmp_path / 'world/nuscenes/samples' / camera)
    config = write_config(tmp_path, 'nuscenes', tmp_path / 'world')
    assert prune(config, tmp_path / 'run', '--strategy', 'clip_dedup') == expected


def test_a_3d_proxy_needs_all_cameras(drives, tmp_path, capsys):
    shutil.copytree(drives / 'nuscenes', tmp_path / 'world/nuscenes')
    shutil.rmtree(tmp_path / 'world/nuscenes/samples/CAM_BACK')
    proxy = dict(config=str(ROOT / 'configs/bevformer/bevformer_minidrive.py'))
    config = write_config(tmp_path, 'temporal', tmp_path / 'world', proxy=proxy)
    line = fails([config, '--work-dir', tmp_path / 'run'], capsys)
    assert 'needs all cameras, but 32 of their images do not exist' in line
