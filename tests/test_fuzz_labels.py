"""Categories in every order, with any ids, names and choice of classes: what is counted is what the
files mean.

``FUZZ=50`` tries fifty times as many (``make fuzz``).
"""

import itertools
import json
import shutil
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pruning_runs import read_without_images
from test_datasets import annotation, build, config_of, make_image
from test_fuzz import tries

from adadedup_mm.annotations.image_set import rewrite_image_set
from adadedup_mm.base.errors import UserError
from adadedup_mm.datasets import pruned_config, read_pool, subset_config, write_pruned
from adadedup_mm.datasets.lines import group_lines, merge_objects
from adadedup_mm.datasets.sources import inner_dataset

NAMES = st.lists(
    st.sampled_from(['car', 'Car', 'bus', 'person', 'traffic light', '7', 'ü', ' ']),
    min_size=1,
    max_size=5,
    unique=True,
)
IMAGES = 4


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp('labels')
    for i in range(IMAGES):
        make_image(folder / 'images' / f'{i}.png')
    return folder


@st.composite
def coco_files(draw):
    """Names, ids and order of categories, the category of every object, and the classes that a
    config names."""
    names = draw(NAMES)
    ids = draw(st.lists(st.integers(0, 99), min_size=len(names), max_size=len(names), unique=True))
    owners = draw(
        st.lists(
            st.tuples(st.integers(0, IMAGES - 1), st.sampled_from(ids)), min_size=1, max_size=12
        )
    )
    classes = draw(st.permutations(draw(st.lists(st.sampled_from(names), min_size=1, unique=True))))
    foreign = draw(st.lists(st.sampled_from(['tram', 'bike']), max_size=2, unique=True))
    position = draw(st.integers(0, len(classes)))
    return (
        dict(zip(ids, names, strict=True)),
        owners,
        [*classes[:position], *foreign, *classes[position:]],
    )


def write_coco(root, name, categories, owners, classes, kind='CocoDataset'):
    images = [dict(id=i, file_name=f'{i}.png', height=10, width=20) for i in range(IMAGES)]
    annotations = [
        annotation(number, image, category, (number % 9, number % 5, 2, 2))
        for number, (image, category) in enumerate(owners)
    ]
    content = dict(
        images=images,
        annotations=annotations,
        categories=[dict(id=number, name=name) for number, name in categories.items()],
    )
    (root / name).write_text(json.dumps(content))
    return dict(
        type=kind,
        data_root=f'{root}/',
        ann_file=name,
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=tuple(classes)),
        pipeline=[],
    )


def meant(categories, owners, classes):
    """How many objects of each class there are, by what the file calls them."""
    return Counter(
        categories[category] for _, category in owners if categories[category] in classes
    )


def counted(pool):
    return Counter(pool.classes[label] for label in pool.labels)


@tries(25)
@given(coco_files(), st.sampled_from(['CocoDataset', 'Objects365V1Dataset', 'CityscapesDataset']))
def test_names_of_coco_files(root, file, kind):
    categories, owners, classes = file
    expected = meant(categories, owners, classes)
    config = config_of(write_coco(root, 'a.json', categories, owners, classes, kind))
    if not expected:
        with pytest.raises(UserError, match='nothing to train on'):
            read_pool(config)
        return
    pool, [source] = read_pool(config)
    assert counted(pool) == expected and set(pool.classes) >= set(expected)
    in_order = sorted(categories) if kind == 'Objects365V1Dataset' else list(categories)
    own = [categories[number] for number in in_order if categories[number] in classes]
    used = [label for label, name in enumerate(own) if expected[name]]
    assert bool(pool.notes) == any(classes[label] != own[label] for label in used)
    assert source.relabel is None


@tries(15)
@given(coco_files(), coco_files())
def test_names_of_several_files_and_the_labels_of_their_proxy(root, first, second):
    expected = meant(*first) + meant(*second)
    parts = [
        write_coco(root, f'{name}.json', *file)
        for name, file in zip('ab', (first, second), strict=True)
    ]
    parts[1]['data_prefix'] = dict(img='other/')
    config = config_of(dict(type='ConcatDataset', datasets=parts))
    if not expected:
        return
    pool, sources = read_without_images(config)
    assert counted(pool) == expected
    labels = []
    for source in sources:
        dataset = build(config_of(inner_dataset(config, source)))
        labels += [
            instance['bbox_label']
            for i in range(len(dataset))
            for instance in dataset.get_data_info(i)['instances']
        ]
    assert labels == pool.labels.tolist()


