"""The annotations of a run's dataset have changed: ``--resume`` computes what depends on them, and
nothing else."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from mmengine.config import Config
from PIL import Image
from test_datasets import annotation, config_of, make_coco, make_voc
from test_pipeline import fails

from adadedup_mm.base.errors import UserError
from adadedup_mm.base.files import sha256_value
from adadedup_mm.cli.prune import main as prune_main
from adadedup_mm.datasets import read_pool
from adadedup_mm.datasets.boxes import objects_key
from adadedup_mm.datasets.records import records_digest
from adadedup_mm.engine import prune_first
from adadedup_mm.settings.load import load_config
from adadedup_mm.settings.options import resolve_options
from adadedup_mm.stages import StageStore
from adadedup_mm.strategies.run import Run

ROOT = Path(__file__).parents[1]
COUNT = 12
PROXY = """
_base_ = '{root}/configs/proxy/faster_rcnn_tiny.py'
model = dict(neck=dict(out_channels=16),
             rpn_head=dict(in_channels=16, feat_channels=16),
             roi_head=dict(bbox_roi_extractor=dict(out_channels=16),
                           bbox_head=dict(in_channels=16, fc_out_channels=16)))
pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
            dict(type='Resize', scale=(96, 64), keep_ratio=True), dict(type='PackDetInputs')]
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=pipeline))
test_dataloader = dict(dataset=dict(pipeline=pipeline))
train_cfg = dict(max_epochs=1)
"""
PLAIN = dict(strategy='adadedup', feedback=dict(layout=0.5, beta=0))
STRATEGIES = dict(
    adadedup=dict(strategy='adadedup', feedback=dict(layout=0.5, signal='proxy')),
    density=PLAIN,
    clip_dedup=dict(strategy='clip_dedup'),
    tfdp=dict(strategy='tfdp'),
    vlm_sse=dict(strategy=dict(type='vlm_sse', text='ngrams')),
    el2n=dict(strategy=dict(type='el2n', runs=1, epochs=1)),
)


@pytest.fixture(scope='module', autouse=True)
def quick():
    """Without collecting garbage, which takes half of the time of trainings as short as these."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('gc.collect', lambda *arguments: 0)
        yield


