import copy
import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image
from pruning_runs import read_without_images

from adadedup_mm.base.errors import UserError
from adadedup_mm.datasets import (
    PrunedDataset,
    pruned_config,
    read_pool,
    subset_config,
    write_pruned,
)
from adadedup_mm.datasets.samples import sample_id, stored_infos

SHARED = Path(__file__).resolve().parents[2] / 'shared' / 'data'


def make_image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (20, 10)).save(path)


def annotation(number, image_id, category=1, bbox=(1, 2, 3, 4), **more):
    return dict(
        id=number,
        image_id=image_id,
        category_id=category,
        bbox=list(bbox),
        area=bbox[2] * bbox[3],
        iscrowd=0,
        **more,
    )


def make_coco(
    root, ids=(3, 1, 2), name='train.json', classes=('car', 'bus'), annotated=None, **image_fields
):
    """A COCO folder with one car per image, and a bus in the last; returns its dataset dict."""
    for image_id in ids:
        make_image(root / 'images' / f'{image_id}.png')
    annotated = ids if annotated is None else annotated
    content = dict(
        categories=[dict(id=10 * i, name=name) for i, name in enumerate(classes)],
        images=[dict(id=i, file_name=f'{i}.png', height=10, width=20, **image_fields) for i in ids],
        annotations=[annotation(n, i, 0) for n, i in enumerate(annotated)]
        + ([annotation(100, annotated[-1], 10, (0, 0, 5, 5))] if annotated else []),
    )
    (root / name).write_text(json.dumps(content))
    return dict(
        type='CocoDataset',
        data_root=f'{root}/',
        ann_file=name,
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=classes),
        pipeline=[dict(type='LoadImageFromFile')],
    )


def make_voc(root, names=('000005', '000007', '000009')):
    (root / 'ImageSets' / 'Main').mkdir(parents=True)
    (root / 'Annotations').mkdir()
    (root / 'ImageSets' / 'Main' / 'trainval.txt').write_text('\n'.join(names) + '\n')
    for name in names:
        make_image(root / 'JPEGImages' / f'{name}.jpg')
        (root / 'Annotations' / f'{name}.xml').write_text(
            '<annotation><size><width>20</width><height>10</height></size>'
            '<object><name>dog</name><difficult>0</difficult>'
            '<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>6</xmax><ymax>8</ymax></bndbox></object>'
            '<object><name>cat</name><difficult>1</difficult>'
            '<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>6</xmax><ymax>8</ymax></bndbox></object></annotation>'
        )
    return dict(
        type='VOCDataset',
        data_root=f'{root}/',
        ann_file='ImageSets/Main/trainval.txt',
        data_prefix=dict(sub_data_root=''),
        pipeline=[],
    )


def make_data_list(root, count=4):
    for i in range(count):
        make_image(root / 'images' / f'{i}.png')
    content = dict(
        metainfo=dict(classes=['car']),
        data_list=[
            dict(
                img_path=f'{i}.png',
                height=10,
                width=20,
                instances=[dict(bbox=[0, 0, 5, i], bbox_label=0, ignore_flag=0)],
            )
            for i in range(count)
        ],
    )
    (root / 'list.json').write_text(json.dumps(content, indent=1))
    return dict(
        type='BaseDetDataset',
        data_root=str(root),
        ann_file='list.json',
        data_prefix=dict(img_path='images'),
        pipeline=[],
    )


def make_crowd_human(root, count=3):
    (root / 'images').mkdir(parents=True)
    lines = []
    for i in range(count):
        make_image(root / 'images' / f'person{i}.jpg')
        lines.append(
            json.dumps(
                dict(
                    ID=f'person{i}',
                    gtboxes=[
                        dict(tag=tag, fbox=[1, 1, 3, 5], hbox=[1, 1, 2, 2], vbox=[1, 1, 3, 4])
                        for tag in ('person', 'mask')
                    ],
                )
            )
        )
    (root / 'annotation_train.odgt').write_text('\n'.join(lines))
    (root / 'id_hw_train.json').write_text(
        json.dumps({f'person{i}': [10, 20] for i in range(count)})
    )
    return dict(
        type='CrowdHumanDataset',
        data_root=f'{root}/',
        ann_file='annotation_train.odgt',
        data_prefix=dict(img='images/'),
        pipeline=[],
    )


