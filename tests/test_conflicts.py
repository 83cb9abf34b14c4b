"""Contradicting labels of near-identical images: found, told, and not chosen between by chance."""

import json
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pruning_runs import run, samples

from adadedup_mm.conflicts import KINDS
from adadedup_mm.conflicts.choice import better_copies, linked
from adadedup_mm.conflicts.labels import Boxes, class_likeness, compare_labels, overlaps
from adadedup_mm.conflicts.neighbours import Neighbours, find_neighbours
from adadedup_mm.conflicts.pictures import read_small
from adadedup_mm.conflicts.pixels import COARSE, SIDE, cell_means, match_levels, same_place
from adadedup_mm.conflicts.stage import conflict_shards, near_pairs
from adadedup_mm.images import Reader
from adadedup_mm.selection.better_labels import keep_better_labels
from adadedup_mm.vectors.rows import snap

CATTLE = Path(__file__).parents[2] / 'shared' / 'data' / 'cattle_cctv'
MIDDLE = np.array([0.4, 0.4, 0.6, 0.6])


# Neighbours.


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@given(st.integers(1, 20), st.integers(0, 100), st.integers(1, 4))
def test_neighbours_of_a_few_samples_are_the_nearest_ones(samples, seed, count):
    features = unit(np.random.default_rng(seed).normal(size=(samples, 6)).astype(np.float32))
    found = find_neighbours(features, np.random.default_rng(0), count)
    cosines = snap(features @ features.T)
    np.fill_diagonal(cosines, -np.inf)
    best = np.argsort(-cosines, axis=1, kind='stable')[:, : min(count, samples - 1)]
    assert (found.nearest[:, : best.shape[1]] == best).all()
    assert (found.nearest[:, best.shape[1] :] == -1).all()


@given(st.integers(2, 300), st.integers(0, 5))
def test_samples_with_equal_features_meet(samples, seed):
    generator = np.random.default_rng(seed)
    features = unit(generator.normal(size=(samples, 4)).astype(np.float32))
    features[-1] = features[0]
    found = find_neighbours(features, generator, 1)
    assert found.nearest[0, 0] == samples - 1 and found.similarity[0, 0] == 1


def test_samples_without_a_direction_have_no_neighbours():
    features = np.zeros((5, 3), np.float32)
    features[:2, 0] = 1
    found = find_neighbours(features, np.random.default_rng(0), 2)
    assert found.nearest.tolist() == [[1, -1], [0, -1], [-1, -1], [-1, -1], [-1, -1]]


def test_neighbours_do_not_depend_on_the_number_of_threads():
    features = unit(np.random.default_rng(0).normal(size=(500, 8)).astype(np.float32))
    one, four = (find_neighbours(features, np.random.default_rng(0), 5, n) for n in (1, 4))
    assert (one.nearest == four.nearest).all() and (one.similarity == four.similarity).all()


# Labels.


def boxes_of(*pictures):
    """Boxes of pictures that are given as lists of (label, x1, y1, x2, y2)."""
    rows = [box for picture in pictures for box in picture]
    offsets = np.cumsum([0, *map(len, pictures)])
    labels = np.array([box[0] for box in rows], np.int32)
    return Boxes(offsets, labels, np.array([box[1:] for box in rows], np.float32).reshape(-1, 4))


def kinds_of(first, second):
    found = compare_labels(boxes_of(first, second), 0, 1)
    return [(KINDS[item.kind], item.box_a, item.box_b) for item in found]


BOX = (0.2, 0.2, 0.4, 0.5)


def test_contradictions_are_about_a_class_a_missing_box_or_a_place():
    assert kinds_of([(0, *BOX)], [(1, *BOX)]) == [('class', 0, 0)]
    assert kinds_of([(0, *BOX)], []) == [('missing', 0, -1)]
    assert kinds_of([], [(0, *BOX)]) == [('missing', -1, 0)]
    assert kinds_of([(0, *BOX)], [(0, 0.3, 0.2, 0.5, 0.5)]) == [('place', 0, 0)]
    assert kinds_of([(0, *BOX)], [(0, 0.7, 0.7, 0.9, 0.9)]) == [
        ('missing', 0, -1),
        ('missing', -1, 0),
    ]