def picture(path, i):
    """Pictures in groups of three that resemble each other."""
    generator = np.random.default_rng(i // 3)
    pixels = generator.integers(0, 255, (6, 8, 3)).astype(np.uint8)
    pixels[0, 0] = i
    Image.fromarray(pixels).resize((64, 48), Image.Resampling.BICUBIC).save(path)


def box(i):
    return [2 + i % 5, 3 + i % 7, 12 + i % 11, 10 + i % 3]


def coco(root):
    dataset = make_coco(root, ids=range(COUNT))
    content = json.loads((root / 'train.json').read_text())
    polygons = [[[x, y, x + w, y, x + w, y + h, x, y + h]] for x, y, w, h in map(box, range(COUNT))]
    content['annotations'] = [
        annotation(i, i, 10 * (i % 2), box(i), segmentation=polygons[i]) for i in range(COUNT)
    ]
    content['annotations'].append(
        dict(annotation(COUNT, 1, 0, (1, 1, 30, 30), segmentation=polygons[0]), iscrowd=1)
    )
    content['images'] = [dict(image, width=64, height=48) for image in content['images']]
    (root / 'train.json').write_text(json.dumps(content))
    for i in range(COUNT):
        picture(root / 'images' / f'{i}.png', i)
    return config_of(dataset)


def voc(root):
    names = [f'{i:06d}' for i in range(COUNT)]
    root.mkdir()
    dataset = make_voc(root, names)
    for i, name in enumerate(names):
        picture(root / 'JPEGImages' / f'{name}.jpg', i)
        file = root / 'Annotations' / f'{name}.xml'
        x, y, w, h = box(i)
        text = file.read_text().replace(
            '<width>20</width><height>10<', '<width>64</width><height>48<'
        )
        file.write_text(
            text.replace(
                '<xmax>6</xmax><ymax>8</ymax>', f'<xmax>{x + w}</xmax><ymax>{y + h}</ymax>'
            )
        )
    return config_of(dataset)


def data_list(root):
    (root / 'images').mkdir(parents=True)
    for i in range(COUNT):
        picture(root / 'images' / f'{i}.png', i)
    records = [
        dict(
            img_path=f'{i}.png',
            height=48,
            width=64,
            instances=[dict(bbox=[x, y, x + w, y + h], bbox_label=i % 2, ignore_flag=0)],
        )
        for i in range(COUNT)
        for x, y, w, h in [box(i)]
    ]
    (root / 'list.json').write_text(
        json.dumps(dict(metainfo=dict(classes=['car', 'bus']), data_list=records))
    )
    return config_of(
        dict(
            type='BaseDetDataset',
            data_root=str(root),
            ann_file='list.json',
            data_prefix=dict(img_path='images'),
            pipeline=[],
        )
    )


def infos(root):
    pytest.importorskip('mmdet3d')
    from test_infos import make_nuscenes

    def all_cars(content):
        for frame in content['data_list']:
            for instance in frame['instances']:
                instance['bbox_label_3d'] = instance['bbox_label'] = 0

    config = make_nuscenes(root, all_cars, count=COUNT, metainfo=dict(classes=('car', 'truck')))
    for i in range(COUNT):
        for camera in ('CAM_FRONT', 'CAM_BACK'):
            picture(root / 'samples' / camera / f'log{i // 3}__{camera}__{i}.png', i)
    return config


FORMATS = dict(coco=coco, voc=voc, data_list=data_list, infos=infos)


def edit_json(name):
    def edit(root, change):
        content = json.loads((root / name).read_text())
        change(content)
        (root / name).write_text(json.dumps(content))

    return edit


def edit_pickle(root, change):
    content = pickle.loads((root / 'infos.pkl').read_bytes())
    change(content)
    (root / 'infos.pkl').write_bytes(pickle.dumps(content))


def correct_a_label(root, kind):
    """A box gets larger, and the file a new date."""
    if kind == 'voc':
        file = root / 'Annotations/000004.xml'
        file.write_text(file.read_text().replace('<xmin>2<', '<xmin>9<'))
    elif kind == 'coco':
        edit_json('train.json')(
            root,
            lambda content: content['annotations'][4].update(
                bbox=[0, 0, 40, 40], area=1600, segmentation=[[0, 0, 40, 0, 40, 40]]
            ),
        )
    elif kind == 'data_list':
        edit_json('list.json')(
            root,
            lambda content: content['data_list'][4]['instances'][0].update(bbox=[0, 0, 40, 40]),
        )
    else:
        edit_pickle(
            root,
            lambda content: content['data_list'][4]['instances'][0]['bbox_3d'].__setitem__(0, 6.0),
        )


def setup(root, kind, **options):
    """A dataset of that format, and a config on disk that prunes it."""
    (root / 'in').mkdir()
    config = FORMATS[kind](root / 'in/data')
    (root / 'in/proxy.py').write_text(PROXY.replace('{root}', str(ROOT)))
    config.adadedup = dict(
        keep_ratio=0.5,
        embedder=dict(type='PixelEmbedder'),
        proxy=dict(config=str(root / 'in/proxy.py')),
        **options,
    )
    config.dump(root / 'in/config.py')
    return root / 'in/config.py'


def run(config, work_dir, *arguments):
    prune_main([str(config), '--work-dir', str(work_dir), *map(str, arguments)])


def tables(work_dir):
    """Everything that was decided."""
    names = ('samples', 'clusters', 'classes')
    content = {name: pq.read_table(work_dir / f'{name}.parquet').to_pydict() for name in names}
    files = {
        str(file.relative_to(work_dir)): file.read_bytes()
        for file in (work_dir / 'annotations').rglob('*.*')
    }
    return repr(content), files


def stage_times(work_dir):
    return {
        file.parent.name: file.stat().st_mtime_ns
        for file in (work_dir / 'stages').glob('*/done.json')
    }


@pytest.mark.parametrize(
    'kind, name',
    [
        *(('coco', name) for name in STRATEGIES),
        ('voc', 'density'),
        ('voc', 'vlm_sse'),
        ('voc', 'tfdp'),
        ('data_list', 'density'),
        ('data_list', 'tfdp'),
        ('data_list', 'el2n'),
        ('infos', 'density'),
        ('infos', 'tfdp'),
        ('infos', 'vlm_sse'),
    ],
)
def test_a_resumed_run_equals_a_fresh_one_and_keeps_what_does_not_depend_on_labels(
    kind, name, tmp_path, capsys
):
    config, work_dir = setup(tmp_path, kind, **STRATEGIES[name]), tmp_path / 'run'
    run(config, work_dir)
    before, times = tables(work_dir), stage_times(work_dir)
    correct_a_label(tmp_path / 'in/data', kind)
    line = fails([config, '--work-dir', work_dir], capsys)
    assert '--resume' in line and 'another dataset' not in line
    assert (
        'labels have changed' if kind == 'voc' else f'{kind_file(tmp_path, kind)} has changed'
    ) in line
    assert tables(work_dir) == before
    run(config, work_dir, '--resume')
    run(config, tmp_path / 'fresh')
    assert tables(work_dir) == tables(tmp_path / 'fresh')
    assert tables(work_dir) != before or name in ('clip_dedup', 'vlm_sse')
    now = stage_times(work_dir)
    kept = {'features', 'clusters'} if name != 'vlm_sse' else {'features'}
    assert {stage for stage in now if now[stage] == times[stage]} >= kept & now.keys()
    assert all(
        now[stage] != times[stage]
        for stage in ('scores', 'score_runs', 'proxy', 'captions')
        if stage in now
    )
    capsys.readouterr()
    run(config, work_dir)
    assert (
        f'kept {COUNT // 2} of {COUNT}' in capsys.readouterr().out and stage_times(work_dir) == now
    )


def kind_file(root, kind):
    return (
        root / 'in/data' / dict(coco='train.json', data_list='list.json', infos='infos.pkl')[kind]
    )


def rename_class(content):
    content['categories'][1]['name'] = 'truck'


def remove_images(content):
    content['images'] = content['images'][:-4]
    content['annotations'] = [
        item for item in content['annotations'] if item['image_id'] < COUNT - 4
    ]


def add_images(content):
    content['images'].append(dict(id=COUNT, file_name='0.png', height=48, width=64))
    content['annotations'].append(annotation(90, COUNT, 0, (1, 1, 20, 20)))


@pytest.mark.parametrize(
    'change, options',
    [
        (remove_images, []),
        (add_images, []),
        (
            rename_class,
            ['--cfg-options', "train_dataloader.dataset.metainfo.classes=('car','truck')"],
        ),
        (lambda content: content.update(info=dict(date_created='today')), []),
        (lambda content: content['annotations'].pop(), []),
        (lambda content: content['images'].reverse(), []),
        (None, ['--cfg-options', "train_dataloader.dataset.metainfo.classes=('bus',)"]),
        (
            None,
            [
                '--cfg-options',
                'train_dataloader.dataset.filter_cfg.filter_empty_gt=True',
                "train_dataloader.dataset.metainfo.classes=('bus',)",
            ],
        ),
    ],
)
def test_changes_of_any_kind_are_the_same_dataset_changed(change, options, tmp_path, capsys):
    config, work_dir = setup(tmp_path, 'coco', **PLAIN), tmp_path / 'run'
    run(config, work_dir)
    if change:
        edit_json('train.json')(tmp_path / 'in/data', change)
    arguments = [config, '--work-dir', work_dir, *options]
    assert '--resume' in fails(arguments, capsys)
    run(config, work_dir, '--resume', *options)
    run(config, tmp_path / 'fresh', *options)
    assert tables(work_dir) == tables(tmp_path / 'fresh')


def test_a_finished_work_dir_that_does_not_name_its_records_is_used_again(tmp_path):
    """As version 0.1 left it."""
    config = setup(tmp_path, 'coco', **PLAIN)
    run(config, tmp_path / 'run')
    manifest = json.loads((tmp_path / 'run/manifest.json').read_text())
    identity = json.loads((tmp_path / 'run/stages/run.json').read_text())
    del identity['records']
    manifest['key'] = sha256_value(identity)
    (tmp_path / 'run/manifest.json').write_text(json.dumps(manifest))
    run(config, tmp_path / 'run')
    assert json.loads((tmp_path / 'run/manifest.json').read_text()) == manifest


def test_a_new_date_in_the_file_trains_nothing_again(tmp_path):
    config, work_dir = setup(tmp_path, 'coco', **STRATEGIES['el2n']), tmp_path / 'run'
    run(config, work_dir)
    times = stage_times(work_dir)
    edit_json('train.json')(
        tmp_path / 'in/data', lambda content: content.update(info=dict(date_created='today'))
    )
    run(config, work_dir, '--resume')
    assert stage_times(work_dir) == times


@pytest.mark.parametrize('kind', ['coco', 'voc'])
def test_what_only_trainings_see_of_the_annotations_is_in_their_keys(kind, tmp_path):
    """A crowd or difficult object, which is no object of the pool."""
    config = load_config(setup(tmp_path, kind, **STRATEGIES['el2n']))

    def keys():
        pool, sources = read_pool(config)
        run = Run(config, resolve_options(config), StageStore(tmp_path / 'stages'), pool, sources)
        return run.density_stages.objects_key, run.proxy_stages.inputs(run.proxy_stages.config)

    before = keys()
    assert keys() == before
    if kind == 'coco':
        edit_json('train.json')(
            tmp_path / 'in/data',
            lambda content: content['annotations'][-1].update(bbox=[0, 0, 31, 31]),
        )
    else:
        file = tmp_path / 'in/data/Annotations/000004.xml'
        file.write_text(file.read_text().replace('<xmin>1<', '<xmin>3<'))
    assert keys()[0] == before[0] and keys()[1] != before[1]


def test_a_box_in_another_camera_changes_what_its_layout_is_computed_from(tmp_path):
    config = load_config(setup(tmp_path, 'infos', views='all', **PLAIN))

    def keys():
        pool, sources = read_pool(config)
        return objects_key(pool, sources)

    before = keys()
    # Behind the ego: the front camera does not see it.
    edit_pickle(
        tmp_path / 'in/data',
        lambda content: content['data_list'][4]['instances'][1]['bbox_3d'].__setitem__(0, -6.0),
    )
    assert keys() != before


def test_an_image_that_was_replaced_trains_the_proxy_again(tmp_path, capsys):
    config, work_dir = setup(tmp_path, 'coco', **STRATEGIES['el2n']), tmp_path / 'run'
    run(config, work_dir)
    times = stage_times(work_dir)
    picture(tmp_path / 'in/data/images/3.png', 100)
    assert 'images have changed' in fails([config, '--work-dir', work_dir], capsys)
    run(config, work_dir, '--resume')
    assert stage_times(work_dir)['score_runs'] != times['score_runs']


def test_unreadable_images_are_out_of_the_greedy_choice_once_they_are_dropped(tmp_path):
    config, work_dir = setup(tmp_path, 'coco', **STRATEGIES['vlm_sse']), tmp_path / 'run'
    (tmp_path / 'in/data/images/3.png').write_bytes(b'')
    for number, action in enumerate(['keep', 'drop']):
        options = ['--cfg-options', f'adadedup.on_bad_image={action}']
        run(config, work_dir, *options, *['--resume'] * number)
        run(config, tmp_path / action, *options)
        assert tables(work_dir) == tables(tmp_path / action)


def test_clusters_of_the_user_s_own_follow_the_scenes(tmp_path):
    config = setup(tmp_path, 'coco', strategy='clip_dedup', clusterer=dict(type='FixedClusterer'))
    edit = edit_json('train.json')
    edit(
        tmp_path / 'in/data',
        lambda content: [image.update(scene=image['id'] // 6) for image in content['images']],
    )
    run(config, tmp_path / 'run')
    edit(
        tmp_path / 'in/data',
        lambda content: [image.update(scene=image['id'] % 3) for image in content['images']],
    )
    run(config, tmp_path / 'run', '--resume')
    assert pq.read_table(tmp_path / 'run/clusters.parquet').num_rows == 3


def test_training_takes_changed_labels_by_itself(tmp_path):
    config = load_config(setup(tmp_path, 'coco', **PLAIN))
    config.work_dir = str(tmp_path / 'work')
    _, folder = prune_first(config)
    before = tables(folder)
    correct_a_label(tmp_path / 'in/data', 'coco')
    pruned, again = prune_first(config)
    assert again == folder and tables(folder) != before
    kept = json.loads(Path(pruned.train_dataloader.dataset.ann_file).read_text())['annotations']
    assert json.loads((tmp_path / 'in/data/train.json').read_text())['annotations'][
        4
    ] in kept or not any(item['id'] == 4 for item in kept)


def test_a_second_dataset_joins_and_the_file_of_the_first_one_alone_is_gone(tmp_path, capsys):
    config, work_dir = setup(tmp_path, 'coco', **PLAIN), tmp_path / 'run'
    run(config, work_dir)
    shutil.copytree(tmp_path / 'in/data', tmp_path / 'in/more')
    for i in range(COUNT):
        picture(tmp_path / f'in/more/images/{i}.png', i + 300)
    both = Config.fromfile(config)
    one = both.train_dataloader.dataset
    both.train_dataloader.dataset = dict(
        type='ConcatDataset', datasets=[one, dict(one, data_root=f'{tmp_path}/in/more/')]
    )
    both.dump(config)
    assert 'was no part of the dataset then' in fails([config, '--work-dir', work_dir], capsys)
    run(config, work_dir, '--resume')
    assert {str(file.relative_to(work_dir)) for file in work_dir.rglob('train.json')} == {
        'annotations/0/train.json',
        'annotations/1/train.json',
    }


@pytest.mark.parametrize('resume', [[], ['--resume']])
def test_another_dataset_is_refused(resume, tmp_path, capsys):
    config, work_dir = setup(tmp_path, 'coco', **PLAIN), tmp_path / 'run'
    run(config, work_dir)
    before = tables(work_dir)
    shutil.copytree(tmp_path / 'in/data', tmp_path / 'in/more')
    line = fails(
        [
            config,
            '--work-dir',
            work_dir,
            *resume,
            '--cfg-options',
            f'train_dataloader.dataset.data_root={tmp_path}/in/more/',
        ],
        capsys,
    )
    assert 'another dataset' in line and str(tmp_path / 'in/data/train.json') in line
    assert tables(work_dir) == before


def test_training_on_another_dataset_in_the_same_work_dir_is_refused_in_one_line(tmp_path):
    config = load_config(setup(tmp_path, 'coco', **PLAIN))
    config.work_dir = str(tmp_path / 'work')
    prune_first(config)
    shutil.copytree(tmp_path / 'in/data', tmp_path / 'in/more')
    config.train_dataloader.dataset.data_root = f'{tmp_path}/in/more/'
    with pytest.raises(UserError, match='another dataset'):
        prune_first(config)


def test_shared_stages_are_not_taken_from_a_run_on_other_labels(tmp_path):
    config = setup(tmp_path, 'coco', shared_stages=str(tmp_path / 'shared'), **STRATEGIES['el2n'])
    run(config, tmp_path / 'first')
    # Only the crowd, which the pool does not have.
    edit_json('train.json')(
        tmp_path / 'in/data', lambda content: content['annotations'][-1].update(bbox=[0, 0, 60, 40])
    )
    run(config, tmp_path / 'second')
    run(config, tmp_path / 'fresh', '--cfg-options', f'adadedup.shared_stages={tmp_path}/others')
    assert tables(tmp_path / 'second') == tables(tmp_path / 'fresh')
    times = stage_times(tmp_path / 'second')
    run(config, tmp_path / 'third')
    assert {name: stage_times(tmp_path / 'third')[name] for name in times} == times


def test_the_digest_of_records_looks_at_values_and_not_at_the_order_of_keys():
    torch = pytest.importorskip('torch')
    info = dict(
        a=1,
        b=[1.5, 'x', None],
        c=np.arange(3.0),
        d=torch.ones(2),
        e=dict(f=np.float32(1), g=(1, 2)),
    )
    digest = records_digest([info], ['record'])
    assert digest == records_digest([dict(reversed(info.items()), record=7)], ['record'])
    assert digest != records_digest([info, info], ['record'])
    for key, value in dict(
        a=2, b=[1.5, 'y', None], c=np.arange(3), d=torch.zeros(2), e={}, h=10**40
    ).items():
        assert digest != records_digest([info | {key: value}], ['record'])