def config_of(dataset, **more):
    return Config(
        dict(default_scope='mmdet', train_dataloader=dict(batch_size=2, dataset=dataset), **more)
    )


def build(config):
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build(config.train_dataloader.dataset)
        dataset.full_init()
        return dataset


def prune(config, keep, tmp_path):
    """Keeps some samples by index; returns the pool, the files and the config as stock tools would
    load it."""
    pool, sources = read_pool(config)
    kept = np.isin(np.arange(len(pool)), keep)
    files = write_pruned(sources, kept, tmp_path / 'work' / 'annotations')
    path = tmp_path / 'work' / 'config.py'
    path.write_text(pruned_config(config, sources, tmp_path / 'work' / 'annotations').pretty_text)
    return pool, files, Config.fromfile(path)


def test_coco_samples_become_a_pool(tmp_path):
    settings = make_coco(tmp_path, ids=(3, 1, 2**60))
    content = json.loads((tmp_path / 'train.json').read_text())
    content['annotations'].append(dict(annotation(50, 3), category_id=0, iscrowd=1))
    content['images'][1]['scene'] = 'night'
    (tmp_path / 'train.json').write_text(json.dumps(content))

    pool, (source,) = read_pool(config_of(settings))

    assert pool.sample_ids == ('3', '1', str(2**60))
    assert pool.image_paths[0] == (f'{tmp_path}/images/3.png',)
    assert pool.views == ('image',)
    assert pool.classes == ('car', 'bus')
    assert pool.image_sizes.tolist() == [[10, 20]] * 3
    assert pool.offsets.tolist() == [0, 1, 2, 4]
    assert pool.labels.tolist() == [0, 0, 0, 1]
    assert pool.boxes.tolist() == [[1, 2, 4, 6]] * 3 + [[0, 0, 5, 5]]
    assert pool.dataset_index.tolist() == [0, 0, 0]
    assert pool.scenes == ('', 'night', '')
    assert (pool.labels.dtype, pool.boxes.dtype, pool.offsets.dtype) == (
        np.int32,
        np.float32,
        np.int64,
    )
    assert (source.kind, source.ann_file) == ('coco', tmp_path / 'train.json')
    assert source.native_ids == (3, 1, 2**60)
    assert source.path == ('train_dataloader', 'dataset')


def test_samples_are_those_that_pass_the_filter(tmp_path):
    settings = make_coco(tmp_path, ids=(1, 2, 3), annotated=(1, 3))
    assert read_pool(config_of(settings))[0].sample_ids == ('1', '2', '3')
    settings['filter_cfg'] = dict(filter_empty_gt=True)
    assert read_pool(config_of(settings))[0].sample_ids == ('1', '3')


def test_voc_samples_become_a_pool(tmp_path):
    pool, (source,) = read_pool(config_of(make_voc(tmp_path / 'VOC2007')))
    assert pool.sample_ids == ('000005', '000007', '000009')
    assert [pool.classes[label] for label in pool.labels] == ['dog'] * 3, (
        'difficult objects are left out'
    )
    assert pool.boxes[0].tolist() == [1, 2, 5, 7]
    assert pool.image_sizes[0].tolist() == [10, 20]
    assert source.kind == 'image_set'


def test_ids_without_image_ids_are_paths_below_the_data_root(tmp_path):
    pool, (source,) = read_pool(config_of(make_data_list(tmp_path)))
    assert pool.sample_ids == tuple(f'images/{i}.png' for i in range(4))
    assert source.kind == 'data_list'