def test_a_second_box_around_an_object_is_missing_in_the_other_picture():
    assert kinds_of([(0, *BOX), (1, *BOX)], [(0, *BOX)]) == [('missing', 1, -1)]


def test_boxes_drawn_by_hand_agree():
    assert kinds_of([(0, *BOX)], [(0, 0.21, 0.19, 0.41, 0.51)]) == []
    # Five pixels of a thousand, moved by two.
    assert kinds_of([(0, 0.5, 0.5, 0.505, 0.505)], [(0, 0.502, 0.502, 0.507, 0.507)]) == []


a_box = st.tuples(
    st.integers(0, 2),
    st.floats(0, 0.5, width=32),
    st.floats(0, 0.5, width=32),
    st.floats(0.5, 1, width=32),
    st.floats(0.5, 1, width=32),
)
a_picture = st.lists(a_box, max_size=5)


@given(a_picture, a_picture)
def test_contradictions_are_the_same_from_both_sides(first, second):
    def alone(found, side):
        return sorted(getattr(item, side) for item in found if getattr(item, side) >= 0)

    there = compare_labels(boxes_of(first, second), 0, 1)
    back = compare_labels(boxes_of(second, first), 0, 1)
    assert set(alone(there, 'box_a')) == set(alone(back, 'box_b'))
    assert set(alone(there, 'box_b')) == set(alone(back, 'box_a'))
    assert kinds_of(first, first) == []
    assert bool(there) == bool(back)


@given(a_picture, a_picture)
def test_overlaps_and_likeness_are_symmetric_shares(first, second):
    boxes = boxes_of(first, second)
    overlap = overlaps(boxes.of(0)[1], boxes.of(1)[1])
    assert ((overlap >= 0) & (overlap <= 1)).all()
    assert np.allclose(overlap, overlaps(boxes.of(1)[1], boxes.of(0)[1]).T)
    likeness = class_likeness(boxes, 0, 1)
    assert 0 <= likeness <= 1 and likeness == class_likeness(boxes, 1, 0)
    assert class_likeness(boxes, 0, 0) == 1


# Pixels.


def scene(seed, size=SIDE):
    """A picture with structure at several scales."""
    generator = np.random.default_rng(seed)
    rough = generator.uniform(60, 190, (8, 8, 3)).astype(np.float32)
    fine = generator.uniform(-25, 25, (64, 64, 3)).astype(np.float32)
    big = [cv2.resize(part, (size, size), interpolation=cv2.INTER_CUBIC) for part in (rough, fine)]
    return np.clip(big[0] + big[1], 0, 255).astype(np.uint8)


