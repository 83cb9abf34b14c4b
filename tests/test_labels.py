"""What labels mean, what is unlabelled, why nothing counts, and that an image with all its lines is
one sample."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from mmengine.registry import DefaultScope
from PIL import Image
from test_datasets import (
    annotation,
    build,
    config_of,
    make_coco,
    make_data_list,
    make_image,
    make_voc,
)
from test_datasets import prune as prune_to

from adadedup_mm.annotations.coco import index_coco
from adadedup_mm.annotations.foreign import guess_format
from adadedup_mm.annotations.uncounted import explain_uncounted
from adadedup_mm.base.errors import UserError
from adadedup_mm.datasets import (
    PrunedDataset,
    pruned_config,
    read_pool,
    subset_config,
    write_pruned,
)
from adadedup_mm.datasets.sources import inner_dataset
from adadedup_mm.pool import pool_key
from adadedup_mm.proxy.stage import mean_by_sample
from adadedup_mm.pruning.prune import prune
from adadedup_mm.settings.options import resolve_options
from adadedup_mm.stages import StageStore
from adadedup_mm.strategies.needs import needs_of
from adadedup_mm.strategies.run import Run

LABELLED = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs'),
]
UNLABELLED = {
    'empty annotations': [
        dict(type='LoadImageFromFile'),
        dict(type='LoadEmptyAnnotations'),
        dict(type='PackDetInputs'),
    ],
    'scoped and nested': [
        dict(type='LoadImageFromFile'),
        dict(type='MultiBranch', branch_field=['a'], a=[dict(type='mmdet.LoadEmptyAnnotations')]),
    ],
    'branches alone': [
        dict(type='LoadImageFromFile'),
        dict(
            type='mmdet.MultiBranch',
            branch_field=['weak', 'strong'],
            weak=[dict(type='PackDetInputs')],
            strong=[dict(type='PackDetInputs')],
        ),
    ],
    'no step for labels': [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(8, 8)),
        dict(type='PackDetInputs'),
    ],
}


def pool_of(dataset, **more):
    return read_pool(config_of(dataset, **more))


def counts(pool):
    """How many objects each class has, without those that have none."""
    names = [pool.classes[label] for label in pool.labels]
    return {name: names.count(name) for name in names}


def edit(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return file


def concat(*datasets):
    return dict(type='ConcatDataset', datasets=list(datasets))


def refuse(dataset, *messages, **more):
    with pytest.raises(UserError) as caught:
        pool_of(dataset, **more)
    text = str(caught.value)
    assert '\n' not in text
    for message in messages:
        assert message in text, text


# What ``make_coco`` shows: a car in each of three images, and a bus in the last.
OBJECTS = {'car': 3, 'bus': 1}


class TestNames:
    @pytest.mark.parametrize(
        'classes, names, note',
        [
            (('car', 'bus'), ('car', 'bus'), ''),
            (('bus', 'car'), ('car', 'bus'), "label 0 means 'car' in"),
            (
                ('bike', 'car', 'bus'),
                ('car', 'bus', 'bike'),
                "write metainfo=dict(classes=('car', 'bus', 'bike'))",
            ),
            (('car', 'bus', 'bike'), ('car', 'bus', 'bike'), ''),
            (('car', 'bike', 'bus'), ('car', 'bus', 'bike'), "label 1 means 'bus'"),
        ],
    )
    def test_belong_to_the_labels_whatever_the_order_of_the_classes(
        self, tmp_path, classes, names, note
    ):
        pool, [source] = pool_of(make_coco(tmp_path) | dict(metainfo=dict(classes=classes)))
        assert pool.classes == names and counts(pool) == OBJECTS
        assert source.relabel is None
        assert len(pool.notes) == bool(note) and note in ''.join(pool.notes)

    def test_of_a_subset_in_the_order_of_the_file_raise_no_word(self, tmp_path):
        dataset = make_coco(tmp_path, classes=('car', 'bus', 'tram'))
        pool, _ = pool_of(dataset | dict(metainfo=dict(classes=('bus', 'tram'))))
        assert pool.classes == ('bus', 'tram') and counts(pool) == {'bus': 1} and not pool.notes

    def test_follow_the_order_that_a_dataset_class_gives_the_categories(self, tmp_path):
        dataset = make_coco(tmp_path) | dict(type='Objects365V1Dataset')
        edit(tmp_path / 'train.json', lambda content: content['categories'].reverse())
        pool, _ = pool_of(dataset)
        assert pool.classes == ('car', 'bus') and counts(pool) == OBJECTS and not pool.notes

    def test_are_texts_also_where_they_are_numbers(self, tmp_path):
        dataset = make_coco(tmp_path, classes=(7, 8))
        pool, _ = pool_of(dataset)
        assert pool.classes == ('7', '8') and counts(pool) == {'7': 3, '8': 1}

    @pytest.mark.parametrize('name', [None, ['car'], {}, True])
    def test_that_are_no_texts_are_named(self, tmp_path, name):
        dataset = make_coco(tmp_path)
        edit(tmp_path / 'train.json', lambda content: content['categories'][1].update(name=name))
        refuse(dataset, f'the name of category 10 is {name!r}, which is no text')

    def test_of_two_categories_with_one_id_are_refused(self, tmp_path):
        dataset = make_coco(tmp_path)
        edit(tmp_path / 'train.json', lambda content: content['categories'][1].update(id=0))
        refuse(dataset, "the categories 'car' and 'bus' have the same id 0")

    def test_of_files_in_other_orders_are_counted_together(self, tmp_path):
        first, second = make_coco(tmp_path / 'a'), make_coco(tmp_path / 'b', classes=('bus', 'car'))
        second['metainfo'] = first['metainfo']
        pool, sources = pool_of(concat(first, second))
        # The second file's first category, which three of its objects have, is the bus.
        assert counts(pool) == {'car': 4, 'bus': 4}
        assert [source.relabel for source in sources] == [None, (1, 0)]
        [note] = pool.notes
        assert "label 0 means 'car' in train_dataloader.dataset.datasets.0, but 'bus' in" in note
        assert 'takes them for one class' in note

    def test_proxies_learn_the_same_label_for_the_same_name(self, tmp_path):
        first, second = make_coco(tmp_path / 'a'), make_coco(tmp_path / 'b', classes=('bus', 'car'))
        config = config_of(concat(first, second))
        pool, sources = read_pool(config)
        everything = np.ones(len(pool), bool)
        for source_config in (
            config,
            subset_config(config, sources, everything, tmp_path / 'ids'),
        ):
            inner = [inner_dataset(source_config, source) for source in sources]
            dataset = build(config_of(concat(*inner) | dict(ignore_keys=['classes'])))
            found = [
                instance['bbox_label']
                for i in range(len(dataset))
                for instance in dataset.get_data_info(i)['instances']
            ]
            assert found == pool.labels.tolist() == [0, 0, 0, 1, 1, 1, 1, 0]

    def test_of_a_data_list_are_those_of_its_file(self, tmp_path):
        dataset = make_data_list(tmp_path)
        edit(
            tmp_path / 'list.json',
            lambda content: content['metainfo'].update(classes=['car', 'bus']),
        )
        pool, _ = pool_of(dataset | dict(metainfo=dict(classes=('bus', 'car'))))
        assert counts(pool) == {'car': 4} and "label 0 means 'car'" in pool.notes[0]
        pool, _ = pool_of(dataset | dict(metainfo=dict(classes=('vehicle', 'coach'))))
        assert counts(pool) == {'vehicle': 4} and not pool.notes, 'classes that are only renamed'

    def test_of_infos_are_those_of_their_categories(self, tmp_path):
        test_infos = pytest.importorskip('test_infos')

        def rename(content):
            content['metainfo']['categories'] = {'truck': 0, 'car': 1}

        pool, _ = read_pool(test_infos.make_nuscenes(tmp_path / 'a', rename))
        assert {'truck', 'pedestrian'} == set(
            counts(pool)
        ) and "label 0 means 'truck'" in pool.notes[0]
        pool, _ = read_pool(test_infos.make_nuscenes(tmp_path / 'b'))
        assert {'car', 'pedestrian'} == set(counts(pool)) and not pool.notes

    def test_of_folders_are_the_folders(self, tmp_path):
        pytest.importorskip('mmpretrain')
        for name in ('cat/1.jpg', 'cat/2.jpg', 'dog/1.jpg'):
            make_image(tmp_path / name)
        dataset = dict(
            type='CustomDataset', data_root=str(tmp_path), metainfo=dict(classes=('dog', 'cat'))
        )
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            pool, _ = read_pool(_classification(dataset))
            assert (
                counts(pool) == {'cat': 2, 'dog': 1}
                and "label 0 means 'cat' in its folders" in pool.notes[0]
            )
            pool, _ = read_pool(
                _classification(dataset | dict(metainfo=dict(classes=('kitten', 'puppy'))))
            )
            assert counts(pool) == {'kitten': 2, 'puppy': 1} and not pool.notes

    def test_that_a_list_of_classes_has_twice_are_two_classes(self, tmp_path):
        dataset = make_voc(tmp_path / 'voc') | dict(
            type='XMLDataset', metainfo=dict(classes=('x', 'x', 'dog'))
        )
        dataset['data_prefix'] = dict(sub_data_root='', img='')
        pool, _ = pool_of(dataset)
        assert pool.classes == ('x', 'x (label 1)', 'dog') and counts(pool) == {'dog': 3}

    @pytest.mark.parametrize('mode', ['run', 'finished'])
    def test_in_the_wrong_order_are_a_warning_and_a_note(self, tmp_path, capsys, mode):
        config = config_of(
            make_coco(tmp_path / 'data') | dict(metainfo=dict(classes=('bus', 'car'))),
            adadedup=dict(strategy='random', keep_ratio=0.67),
        )
        prune(config, resolve_options(config), tmp_path / 'out')
        if mode == 'finished':
            capsys.readouterr()
            prune(config, resolve_options(config), tmp_path / 'out')
        [line] = [
            line for line in capsys.readouterr().err.splitlines() if line.startswith('warning: ')
        ]
        assert 'the training will call car bus, and 1 more classes likewise' in line
        notes = json.loads((tmp_path / 'out/manifest.json').read_text())['notes']
        assert notes[0] == line.removeprefix('warning: ') + '.'
        assert pq.read_table(tmp_path / 'out/classes.parquet')['class'].to_pylist() == [
            'car',
            'bus',
        ]


def _classification(dataset):
    config = config_of(dataset)
    config.default_scope = 'mmpretrain'
    return config


class TestTwins:
    """Two categories of one name, for each of which mmdet makes a label."""

    def make(self, root, names, used):
        dataset = make_coco(root, annotated=())
        edit(
            root / 'train.json',
            lambda content: content.update(
                categories=[dict(id=i, name=name) for i, name in enumerate(names)],
                annotations=[annotation(i, 1, category) for i, category in enumerate(used)],
            ),
        )
        return dataset

    @pytest.mark.parametrize(
        'names, used, classes, spare',
        [
            (('car', 'car'), (1,), ('car',), 0),
            (('car', 'car'), (0, 1), ('car',), 0),
            (('car', 'car'), (0, 1), ('car', 'car'), 0),
            (('car', 'car', 'bus'), (0, 2), ('car', 'bus'), 1),
            (('car', 'car', 'bus'), (0, 2), ('car', 'bus', 'bike'), 1),
        ],
    )
    def test_are_named_with_their_ids(self, tmp_path, names, used, classes, spare):
        dataset = self.make(tmp_path, names, used) | dict(metainfo=dict(classes=classes))
        refuse(
            dataset,
            '2 categories of',
            "called 'car' (ids 0, 1)",
            f'rename or remove category {spare}',
        )

    @pytest.mark.parametrize(
        'names, used, classes',
        [
            (('car', 'car'), (0, 0), ('car',)),
            (('bus', 'car', 'car'), (0, 1), ('bus', 'car')),
            (('bus', 'car', 'car'), (0,), ('bus', 'car')),
        ],
    )
    def test_do_no_harm_where_no_label_is_shifted(self, tmp_path, names, used, classes):
        dataset = self.make(tmp_path, names, used) | dict(metainfo=dict(classes=classes))
        pool, [source] = pool_of(dataset)
        assert pool.classes == classes and source.relabel is None and not pool.notes

    def test_are_not_blamed_for_the_order_of_the_classes(self, tmp_path):
        dataset = self.make(tmp_path, ('bus', 'car', 'car'), (0, 1)) | dict(
            metainfo=dict(classes=('car', 'bus'))
        )
        pool, _ = pool_of(dataset)
        assert counts(pool) == {'bus': 1, 'car': 1} and "label 0 means 'bus'" in pool.notes[0]


def make_odvg(root, grounding=True, label_map=None, lines=3, count=4):
    """A file for ODVGDataset: several captions an image, or detections; its dataset dict."""
    for i in range(count):
        make_image(root / 'images' / f'{i}.png')
    box = [1, 1, 9, 9]
    records = []
    for i in range(count):
        size = dict(filename=f'{i}.png', height=10, width=20)
        regions = [
            dict(bbox=box, phrase='a car', tokens_positive=[[0, 5]]),
            dict(bbox=[2, 2, 8, 8], phrase='a tree', tokens_positive=[[6, 9]]),
        ]
        if grounding:
            records += [
                size | dict(grounding=dict(caption=f'text {line}', regions=regions))
                for line in range(lines)
            ]
        else:
            records.append(
                size | dict(detection=dict(instances=[dict(bbox=box, label=i % 2, category='?')]))
            )
    (root / 'odvg.json').write_text(''.join(json.dumps(record) + '\n' for record in records))
    dataset = dict(
        type='ODVGDataset',
        data_root=f'{root}/',
        ann_file='odvg.json',
        data_prefix=dict(img='images/'),
        return_classes=True,
        pipeline=LABELLED,
    )
    if label_map is not None:
        (root / 'map.json').write_text(json.dumps(label_map))
        dataset['label_map_file'] = 'map.json'
    return dataset


class TestOdvg:
    def test_labels_are_called_as_the_label_map_says(self, tmp_path):
        pool, _ = pool_of(make_odvg(tmp_path, False, {'1': 'bus', '0': 'car'}))
        assert pool.classes == ('car', 'bus') and counts(pool) == {'car': 2, 'bus': 2}

    def test_a_label_that_the_map_lacks_is_named(self, tmp_path):
        refuse(make_odvg(tmp_path, False, {'0': 'car'}), 'an object has label 1', 'label_map_file')

    def test_regions_of_captions_are_no_classes(self, tmp_path):
        pool, [source] = pool_of(make_odvg(tmp_path))
        assert pool.classes == ('object',) and source.relabel == (0, 0)

    def test_an_image_with_its_captions_is_one_sample(self, tmp_path):
        pool, [file], pruned = prune_to(config_of(make_odvg(tmp_path / 'data')), [0, 2], tmp_path)
        assert pool.sample_ids == tuple(f'images/{i}.png' for i in range(4))
        assert np.diff(pool.offsets).tolist() == [2] * 4, (
            'an object counts once, however many captions name it'
        )
        assert (file['records'], file['kept']) == (4, 2)
        kept = build(pruned)
        assert len(kept) == 6
        assert [kept.get_data_info(i)['text'] for i in range(3)] == ['text 0', 'text 1', 'text 2']


class TestUnlabelled:
    @pytest.fixture
    def halves(self, tmp_path):
        """A labelled and an unlabelled dataset, whose pictures are all distinct."""
        both = (
            make_coco(tmp_path / 'a', ids=range(10)) | dict(pipeline=LABELLED),
            make_coco(tmp_path / 'b', ids=range(10))
            | dict(pipeline=UNLABELLED['empty annotations']),
        )
        generator = np.random.default_rng(0)
        for file in sorted(tmp_path.glob('*/images/*.png')):
            Image.fromarray(generator.integers(0, 255, (10, 20, 3), np.uint8)).save(file)
        return both

    @pytest.mark.parametrize('pipeline', UNLABELLED.values(), ids=UNLABELLED)
    def test_parts_have_no_objects_even_if_their_file_has(self, halves, pipeline):
        pool, _ = pool_of(concat(halves[0], halves[1] | dict(pipeline=pipeline)))
        assert pool.labelled.tolist() == [True] * 10 + [False] * 10
        assert counts(pool) == {'car': 10, 'bus': 1}
        assert any('10 of 20 samples have no labels' in note for note in pool.notes)

    def test_parts_may_have_other_categories(self, halves, tmp_path):
        edit(
            tmp_path / 'b' / 'train.json',
            lambda content: [one.update(name='?') for one in content['categories']],
        )
        assert pool_of(concat(*halves))[0].classes == ('car', 'bus')

    def test_parts_need_neither_annotations_nor_categories(self, halves, tmp_path):
        edit(
            tmp_path / 'b' / 'train.json',
            lambda content: content.update(annotations=[], categories=[]),
        )
        assert pool_of(concat(*halves))[0].labelled.sum() == 10
        assert not pool_of(halves[1])[0].labelled.any(), 'unlabelled training sets are no mistake'

    def test_proxies_do_not_see_an_image_where_its_labels_are_not_known(self, halves, tmp_path):
        again = halves[0] | dict(pipeline=UNLABELLED['empty annotations'])
        config = config_of(
            concat(*halves, again), adadedup=dict(embedder=dict(type='PixelEmbedder'))
        )
        pool, sources = read_pool(config)
        store = StageStore(tmp_path / 'stages', 0, 1)
        run = Run(config, resolve_options(config), store, pool, sources)
        assert pool.labelled.tolist() == [True] * 10 + [False] * 10
        assert run.proxy_stages.item_samples.tolist() == list(range(10))
        assert run.proxy_stages.scoring_data(pool.labelled, tmp_path)['type'] == 'CocoDataset'

    def test_labels_of_another_pipeline_stay_labels(self, halves):
        own = [dict(type='LoadImageFromFile'), dict(type='MyTargets'), dict(type='PackDetInputs')]
        assert pool_of(halves[0] | dict(pipeline=own))[0].labelled.all()

    def test_the_key_of_a_pool_changes_only_if_labels_are_unknown(self, halves):
        labelled = pool_key(pool_of(halves[0])[0])
        assert pool_key(pool_of(halves[0] | dict(pipeline=[]))[0]) == labelled
        assert (
            pool_key(pool_of(halves[0] | dict(pipeline=UNLABELLED['branches alone']))[0])
            != labelled
        )

    @pytest.fixture
    def run(self, halves, tmp_path):
        config = config_of(
            concat(*halves), adadedup=dict(embedder=dict(type='PixelEmbedder'), keep_ratio=0.5)
        )
        pool, sources = read_pool(config)
        return Run(
            config, resolve_options(config), StageStore(tmp_path / 'stages', 0, 1), pool, sources
        )

    def test_layouts_are_left_aside(self, run):
        assert run.options.feedback.layout == 0.3 and needs_of(run, 0.5).layout == 0

    def test_proxies_learn_from_the_labelled_alone(self, run, tmp_path):
        data = run.proxy_stages.training_data(run.pool.labelled, tmp_path / 'proxy')
        assert data['type'] == 'PrunedDataset' and '/a/' in data['dataset']['data_root']

    @pytest.mark.parametrize(
        'strategy', ['el2n', 'grand', 'forgetting', 'loss_topk', 'tfdp', 'vlm_sse']
    )
    def test_strategies_that_score_labels_say_so(self, halves, tmp_path, strategy):
        config = config_of(
            concat(*halves),
            adadedup=dict(embedder=dict(type='PixelEmbedder'), keep_ratio=0.5, strategy=strategy),
        )
        with pytest.raises(UserError, match='labels'):
            prune(config, resolve_options(config), tmp_path / 'out')

    def test_the_class_floor_touches_the_labelled_alone(self, halves, tmp_path):
        kept = {}
        for floor in (0, 1):
            config = config_of(
                concat(*halves),
                adadedup=dict(
                    embedder=dict(type='PixelEmbedder'),
                    keep_ratio=0.5,
                    feedback=dict(beta=0),
                    guards=dict(min_class_ratio=floor),
                ),
            )
            prune(config, resolve_options(config), tmp_path / str(floor))
            kept[floor] = pq.read_table(tmp_path / str(floor) / 'samples.parquet')[
                'kept'
            ].to_numpy()
        assert (
            kept[0][10:].tolist() == kept[1][10:].tolist() and kept[0].sum() == kept[1].sum() == 10
        )

    def test_captions_are_no_labels(self, tmp_path):
        for i in range(3):
            make_image(tmp_path / 'images' / f'x_{i}.jpg')
        records = [dict(image=f'x_{i}.jpg', caption=f'{i} {k}') for i in range(3) for k in range(5)]
        (tmp_path / 'captions.json').write_text(json.dumps(records))
        dataset = dict(
            type='CocoCaptionDataset',
            data_root=str(tmp_path),
            ann_file='captions.json',
            data_prefix=dict(img_path='images'),
            pipeline=[],
        )
        pool, [file], pruned = prune_to(config_of(dataset), [1], tmp_path)
        assert pool.sample_ids == ('0', '1', '2') and not pool.labelled.any()
        assert (file['records'], file['kept'], len(build(pruned))) == (3, 1, 5)
        options = dict(embedder=dict(type='PixelEmbedder'), keep_ratio=0.67)
        config = config_of(dataset, adadedup=options)
        prune(config, resolve_options(config), tmp_path / 'out')
        notes = json.loads((tmp_path / 'out/manifest.json').read_text())['notes']
        assert '3 of 3 samples have no labels' in notes[0]
        assert any('the density scores decide alone' in note for note in notes)


IMAGE = dict(id=1, file_name='1.png', width=20, height=10)
CATEGORY = dict(id=1, name='car')


class TestNothingCounts:
    @pytest.mark.parametrize(
        'changes, words',
        [
            (dict(iscrowd=1), ['all 3 annotations are crowds (iscrowd=1), which mmdet ignores']),
            (dict(ignore=1), ['all 3 annotations are marked with ignore']),
            (dict(area=0), ['an area of 0']),
            (dict(bbox=[1, 1, 0.5, 3]), ['less than a pixel']),
            (dict(bbox=[30, 1, 5, 3]), ['outside of the image']),
            (dict(bbox=None), ['bbox must be']),
            (
                dict(category_id='1'),
                ["category_id is for example '1', id of a category 1", 'same texts'],
            ),
            (dict(category_id=9), ['category_id is for example 9']),
            (dict(category_id=2), ['no classes of the dataset']),
        ],
    )
    def test_says_what_is_wrong_with_all_annotations(self, tmp_path, changes, words):
        content = dict(
            images=[IMAGE],
            categories=[CATEGORY, dict(id=2, name='bus')],
            annotations=[annotation(i, 1) | changes for i in range(3)],
        )
        (tmp_path / 'a.json').write_text(json.dumps(content))
        reason = explain_uncounted(tmp_path / 'a.json', [1])
        assert all(word in reason for word in words), reason

    def test_adds_up_several_reasons(self, tmp_path):
        kinds = [dict(iscrowd=1), dict(iscrowd=1), dict(area=0)]
        content = dict(
            images=[IMAGE],
            categories=[CATEGORY],
            annotations=[annotation(i, 1) | kind for i, kind in enumerate(kinds)],
        )
        (tmp_path / 'a.json').write_text(json.dumps(content))
        reason = explain_uncounted(tmp_path / 'a.json', [1])
        assert (
            reason.startswith('2 of 3 annotations are crowds')
            and '; 1 of 3 annotations have an area' in reason
        )
        content['annotations'].append(annotation(7, 1))
        (tmp_path / 'a.json').write_text(json.dumps(content))
        assert explain_uncounted(tmp_path / 'a.json', [1]) == ''

    @pytest.mark.parametrize('filters', [None, dict(filter_empty_gt=True, min_size=1)])
    @pytest.mark.parametrize(
        'change, words',
        [
            (
                lambda content: [one.update(iscrowd=1) for one in content['annotations']],
                'all 4 annotations are crowds',
            ),
            (
                lambda content: [
                    one.update(category_id=str(one['category_id']))
                    for one in content['annotations']
                ],
                "category_id is for example '0', id of a category 0",
            ),
            (lambda content: content.update(categories=[]), 'it has no categories'),
            (lambda content: content.update(annotations=[]), 'it has no annotations'),
            (lambda content: content.pop('annotations'), 'it has no annotations'),
        ],
    )
    def test_a_training_without_objects_is_refused_with_the_reason(
        self, tmp_path, change, words, filters
    ):
        dataset = make_coco(tmp_path) | dict(filter_cfg=filters)
        edit(tmp_path / 'train.json', change)
        refuse(dataset, words)

    def test_in_a_missing_list_of_categories(self, tmp_path):
        dataset = make_coco(tmp_path)
        edit(tmp_path / 'train.json', lambda content: content.pop('categories'))
        refuse(dataset, "no 'categories' list")

    def test_validation_sets_may_come_without_labels(self, tmp_path):
        dataset = make_coco(tmp_path, annotated=()) | dict(test_mode=True)
        assert len(pool_of(dataset)[0]) == 3

    def test_pictures_without_objects_beside_others_are_fine(self, tmp_path):
        pool, _ = pool_of(
            concat(make_coco(tmp_path / 'a'), make_coco(tmp_path / 'b', annotated=()))
        )
        assert len(pool) == 6 and pool.labelled.all() and not pool.notes

    def test_in_one_of_several_files_is_a_note(self, tmp_path):
        second = make_coco(tmp_path / 'b')
        edit(
            tmp_path / 'b/train.json',
            lambda content: [one.update(iscrowd=1) for one in content['annotations']],
        )
        pool, _ = pool_of(concat(make_coco(tmp_path / 'a'), second))
        [note] = pool.notes
        assert 'datasets.1: all 4 annotations are crowds' in note

    @pytest.mark.parametrize(
        'old, new, words',
        [
            ('<name>dog</name>', '<name>Dog</name>', 'its objects are called Dog, Cat'),
            (
                '<name>cat</name><difficult>1',
                '<name>dog</name><difficult>1',
                'all 6 objects are marked to be ignored',
            ),
        ],
    )
    def test_in_xml_files(self, tmp_path, old, new, words):
        dataset = make_voc(tmp_path / 'voc')
        for file in (tmp_path / 'voc/Annotations').iterdir():
            text = (
                file.read_text().replace(old, new).replace('<name>cat</name>', '<name>Cat</name>')
            )
            text = text.replace('<difficult>0', '<difficult>1') if 'Dog' not in new else text
            file.write_text(text)
        refuse(dataset, words)


@pytest.mark.parametrize(
    'content, words',
    [
        ({'_via_img_metadata': {}, '_via_settings': {}}, 'VGG Image Annotator'),
        ({'a.jpg1': dict(filename='a.jpg', regions=[], size=1)}, 'VGG Image Annotator'),
        (dict(version='5', shapes=[], imagePath='a.jpg', imageData=None), 'labelme'),
        (dict(description='', tags=[], size={}, objects=[]), 'Supervisely'),
        (dict(classes=['car'], labels={}), 'FiftyOne'),
        (dict(samples=[]), 'FiftyOne'),
        (dict(metainfo={}, data_list=[]), 'BaseDetDataset'),
        (dict(info={}, categories={}, items=[]), 'Datumaro'),
        ([dict(image='a.jpg', annotations=[])], 'CreateML'),
        ([dict(id=1, data={}, annotations=[])], 'Label Studio'),
        ([dict(image_id=1, category_id=1, bbox=[], score=1.0)], 'a list of detections'),
        ([], ''),
        ({}, ''),
        (3, ''),
    ],
)
def test_files_of_other_tools_are_no_coco_json(tmp_path, content, words):
    (tmp_path / 'a.json').write_text(json.dumps(content))
    with pytest.raises(UserError, match='it is no COCO json') as caught:
        index_coco(tmp_path / 'a.json')
    assert words in str(caught.value) and ('looks like' in str(caught.value)) == bool(words)
    assert words in guess_format(content)


@pytest.mark.parametrize(
    'content, words',
    [
        (b'<?xml version="1.0"?><annotations/>', 'is XML'),
        (b'\xef\xbb\xbf<a/>', 'is XML'),
        (b'PK\x03\x04rest', 'archive'),
        (b'{"filename": "a"}\n{"filename": "b"}\n', 'a JSON object on each line'),
        (b'{"images": [', 'is not valid JSON'),
    ],
)
def test_files_that_are_no_json_say_what_they_are(tmp_path, content, words):
    (tmp_path / 'a.json').write_bytes(content)
    with pytest.raises(UserError, match=words):
        index_coco(tmp_path / 'a.json')


class TestLines:
    """An image with all its lines is one sample."""

    def repeat(self, tmp_path, make, indices):
        """The pool of a dataset with repeated ``indices``, and the samples of a training on its
        first sample."""
        dataset = make(tmp_path / 'data') | dict(indices=indices)
        pool, _, pruned = prune_to(config_of(dataset), [0], tmp_path)
        return pool, [
            info['img_path'] for info in map(build(pruned).get_data_info, range(len(build(pruned))))
        ]

    @pytest.mark.parametrize('make', [make_coco, make_voc, make_data_list])
    @pytest.mark.parametrize(
        'indices, count, copies', [([2, 0, 2], 2, 2), ([1, -1, 1, 1], 2, 3), ([0], 1, 1)]
    )
    def test_repeated_indices_are_one_sample_and_stay_repeated(
        self, tmp_path, make, indices, count, copies
    ):
        pool, paths = self.repeat(tmp_path, make, indices)
        assert len(pool) == count
        assert paths == [pool.image_paths[0][0]] * copies

    @pytest.mark.parametrize(
        'indices, words',
        [
            ([0, 3], 'indices name samples beyond the 3 of'),
            ([], 'its indices choose no sample'),
            (0, 'its indices choose no sample'),
        ],
    )
    def test_impossible_indices_are_named(self, tmp_path, indices, words):
        refuse(make_coco(tmp_path) | dict(indices=indices), words)

    def test_a_number_as_indices_takes_the_last(self, tmp_path):
        pool, _ = pool_of(make_coco(tmp_path) | dict(indices=-2))
        assert pool.sample_ids == ('1', '2')

    def test_a_frame_that_indices_repeat_is_one_sample(self, tmp_path):
        test_infos = pytest.importorskip('test_infos')
        config = test_infos.make_nuscenes(tmp_path / 'a', indices=[3, 1, 3, 3])
        pool, [source] = read_pool(config)
        assert pool.sample_ids == ('t3', 't1') and source.kind == 'ids'
        assert source.item_samples.tolist() == [0, 1, 0, 0]

    def test_frames_of_one_file_twice_stay_apart_and_a_note_says_so(self, tmp_path):
        test_infos = pytest.importorskip('test_infos')
        config = test_infos.make_nuscenes(tmp_path / 'a')
        dataset = config.train_dataloader.dataset
        config.train_dataloader = dict(dataset=concat(dataset, dataset))
        pool, _ = read_pool(config)
        assert len(pool) == 12 and '6 frames are in several datasets, first t0' in pool.notes[0]

    def test_one_file_twice_is_one_set_of_samples(self, tmp_path):
        dataset = make_coco(tmp_path / 'data')
        pool, files, pruned = prune_to(config_of(concat(dataset, dataset)), [1], tmp_path)
        assert pool.sample_ids == ('0:3', '0:1', '0:2') and counts(pool) == {'car': 3, 'bus': 1}
        assert [file['kept'] for file in files] == [1, 1]
        assert len(build(pruned)) == 2

    def test_objects_of_two_files_about_one_image_are_those_of_one_sample(self, tmp_path):
        first, second = (
            make_coco(tmp_path, name='cars.json'),
            make_coco(tmp_path, name='buses.json'),
        )
        edit(tmp_path / 'cars.json', lambda content: content.update(annotations=[annotation(1, 3)]))
        edit(
            tmp_path / 'buses.json',
            lambda content: content.update(
                annotations=[annotation(1, 3), annotation(2, 3, 10, (5, 5, 4, 4))]
            ),
        )
        for content in ('cars.json', 'buses.json'):
            edit(tmp_path / content, lambda content: content['categories'][0].update(id=1))
        pool, _ = pool_of(concat(first, second))
        assert len(pool) == 3 and np.diff(pool.offsets).tolist() == [2, 0, 0]
        assert counts(pool) == {'car': 1, 'bus': 1}

    def test_an_unlabelled_part_does_not_unlabel_an_image(self, tmp_path):
        dataset = make_coco(tmp_path)
        again = dataset | dict(pipeline=UNLABELLED['empty annotations'])
        assert pool_of(concat(again, dataset))[0].labelled.tolist() == [True] * 3

    def test_an_image_with_two_ids_keeps_both(self, tmp_path):
        dataset = make_coco(tmp_path / 'data')
        edit(
            tmp_path / 'data/train.json',
            lambda content: content['images'].append(content['images'][0] | dict(id=50)),
        )
        edit(
            tmp_path / 'data/train.json',
            lambda content: content['annotations'].append(annotation(70, 50, 10)),
        )
        pool, [file], _ = prune_to(config_of(dataset), [0], tmp_path)
        assert pool.sample_ids == ('3', '1', '2') and counts(pool) == {'car': 3, 'bus': 2}
        written = json.loads((tmp_path / 'work/annotations/train.json').read_text())
        assert [image['id'] for image in written['images']] == [3, 50] and file['kept'] == 2

    def test_a_line_twice_in_an_image_set_stays_twice(self, tmp_path):
        dataset = make_voc(tmp_path / 'data', names=('a', 'b', 'a'))
        pool, [file], _ = prune_to(config_of(dataset), [0], tmp_path)
        assert pool.sample_ids == ('a', 'b') and (file['records'], file['kept']) == (3, 2)
        assert (tmp_path / 'work/annotations/trainval.txt').read_text() == 'a\na\n'

    def test_records_of_a_data_list_about_one_image_stay_together(self, tmp_path):
        dataset = make_data_list(tmp_path / 'data')
        edit(
            tmp_path / 'data/list.json',
            lambda content: content['data_list'].insert(
                2, content['data_list'][0] | dict(note='again')
            ),
        )
        pool, [file], pruned = prune_to(config_of(dataset), [0], tmp_path)
        assert (
            len(pool) == 4 and (file['records'], file['kept']) == (5, 2) and len(build(pruned)) == 2
        )

    def test_two_images_with_one_id_are_called_by_their_paths(self, tmp_path):
        dataset = make_data_list(tmp_path / 'data')
        edit(
            tmp_path / 'data/list.json',
            lambda content: [
                one.update(img_id=1 if i < 2 else i) for i, one in enumerate(content['data_list'])
            ],
        )
        config = config_of(dataset)
        pool, sources = read_pool(config)
        assert pool.sample_ids == ('images/0.png', 'images/1.png', '2', '3')
        subset = subset_config(config, sources, np.arange(4) == 1, tmp_path / 'ids')
        assert [info['img_path'][-5:] for info in map(build(subset).get_data_info, range(1))] == [
            '1.png'
        ]

    @pytest.mark.parametrize(
        'token, folders, frames',
        [
            (lambda i: 'task', ('a',), False),
            (lambda i: f't{i // 2}', ('a',), False),
            (lambda i: 'task', ('a', 'b'), False),
            (lambda i: f't{i // 2}', ('a', 'b'), True),
            (lambda i: f't{i}', ('a', 'b'), False),
        ],
    )
    def test_images_of_a_token_are_a_frame_only_in_folders_of_their_own(
        self, tmp_path, token, folders, frames
    ):
        dataset = make_coco(tmp_path / 'data', ids=range(6)) | dict(data_prefix=dict(img=''))

        def move(content):
            for i, image in enumerate(content['images']):
                image.update(token=token(i), file_name=f'{folders[i % len(folders)]}/{i}.png')
                make_image(tmp_path / 'data' / image['file_name'])

        edit(tmp_path / 'data/train.json', move)
        config = config_of(dataset)
        pool, sources = read_pool(config)
        assert len(pool) == (3 if frames else 6) and len(pool.views) == (2 if frames else 1)
        write_pruned(sources, np.arange(len(pool)) % 2 == 0, tmp_path / 'out')
        again, _ = read_pool(pruned_config(config, sources, tmp_path / 'out'))
        assert again.sample_ids == pool.sample_ids[::2]

    def test_samples_are_seen_once_a_line(self, tmp_path):
        config = config_of(make_odvg(tmp_path), adadedup=dict(embedder=dict(type='PixelEmbedder')))
        pool, sources = read_pool(config)
        run = Run(
            config, resolve_options(config), StageStore(tmp_path / 'stages', 0, 1), pool, sources
        )
        assert run.proxy_stages.line_counts.tolist() == [3] * 4
        assert run.proxy_stages.item_samples.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]

    def test_losses_of_a_sample_are_the_mean_of_its_lines(self):
        values = np.array([1, 4, 3, 8], np.float32)
        np.testing.assert_array_equal(
            mean_by_sample(values, np.array([2, 0, 2, 2]), 4), [4, np.nan, 4, np.nan]
        )

    @pytest.mark.parametrize('line', ['000005 1', '000005 ', '\ufeff000005', '000005\t'])
    def test_what_a_line_has_beside_the_id_is_named(self, tmp_path, line):
        dataset = make_voc(tmp_path / 'voc')
        (tmp_path / 'voc/ImageSets/Main/trainval.txt').write_text(
            f'{line}\n000007\n', encoding='utf-8'
        )
        refuse(dataset, 'a whole line of trainval.txt', 'leave nothing else on it')

    def test_pruned_datasets_keep_all_lines_of_an_id(self, tmp_path):
        config = config_of(make_odvg(tmp_path))
        with DefaultScope.overwrite_default_scope('mmdet'):
            kept = PrunedDataset(
                config.train_dataloader.dataset.to_dict(), sample_ids=['images/2.png']
            )
        assert kept.indices.tolist() == [6, 7, 8]