@pytest.mark.parametrize(
    'make, kind',
    [
        (make_coco, 'coco'),
        (make_voc, 'image_set'),
        (make_data_list, 'data_list'),
        (make_crowd_human, 'ids'),
    ],
)
def test_the_pruned_config_yields_the_kept_samples_and_originals_stay(tmp_path, make, kind):
    settings = make(tmp_path / 'data')
    original = {
        path: hashlib.sha256(path.read_bytes()).digest()
        for path in tmp_path.rglob('*')
        if path.is_file()
    }
    pool, (file,), pruned = prune(config_of(settings), [0, 2], tmp_path)
    assert read_pool(config_of(settings))[1][0].kind == kind
    assert (file['records'], file['kept']) == (len(pool), 2)
    assert Path(file['output']).parent == tmp_path / 'work' / 'annotations'
    assert Path(file['input']) == tmp_path / 'data' / settings['ann_file']
    full, part = build(config_of(settings)), build(pruned)
    assert len(part) == 2
    for index, before in enumerate([0, 2]):
        expected, found = (
            dataset.get_data_info(i) for dataset, i in ((full, before), (part, index))
        )
        expected.pop('sample_idx'), found.pop('sample_idx')
        assert found == expected
    if kind != 'ids':
        assert read_pool(pruned)[0].sample_ids == (pool.sample_ids[0], pool.sample_ids[2])
    assert {path: hashlib.sha256(path.read_bytes()).digest() for path in original} == original


@pytest.mark.parametrize(
    'name', ['CityscapesDataset', 'Objects365V1Dataset', 'Objects365V2Dataset', 'LVISV1Dataset']
)
def test_relatives_of_coco_are_read_and_rewritten(tmp_path, name):
    classes = ('person', 'car') if name == 'CityscapesDataset' else ('Person', 'Car')
    settings = make_coco(tmp_path / 'data', classes=classes)
    settings['type'] = name
    if name == 'Objects365V2Dataset':
        # It looks for images in a folder of its own: patchX/xxx.jpg.
        settings['data_prefix'] = dict(img='')
        path = tmp_path / 'data' / 'train.json'
        path.write_text(path.read_text().replace('"file_name": "', '"file_name": "images/'))
    if name == 'LVISV1Dataset':
        pytest.importorskip('lvis')
        content = json.loads((tmp_path / 'data' / 'train.json').read_text())
        for image in content['images']:
            image['coco_url'] = f'http://images.cocodataset.org/{image["file_name"]}'
        (tmp_path / 'data' / 'train.json').write_text(json.dumps(content))
    pool, (file,), pruned = prune(config_of(settings), [1], tmp_path)
    assert pool.sample_ids == ('3', '1', '2')
    assert (file['records'], file['kept']) == (3, 1)
    assert read_pool(pruned)[0].sample_ids == ('1',)


def test_wrappers_are_seen_through(tmp_path):
    first = make_coco(tmp_path / 'a', classes=('car', 'bus'), scene='s')
    second = make_coco(tmp_path / 'b', ids=(1, 2), classes=('bus', 'bike'))
    third = make_voc(tmp_path / 'c')
    settings = dict(
        type='RepeatDataset',
        times=2,
        dataset=dict(
            type='ConcatDataset',
            datasets=[
                dict(type='ClassBalancedDataset', oversample_thr=0.1, dataset=first),
                dict(
                    type='MultiImageMixDataset',
                    pipeline=[],
                    dataset=dict(type='RepeatDataset', times=3, dataset=second),
                ),
                third,
            ],
        ),
    )
    config = config_of(settings)
    pool, files, pruned = prune(config, [0, 4, 6], tmp_path)
    assert pool.sample_ids == (
        '0:3',
        '0:1',
        '0:2',
        '1:1',
        '1:2',
        '2:000005',
        '2:000007',
        '2:000009',
    )
    assert pool.dataset_index.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert pool.classes[:4] == ('car', 'bus', 'bike', 'aeroplane')
    names = [pool.classes[label] for label in pool.labels]
    assert names == ['car', 'car', 'car', 'bus', 'bus', 'bus', 'bike', 'dog', 'dog', 'dog']
    assert pool.scenes == ('0:s', '0:s', '0:s', '', '', '', '', '')
    folder = tmp_path / 'work' / 'annotations'
    assert [file['output'] for file in files] == [
        str(folder / '0' / 'train.json'),
        str(folder / '1' / 'train.json'),
        str(folder / 'trainval.txt'),
    ]
    assert [file['kept'] for file in files] == [1, 1, 1]
    outer = pruned.train_dataloader.dataset
    assert (outer.type, outer.times, outer.dataset.type) == ('RepeatDataset', 2, 'ConcatDataset')
    assert read_pool(pruned)[0].sample_ids == ('0:3', '1:2', '2:000007')