def draw(pixels, left, top, side, colour):
    drawn = pixels.copy()
    drawn[top : top + side, left : left + side] = colour
    drawn[top : top + side // 2, left : left + side // 2] = np.subtract(255, colour)
    return drawn


def levels_of(first, second):
    return match_levels(cell_means(first, COARSE), cell_means(second, COARSE))


def is_same(first, second, place):
    levels = levels_of(first, second)
    return levels is not None and same_place(first, second, levels, place)


@settings(max_examples=30)
@given(st.integers(0, 50), st.floats(0.8, 1.2), st.integers(-15, 15), st.integers(50, 95))
def test_a_recompressed_copy_with_other_brightness_shows_the_same(seed, gain, offset, quality):
    first = draw(np.clip(scene(seed), 40, 200), 110, 110, 30, (180, 60, 60))
    changed = np.clip(first * gain + offset, 0, 255).astype(np.uint8)
    smaller = cv2.resize(changed, (200, 200), interpolation=cv2.INTER_AREA)
    coded = cv2.imencode('.jpg', smaller, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    second = cv2.resize(cv2.imdecode(coded, cv2.IMREAD_COLOR), (SIDE, SIDE))
    assert is_same(first, second, MIDDLE)


@settings(max_examples=30)
@given(st.integers(0, 50), st.integers(6, 40), st.integers(3, 60))
def test_where_an_object_has_moved_pictures_differ(seed, side, step):
    background = scene(seed)
    first = draw(background, 110, 110, side, (250, 250, 250))
    second = draw(background, min(110 + max(step, side // 3), 210), 110, side, (250, 250, 250))
    place = np.array([110, 110, 110 + side, 110 + side]) / SIDE
    assert levels_of(first, second) is not None
    assert not is_same(first, second, place)


@settings(max_examples=30)
@given(st.integers(0, 50), st.integers(0, 50))
def test_a_small_change_in_a_large_box_is_seen(seed, place):
    first = scene(seed)
    second = draw(first, 70 + place, 90, 24, (250, 20, 250))
    assert not is_same(first, second, np.array([0.2, 0.2, 0.8, 0.8]))


@settings(max_examples=20)
@given(st.integers(0, 50))
def test_other_pictures_and_blank_ones_are_not_the_same(seed):
    assert levels_of(scene(seed), scene(seed + 100)) is None
    blank = np.full((SIDE, SIDE, 3), 90, np.uint8)
    assert levels_of(blank, blank) is None


def test_where_nothing_can_be_seen_only_equal_pixels_are_the_same():
    first = scene(1)
    first[90:170, 90:170] = 100
    noise = np.random.default_rng(0).integers(0, 3, first.shape).astype(np.uint8)
    assert is_same(first, first, MIDDLE)
    assert not is_same(first, np.minimum(first, 250) + noise, MIDDLE)


@given(arrays(np.float64, 4, elements=st.floats(-2, 3)))
def test_any_place_can_be_compared(place):
    first = scene(0)
    assert is_same(first, first, place) in (True, False)


def test_pictures_of_any_kind_and_size_become_small_ones(tmp_path):
    wide = cv2.resize(scene(3), (700, 420))
    for name in ('a.jpg', 'a.png'):
        cv2.imwrite(str(tmp_path / name), wide)
    from_jpeg, from_png = (
        read_small(str(tmp_path / name), Reader()) for name in ('a.jpg', 'a.png')
    )
    assert from_jpeg.shape == from_png.shape == (SIDE, SIDE, 3)
    difference = np.abs(from_jpeg.astype(int) - from_png)
    assert difference.mean() < 3


# Which copy is rather right.


def nobody(samples):
    return Neighbours(np.full((samples, 2), -1), np.full((samples, 2), np.nan, np.float32))


def choose(copies, agreeing, boxes, neighbours=None):
    samples = len(boxes.offsets) - 1
    return better_copies(
        np.array(copies).reshape(-1, 2),
        np.array(agreeing, int).reshape(-1, 2),
        boxes,
        neighbours or nobody(samples),
        [f'{number}' for number in range(samples)],
    ).tolist()


COW, HORSE = [(0, *BOX)], [(1, *BOX)]


def test_the_majority_of_the_copies_is_right():
    boxes = boxes_of(COW, HORSE, HORSE)
    assert choose([[0, 1], [0, 2]], [[1, 2]], boxes) == [1, -1, -1]


def test_without_a_majority_those_around_decide():
    boxes = boxes_of(COW, HORSE, HORSE, HORSE)
    neighbours = nobody(4)
    neighbours.nearest[0] = [1, 2]
    neighbours.nearest[1] = [0, 3]
    assert choose([[0, 1]], [], boxes, neighbours) == [1, -1, -1, -1]


def test_then_more_objects_and_then_the_name_decide():
    assert choose([[0, 1]], [], boxes_of(COW, [*COW, (0, 0.6, 0.6, 0.9, 0.9)])) == [1, -1]
    assert choose([[0, 1]], [], boxes_of(HORSE, COW)) == [-1, 0]


pair_lists = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=12).map(
    lambda pairs: np.unique(
        np.array([sorted(pair) for pair in pairs if pair[0] != pair[1]], int).reshape(-1, 2), axis=0
    )
)


@given(pair_lists, pair_lists)
def test_right_ones_do_not_contradict_each_other_and_wrong_ones_a_right_one(copies, agreeing):
    better = choose(copies, agreeing, boxes_of(*[COW] * 9))
    against = {tuple(pair) for pair in copies.tolist()}
    for first, second in against:
        assert better[first] >= 0 or better[second] >= 0
    for wrong, right in enumerate(better):
        if right >= 0:
            assert better[right] < 0 and tuple(sorted((wrong, right))) in against


@given(pair_lists)
def test_groups_hold_what_pairs_link(pairs):
    groups = linked(pairs)
    assert sorted(number for group in groups for number in group) == np.unique(pairs).tolist()
    group_of = {number: group for group in groups for number in group}
    for first, second in pairs.tolist():
        assert group_of[first] is group_of[second]


# The rule.


def apply(kept, better, margin=None, locked=None):
    samples = len(kept)
    return keep_better_labels(
        np.array(kept, bool),
        np.zeros(samples) if margin is None else np.array(margin, float),
        np.array(better),
        np.zeros(samples, bool) if locked is None else np.array(locked, bool),
    )


def test_a_worse_copy_changes_places_with_a_better_one():
    assert apply([1, 0, 0], [1, -1, -1]).kept.tolist() == [False, True, False]


def test_of_two_kept_copies_the_worse_one_makes_room_for_the_least_redundant_sample():
    result = apply([1, 1, 0, 0], [1, -1, -1, -1], margin=[0, 0, 0.5, 0.1])
    assert result.swapped.tolist() == [True, True, False, False]
    assert result.kept.tolist() == [False, True, False, True]


def test_where_there_is_nothing_to_take_instead_both_stay():
    assert apply([1, 1], [1, -1]).kept.tolist() == [True, True]


@given(st.data())
def test_the_budget_is_met_and_locked_samples_stay_as_they_are(data):
    samples = data.draw(st.integers(1, 12))
    flags = st.lists(st.booleans(), min_size=samples, max_size=samples)
    kept, locked, wrong = (np.array(data.draw(flags)) for _ in range(3))
    right = np.flatnonzero(~wrong)
    better = np.full(samples, -1)
    if len(right):
        for sample in np.flatnonzero(wrong):
            better[sample] = data.draw(st.sampled_from(right.tolist()))
    margin = data.draw(st.lists(st.floats(-1, 1), min_size=samples, max_size=samples))
    result = apply(kept, better, margin, locked).kept
    assert result.sum() == kept.sum()
    assert (result[locked] == kept[locked]).all()
    assert not (result & ~kept & (better >= 0)).any()
    # A worse one stays beside a better one only where nothing could take its place.
    worse = np.flatnonzero(result & (better >= 0) & ~locked)
    if result[better[worse]].any():
        assert not (~result & (better < 0) & ~locked).any()


# A whole run.


def write_set(folder, pictures, boxes, classes=('cow', 'horse')):
    """A COCO folder and a config that prunes it to half.

    Args:
        folder: where to.
        pictures: (H, W, 3) uint8 each.
        boxes: of each picture (class, x1, y1, x2, y2) in pixels.
    """
    (folder / 'images').mkdir(parents=True)
    images, annotations = [], []
    for number, (pixels, own) in enumerate(zip(pictures, boxes, strict=True)):
        name = f'{number:03d}.jpg'
        cv2.imwrite(str(folder / 'images' / name), pixels, [cv2.IMWRITE_JPEG_QUALITY, 92])
        height, width = pixels.shape[:2]
        images.append(dict(id=number, file_name=name, width=width, height=height))
        for label, x1, y1, x2, y2 in own:
            box = [x1, y1, x2 - x1, y2 - y1]
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=label,
                    bbox=box,
                    area=box[2] * box[3],
                    iscrowd=0,
                )
            )
    categories = [dict(id=index, name=name) for index, name in enumerate(classes)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (folder / 'train.json').write_text(json.dumps(content))
    dataset = dict(
        type='CocoDataset',
        data_root=f'{folder}/',
        ann_file='train.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=classes),
        pipeline=[],
    )
    options = dict(
        keep_ratio=0.5, embedder=dict(type='PixelEmbedder', _delete_=True), feedback=dict(beta=0)
    )
    config = folder / 'config.py'
    config.write_text(
        "_base_ = 'adadedup_mm::_base_/adadedup_offline.py'\n"
        "default_scope = 'mmdet'\n"
        f'adadedup = {options!r}\n'
        f'train_dataloader = dict(batch_size=2, num_workers=0, dataset={dataset!r})\n'
    )
    return config


def again(pixels, size):
    """A copy as an export makes it: of another size, and a little brighter."""
    return cv2.resize(np.clip(pixels * 1.03 + 2, 0, 255).astype(np.uint8), (size, size))


@pytest.fixture(scope='module')
def contradicting(tmp_path_factory):
    """Eight scenes; of the first two, cows, there are two copies each, one of which says horse."""
    folder = tmp_path_factory.mktemp('set')
    box = (60, 60, 160, 160)
    pictures, boxes = [], []
    for number in range(8):
        pixels = scene(number)
        pictures.append(pixels)
        boxes.append([(0 if number < 4 else 1, *box)])
    for number in range(2):
        for label, size in ((1, 220), (0, 300)):
            pictures.append(again(pictures[number], size))
            scaled = [round(side * size / SIDE) for side in box]
            boxes.append([(label, *scaled)])
    return write_set(folder, pictures, boxes)


def test_a_run_lists_contradicting_copies_and_keeps_the_right_ones(contradicting, tmp_path, capsys):
    work_dir = run(contradicting, tmp_path / 'run')
    assert '4 pairs of near-identical images have labels' in capsys.readouterr().out
    table = pq.read_table(work_dir / 'conflicts.parquet').to_pandas()
    pairs = sorted(zip(table.sample_a, table.sample_b, strict=True))
    assert pairs == [('0', '8'), ('1', '10'), ('10', '11'), ('8', '9')]
    assert set(table.kind) == {'class'} and table.copies.all()
    assert all({row.class_a, row.class_b} == {'cow', 'horse'} for row in table.itertuples())
    assert {'8', '10'}.isdisjoint(table.better)
    chosen = samples(work_dir).set_index('sample_id')
    assert chosen.kept.sum() == 6 and not chosen.kept[['8', '10']].any()
    assert chosen.conflict_with['8'] in ('0', '9') and chosen.conflict_with.isna().sum() == 6
    assert (chosen.reason == 'its labels contradict a better copy').any()
    manifest = json.loads((work_dir / 'manifest.json').read_text())
    assert manifest['conflicts'] == dict(pairs=4, copies=4, samples=6, boxes={'class': 4})
    page = (work_dir / 'report.html').read_text()
    section = page.partition('<section id="conflicts">')[2].partition('</section>')[0]
    assert section.count('class="conflict"') == 4 and section.count('class="box"') == 8
    assert 'better labels' in section


def test_without_the_guard_contradictions_are_told_and_nothing_is_changed(contradicting, tmp_path):
    off = ['--cfg-options', 'adadedup.guards.conflicts=False']
    work_dir = run(contradicting, tmp_path / 'run', *off)
    reasons = samples(work_dir).reason
    assert not reasons.str.contains('cop').any()
    assert len(pq.read_table(work_dir / 'conflicts.parquet')) == 4


def test_a_run_that_looks_at_no_features_finds_nothing(contradicting, tmp_path):
    work_dir = run(contradicting, tmp_path / 'run', '--strategy', 'random')
    assert len(pq.read_table(work_dir / 'conflicts.parquet')) == 0
    assert samples(work_dir).conflict_with.isna().all()
    assert not (work_dir / 'stages' / 'neighbours').exists()


def test_frames_of_a_fixed_camera_do_not_contradict_each_other(tmp_path):
    background = cv2.resize(scene(5), (640, 400))
    generator = np.random.default_rng(0)
    pictures, boxes = [], []
    for frame in range(12):
        pixels, own = background, []
        for lane in range(3):
            left, top = 20 + 37 * frame + 50 * lane, 60 + 90 * lane
            pixels = draw(pixels, left, top, 24, (230, 230, 40 * lane))
            own.append((lane % 2, left, top, left + 24, top + 24))
        noise = generator.normal(0, 3, pixels.shape)
        pictures.append(np.clip(pixels + noise, 0, 255).astype(np.uint8))
        boxes.append(own)
    work_dir = run(write_set(tmp_path / 'set', pictures, boxes), tmp_path / 'run')
    level = 0.99
    assert (np.load(work_dir / 'stages' / 'neighbours' / 'similarity.npy') >= level).any()
    assert len(pq.read_table(work_dir / 'conflicts.parquet')) == 0


def test_pieces_give_the_same_whoever_computes_them(contradicting, tmp_path, monkeypatch):
    monkeypatch.setattr('adadedup_mm.conflicts.stage.PIECE', 2)
    folder = contradicting.parent / 'images'
    paths = [str(path) for path in sorted(folder.iterdir())]
    boxes = boxes_of(*[COW] * 8, HORSE, COW, HORSE, COW)
    pairs = np.array([[0, 8], [8, 9], [0, 9], [1, 10], [10, 11]])
    shards = conflict_shards(pairs, boxes, paths, Reader())
    results = []
    for order in ([0, 1, 2], [2, 0, 1]):
        place = tmp_path / str(order[0])
        place.mkdir()

        def share(place=place, order=order):
            for piece in order:
                shards.compute(place, [piece], lambda units: None)

        shards.lead(place, share)
        results.append((np.load(place / 'conflicts.npy'), np.load(place / 'agreeing.npy')))
    (first, agreeing), (second, again_agreeing) = results
    assert (first == second).all() and (agreeing == again_agreeing).all()
    assert len(first) == 4 and agreeing.tolist() == [[0, 9]]


def test_linked_pairs_stand_together():
    neighbours = nobody(6)
    for sample, other in ((0, 3), (1, 2), (3, 5)):
        neighbours.nearest[sample, 0] = other
        neighbours.similarity[sample, 0] = 0.99
    assert near_pairs(neighbours, 0.98).tolist() == [[0, 3], [3, 5], [1, 2]]
    assert near_pairs(neighbours, 0.999).shape == (0, 2)


@pytest.mark.skipif(not CATTLE.is_dir(), reason='needs the set cattle_cctv')
def test_a_real_export_with_contradicting_copies(tmp_path):
    content = json.loads((CATTLE / 'annotations' / 'instances_train.json').read_text())
    images = {image['id']: image for image in content['images']}
    wanted = ('stand12_', 'walk451_', 'stand105_', 'walk445_', 'lie100_', 'lie101_')
    chosen = [i for i, image in images.items() if image['file_name'].startswith(wanted)]
    pictures, boxes = [], []
    for number in chosen:
        pictures.append(cv2.imread(str(CATTLE / 'images' / images[number]['file_name'])))
        own = []
        for item in content['annotations']:
            if item['image_id'] == number:
                left, top, width, height = item['bbox']
                own.append((item['category_id'] - 1, left, top, left + width, top + height))
        boxes.append(own)
    classes = tuple(category['name'] for category in content['categories'])
    work_dir = run(write_set(tmp_path / 'set', pictures, boxes, classes), tmp_path / 'run')
    table = pq.read_table(work_dir / 'conflicts.parquet').to_pandas()
    assert len(table) and (table.kind == 'class').all() and table.copies.all()
    names = [images[number]['file_name'].partition('_')[0] for number in chosen]
    pairs = {
        (names[int(a)], names[int(b)]) for a, b in zip(table.sample_a, table.sample_b, strict=True)
    }
    assert {frozenset(pair) for pair in pairs} <= {
        frozenset(('stand12', 'walk451')),
        frozenset(('stand105', 'walk445')),
    }