@tries(15)
@given(NAMES, st.data())
def test_names_of_data_lists_and_label_maps(root, names, data):
    labels = data.draw(st.lists(st.integers(0, len(names) - 1), min_size=1, max_size=9))
    classes = data.draw(st.permutations(names))
    instances = [
        dict(bbox=[0, 0, 5, 5], bbox_label=label, label=label, ignore_flag=0) for label in labels
    ]
    record = dict(
        img_path='0.png',
        filename='0.png',
        height=10,
        width=20,
        instances=instances,
        detection=dict(instances=instances),
    )
    (root / 'list.json').write_text(
        json.dumps(dict(metainfo=dict(classes=names), data_list=[record]))
    )
    (root / 'odvg.json').write_text(json.dumps(record))
    (root / 'map.json').write_text(
        json.dumps({str(label): name for label, name in enumerate(names)})
    )
    common = dict(data_root=f'{root}/', pipeline=[])
    pools = [
        read_pool(config_of(settings | common))[0]
        for settings in (
            dict(
                type='BaseDetDataset',
                ann_file='list.json',
                data_prefix=dict(img_path='images'),
                metainfo=dict(classes=classes),
            ),
            dict(
                type='ODVGDataset',
                ann_file='odvg.json',
                label_map_file='map.json',
                data_prefix=dict(img='images'),
                return_classes=True,
            ),
        )
    ]
    expected = Counter(names[label] for label in labels)
    assert [counted(pool) for pool in pools] == [expected, expected]
    assert bool(pools[0].notes) == any(names[label] != classes[label] for label in labels)


@tries(20)
@given(st.lists(st.integers(-IMAGES, IMAGES - 1), min_size=1, max_size=7), st.data())
def test_images_with_all_their_lines(root, indices, data):
    owners = [(i, 1) for i in range(IMAGES)]
    dataset = write_coco(root, 'c.json', {1: 'car'}, owners, ['car']) | dict(indices=indices)
    config = config_of(dataset)
    pool, sources = read_pool(config)
    images = [i % IMAGES for i in indices]
    assert pool.sample_ids == tuple(map(str, dict.fromkeys(images)))
    kept = np.array(data.draw(st.lists(st.booleans(), min_size=len(pool), max_size=len(pool))))
    kept[data.draw(st.integers(0, len(pool) - 1))] = True
    chosen = [name for name, stays in zip(pool.sample_ids, kept, strict=True) if stays]
    expected = [image for image in images if str(image) in chosen]
    work_dir = root / 'work'
    write_pruned(sources, kept, work_dir)
    for reduced in (
        pruned_config(config, sources, work_dir),
        subset_config(config, sources, kept, work_dir / 'ids'),
    ):
        written = build(reduced)
        found = [written.get_data_info(i)['img_id'] for i in range(len(written))]
        # A rewritten file keeps its own order; what repeats is left to the dataset.
        assert found == expected or (
            len(set(images)) == len(images) and sorted(found) == sorted(expected)
        )
    shutil.rmtree(work_dir)


@tries(200)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2)), max_size=3)
        ),
        min_size=1,
        max_size=8,
    )
)
def test_objects_of_lines_are_merged_once(lines):
    sample, first = group_lines([key for key, _ in lines])
    assert [lines[line][0] for line in first] == list(dict.fromkeys(key for key, _ in lines))
    objects = [one for _, found in lines for one in found]
    counts, labels, boxes = merge_objects(
        sample,
        np.array([len(found) for _, found in lines]),
        np.array([label for label, _ in objects], np.int32),
        np.array([(x, 0, 9, 9) for _, x in objects], np.float32).reshape(-1, 4),
    )
    expected = []
    for key in dict.fromkeys(key for key, _ in lines):
        seen = []
        for _, found in [line for line in lines if line[0] == key]:
            seen += [one for one in found if one not in seen] if seen else found
        expected.append(seen)
    assert counts.tolist() == [len(found) for found in expected]
    assert list(zip(labels.tolist(), boxes[:, 0].astype(int).tolist(), strict=True)) == list(
        itertools.chain(*expected)
    )


WORDS = st.sampled_from(['a', 'b', 'a (1)', 'a - Copy', 'a 1', 'ü', 'b\t-1', ' a'])


@tries(150)
@given(
    st.lists(WORDS, min_size=1, max_size=8),
    st.sampled_from(['\n', '\r\n']),
    st.booleans(),
    st.data(),
)
def test_lines_of_image_sets_that_are_whole_ids(root, words, end, closed, data):
    keep = set(data.draw(st.lists(st.sampled_from(words), min_size=1)))
    text = end.join(words) + end * closed
    (root / 'set.txt').write_bytes(text.encode())
    counts = rewrite_image_set(root / 'set.txt', root / 'kept.txt', keep)
    kept = (root / 'kept.txt').read_bytes().decode()
    assert [line for line in kept.replace('\r', '').split('\n') if line] == [
        word for word in words if word in keep
    ]
    assert counts == (len(words), sum(word in keep for word in words))