def test_only_the_training_annotations_of_the_config_change(tmp_path):
    settings = make_coco(tmp_path / 'data')
    loader = dict(batch_size=1, dataset=settings)
    config = config_of(
        settings,
        val_dataloader=loader,
        test_dataloader=loader,
        adadedup=dict(keep_ratio=0.5),
        runner_type='adadedup_mm.engine.AdaDeDupRunner',
        custom_hooks=[dict(type='NumClassCheckHook')],
    )
    before = copy.deepcopy(config)
    _, _, pruned = prune(config, [0], tmp_path)
    assert config._cfg_dict == before._cfg_dict
    expected = copy.deepcopy(before)._cfg_dict
    del expected['adadedup'], expected['runner_type']
    expected.train_dataloader.dataset.ann_file = str(
        tmp_path / 'work' / 'annotations' / 'train.json'
    )
    assert pruned._cfg_dict == expected


def test_other_runners_stay(tmp_path):
    _, _, pruned = prune(config_of(make_coco(tmp_path), runner_type='MyRunner'), [0], tmp_path)
    assert pruned.runner_type == 'MyRunner'


def test_indices_choose_before_pruning_and_not_again(tmp_path):
    settings = dict(make_coco(tmp_path), indices=[2, 0])
    pool, _, pruned = prune(config_of(settings), [0], tmp_path)
    assert pool.sample_ids == ('2', '3')
    assert read_pool(pruned)[0].sample_ids == ('2',)


def test_datasets_without_a_known_format_are_wrapped(tmp_path):
    config = config_of(
        dict(type='ConcatDataset', datasets=[make_crowd_human(tmp_path / 'a')]),
        custom_imports=dict(imports='json', allow_failed_imports=True),
    )
    _, (file,), pruned = prune(config, [1], tmp_path)
    assert Path(file['output']).read_text() == 'person1\n'
    assert Path(file['output']).name == 'annotation_train_ids.txt'
    assert pruned.custom_imports == dict(
        imports=['json', 'adadedup_mm.datasets.pruned_dataset'], allow_failed_imports=True
    )
    assert [info['img_id'] for info in stored_infos(build(pruned))] == ['person1']


def test_datasets_with_proposals_are_wrapped(tmp_path):
    settings = make_coco(tmp_path)
    proposals = {f'images/{i}.png': dict() for i in (1, 2, 3)}
    (tmp_path / 'proposals.pkl').write_bytes(pickle.dumps(proposals))
    _, (file,), pruned = prune(
        config_of(dict(settings, proposal_file='proposals.pkl')), [1], tmp_path
    )
    assert Path(file['output']).read_text() == '1\n'
    assert len(build(pruned)) == 1


def test_subset_config_trains_on_the_original_files(tmp_path):
    config = config_of(
        dict(
            type='ConcatDataset',
            datasets=[make_coco(tmp_path / 'a'), make_data_list(tmp_path / 'b')],
        ),
        adadedup=dict(),
    )
    pool, sources = read_pool(config)
    kept = np.isin(np.arange(len(pool)), [1, 2, 5])
    subset = subset_config(config, sources, kept, tmp_path / 'ids')
    assert 'adadedup' not in subset and 'adadedup' in config
    concat = build(Config.fromstring(subset.pretty_text, '.py'))
    infos = [info for dataset in concat.datasets for info in stored_infos(dataset)]
    assert [info.get('img_id', info['img_path'][-5:]) for info in infos] == [1, 2, '2.png']
    with pytest.raises(
        UserError, match=r'no sample of train_dataloader.dataset.datasets.0 would be kept'
    ):
        subset_config(config, sources, np.arange(len(pool)) > 3, tmp_path / 'ids')


def test_pure_python_configs_work(tmp_path):
    (tmp_path / 'lazy.py').write_text(
        'from mmengine.config import read_base\nfrom mmdet.datasets import CocoDataset\n'
        f'train_dataloader = dict(dataset={make_coco(tmp_path / "data")!r})\n'
        'train_dataloader["dataset"].update(type=CocoDataset)\ndefault_scope = "mmdet"\n'
    )
    pool, _, pruned = prune(Config.fromfile(tmp_path / 'lazy.py'), [1], tmp_path)
    assert pool.sample_ids == ('3', '1', '2')
    assert read_pool(pruned)[0].sample_ids == ('1',)


def test_default_scope_is_left_as_it_was(tmp_path):
    with DefaultScope.overwrite_default_scope('mmengine'):
        read_pool(config_of(make_coco(tmp_path)))
        assert DefaultScope.get_current_instance().scope_name == 'mmengine'


def test_real_frames_are_halved_exactly(tmp_path):
    if not SHARED.exists():
        pytest.skip('needs ../shared')
    settings = dict(
        type='CocoDataset',
        data_root=f'{SHARED}/aerial_cars/',
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=('car',)),
    )
    pool, (file,), pruned = prune(config_of(settings), np.arange(0, 498, 2), tmp_path)
    assert (len(pool), file['records'], file['kept']) == (498, 498, 249)
    assert {'DJI', 'DJI_0004_1'} <= set(pool.scenes)
    assert len(read_pool(pruned)[0]) == 249


class TestBadInput:
    @pytest.fixture
    def settings(self, tmp_path):
        return make_coco(tmp_path)

    def refuse(self, settings, *messages):
        with pytest.raises(UserError) as caught:
            read_pool(settings if isinstance(settings, Config) else config_of(settings))
        text = str(caught.value)
        assert '\n' not in text
        for message in messages:
            assert message in text, text

    def edit(self, tmp_path, change):
        content = json.loads((tmp_path / 'train.json').read_text())
        change(content)
        (tmp_path / 'train.json').write_text(json.dumps(content))

    def test_no_training_set(self):
        self.refuse(Config(dict(model=dict())), "no 'train_dataloader'")

    def test_training_set_that_is_pruned_already(self, settings):
        self.refuse(
            dict(type='PrunedDataset', dataset=settings),
            'train_dataloader.dataset is a PrunedDataset',
        )

    def test_unknown_dataset_type(self, settings):
        self.refuse(
            dict(settings, type='CocoDatset'),
            "'CocoDatset' is not registered",
            "did you mean 'CocoDataset'",
        )

    def test_wrong_argument(self, settings):
        self.refuse(
            dict(settings, colour=1),
            'train_dataloader.dataset (CocoDataset) cannot be built',
            'colour',
        )

    def test_missing_annotation_file(self, tmp_path, settings):
        self.refuse(
            dict(settings, ann_file='gone.json'),
            f'annotation file {tmp_path}/gone.json does not exist here',
            'ann_file and data_root of train_dataloader.dataset (CocoDataset)',
        )

    def test_missing_image_folder(self, tmp_path, settings):
        self.refuse(
            dict(settings, data_prefix=dict(img='gone/')),
            f'image folder {tmp_path}/gone/ does not exist',
            'data_prefix.img',
        )

    def test_missing_images(self, tmp_path, settings):
        first, *others = sorted((tmp_path / 'images').iterdir())
        first.unlink()
        assert len(read_pool(config_of(settings))[0]) == 3
        for image in others:
            image.unlink()
        self.refuse(settings, 'none of the 3 images in', f'{tmp_path}/images')
        assert len(read_without_images(config_of(settings))[0]) == 3

    def test_duplicate_image_ids(self, tmp_path, settings):
        self.edit(tmp_path, lambda content: content['images'].append(content['images'][0]))
        self.refuse(
            settings, f'{tmp_path}/train.json', '1 image ids appear more than once, first 3'
        )

    def test_malformed_json(self, tmp_path, settings):
        (tmp_path / 'train.json').write_text('{"images": [\n{"id": 1,}]}')
        self.refuse(settings, f'{tmp_path}/train.json is not valid JSON', 'line 2 column 10')

    def test_malformed_json_of_other_formats(self, tmp_path):
        settings = make_data_list(tmp_path)
        (tmp_path / 'list.json').write_text('{"data_list": [')
        self.refuse(settings, f'{tmp_path}/list.json is not valid JSON', 'line 1')

    def test_classes_that_are_not_in_the_file(self, settings):
        self.refuse(
            dict(settings, metainfo=dict(classes=('person',))),
            'none of its classes (person)',
            '(car, bus)',
            'metainfo',
        )

    def test_empty_dataset(self, tmp_path, settings):
        self.edit(tmp_path, lambda content: content.update(images=[], annotations=[]))
        self.refuse(settings, 'train_dataloader.dataset (CocoDataset) is empty')

    def test_nothing_left_by_the_filter(self, settings):
        self.refuse(
            dict(settings, filter_cfg=dict(min_size=32)),
            'is empty: no sample of',
            'passes its filter_cfg',
        )

    def test_record_without_a_field(self, tmp_path, settings):
        self.edit(tmp_path, lambda content: content['images'][1].pop('width'))
        self.refuse(settings, 'cannot read the record with file_name 1.png', "KeyError: 'width'")

    def test_annotation_ids_that_are_not_unique(self, tmp_path, settings):
        self.edit(
            tmp_path, lambda content: content['annotations'].append(content['annotations'][0])
        )
        self.refuse(settings, 'CocoDataset) cannot read', 'are not unique')

    def test_missing_xml(self, tmp_path):
        settings = make_voc(tmp_path / 'voc')
        (tmp_path / 'voc' / 'Annotations' / '000007.xml').unlink()
        self.refuse(settings, 'xml_path', '000007.xml', 'No such file')

    def test_malformed_xml(self, tmp_path):
        settings = make_voc(tmp_path / 'voc')
        (tmp_path / 'voc' / 'Annotations' / '000007.xml').write_text('<annotation><size>')
        self.refuse(settings, '000007.xml', 'ParseError')

    def test_labels_without_a_class(self, tmp_path):
        settings = make_data_list(tmp_path)
        path = tmp_path / 'list.json'
        path.write_text(path.read_text().replace('"bbox_label": 0', '"bbox_label": 5'))
        self.refuse(settings, 'label 5, but there are only 1 classes')

    def test_source_without_a_kept_sample(self, tmp_path, settings):
        _, sources = read_pool(config_of(settings))
        with pytest.raises(UserError, match='would be kept: raise the keep ratio'):
            write_pruned(sources, np.zeros(3, bool), tmp_path / 'out')
        assert not (tmp_path / 'out').exists()

    def test_work_dir_that_is_the_data_folder(self, tmp_path, settings):
        _, sources = read_pool(config_of(settings))
        with pytest.raises(UserError, match='is an annotation file of the dataset itself'):
            write_pruned(sources, np.ones(3, bool), tmp_path)


class Counting(BaseDataset):
    """Yields its index; every third sample has no valid data."""

    def load_data_list(self):
        return [dict(sample_idx=100 + i) for i in range(12)]

    def get_cat_ids(self, index):
        return [index]


def drop_every_third(info):
    return None if info['sample_idx'] % 3 == 0 else info['sample_idx']


class TestPrunedDataset:
    @pytest.fixture
    def dataset(self):
        inner = Counting(pipeline=[drop_every_third], metainfo=dict(classes=('car',)))
        return PrunedDataset(inner, sample_ids=['107', '103', '101'])

    def test_keeps_the_order_of_the_dataset(self, dataset):
        assert len(dataset) == 3
        assert [dataset.get_data_info(i)['sample_idx'] for i in range(3)] == [1, 3, 7]
        assert [dataset.get_cat_ids(i) for i in range(3)] == [[1], [3], [7]]
        assert dataset.metainfo == dict(classes=('car',))

    def test_redraws_among_the_kept_only(self, dataset):
        assert {dataset[1] for _ in range(50)} == {1, 7}
        assert (dataset[0], dataset[2]) == (1, 7)

    def test_gives_up_when_no_kept_sample_is_valid(self):
        inner = Counting(pipeline=[drop_every_third], max_refetch=5)
        with pytest.raises(RuntimeError, match='no valid sample in 6 attempts'):
            PrunedDataset(inner, sample_ids=['103', '106'])[0]

    def test_lists_and_files_of_ids_are_the_same(self, tmp_path, dataset):
        (tmp_path / 'ids.txt').write_text('101\n103\n107\n')
        inner = Counting(serialize_data=False)
        assert (
            PrunedDataset(inner, ids_file=str(tmp_path / 'ids.txt')).indices.tolist()
            == dataset.indices.tolist()
        )

    def test_travels_to_workers(self, dataset):
        assert pickle.loads(pickle.dumps(dataset))[2] == 7

    def test_loads_late_if_asked(self):
        dataset = PrunedDataset(Counting(lazy_init=True), sample_ids=['105'], lazy_init=True)
        assert not dataset.dataset._fully_initialized
        assert len(dataset) == 1

    def test_hooks_can_switch_the_pipeline(self, dataset):
        dataset.pipeline = lambda info: 'switched'
        assert dataset[0] == 'switched'

    @pytest.mark.parametrize(
        'arguments, message',
        [
            (
                dict(sample_ids=['101', '5', '1']),
                '2 of 3 sample ids are not in Counting .*first 1, 5',
            ),
            (dict(sample_ids=[]), 'empty list'),
            (dict(), 'either'),
            (dict(sample_ids=['1'], ids_file='a'), 'either'),
            (dict(ids_file='gone.txt'), 'gone.txt cannot be read'),
        ],
    )
    def test_wrong_arguments_give_one_line(self, arguments, message):
        with pytest.raises(UserError, match=message):
            PrunedDataset(Counting(), **arguments)


def test_sample_ids_prefer_what_stays_the_same():
    assert sample_id(dict(img_id=7, token='a', sample_idx=3, img_path='x')) == '7'
    assert sample_id(dict(token='a', sample_idx=3)) == 'a'
    assert sample_id(dict(sample_idx=0, img_path='x')) == '0'
    assert sample_id(dict(img_path='/data/a/b.jpg'), '/data') == 'a/b.jpg'
    assert sample_id(dict(img_path='/other/b.jpg'), '/data/') == '/other/b.jpg'
    with pytest.raises(UserError, match='cannot be pruned'):
        sample_id(dict(height=3))


@pytest.mark.parametrize('serialize', [True, False])
def test_stored_infos_have_the_ids_of_the_file(serialize):
    infos = list(stored_infos(Counting(serialize_data=serialize)))
    assert [info['sample_idx'] for info in infos] == list(range(100, 112))
