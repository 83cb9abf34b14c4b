"""Ground-truth databases of every origin, and infos with odd keys: right, or one clear line.

``FUZZ=50`` tries fifty times as many, other ones every time (``make fuzz``).
"""

import copy
import functools
import itertools
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip('mmdet3d')

from test_fuzz import PLACES, VALUES, _nodes, clean, snapshot, tries
from test_infos import dump, make_nuscenes, make_temporal

from adadedup_mm.annotations.databases import judge_objects
from adadedup_mm.annotations.frame_index import FrameIndex, InfoPart
from adadedup_mm.annotations.pickles import load_pickle
from adadedup_mm.base.errors import UserError
from adadedup_mm.datasets import pruned_config, read_pool, write_pruned

NAMES = ('car', 'bus', 'pedestrian')
FILES = (Path('a.pkl'), Path('b.pkl'))


def make_world(rng, count, static):
    """Frames with some objects, of which those that stand still have the boxes of before."""
    frames = []
    for i in range(count):
        objects = []
        if frames and rng.random() < static:
            objects = [one for one in frames[-1]['instances'] if rng.random() < 0.9]
        for _ in range(rng.integers(not objects, 5)):
            label = int(rng.integers(3))
            box = [*rng.uniform(-50, 50, 2), -1.0, *rng.uniform(1, 5, 3), float(rng.uniform(-3, 3))]
            objects.append(
                dict(bbox_3d=box, bbox_label_3d=label, num_lidar_pts=int(rng.integers(1, 1000)))
            )
        frames.append(dict(sample_idx=i, token=f't{i}', instances=objects))
    return frames


def make_database(rng, frames, address, with_boxes):
    """What create_data.py makes of a file with these frames; objects note their token besides."""
    database = {name: [] for name in NAMES}
    for position, frame in enumerate(frames):
        key = dict(
            position=position,
            sample_idx=frame['sample_idx'],
            token=frame['token'],
            text=f'{frame["sample_idx"]:06d}',
        )[address]
        for i, one in enumerate(frame['instances']):
            name = NAMES[one['bbox_label_3d']]
            item = dict(
                name=name,
                path=f'gt_database/{key}_{name}_{i}.bin',
                image_idx=key,
                gt_idx=i,
                num_points_in_gt=one['num_lidar_pts'],
                of=frame['token'],
            )
            if with_boxes:
                # The middle becomes the bottom, and the angle another one.
                box = np.array(one['bbox_3d']) - [
                    0,
                    0,
                    one['bbox_3d'][5] / 2,
                    0,
                    0,
                    0,
                    rng.uniform(),
                ]
                item['box3d_lidar'] = box.astype(np.float32)
            database[name].append(item)
    return database


def choose(rng, frames, how):
    """The frames of a file that is made of others."""
    if how == 'part':
        return [frame for frame in frames if rng.random() < 0.5] or frames[:1]
    if how == 'shuffled':
        return [frames[i] for i in rng.permutation(len(frames))]
    return frames[len(frames) // 2 :] if how == 'end' else frames


def make_parts(rng, files):
    """Parts of the training set: each file whole, by ``indices``, or twice."""
    parts = []
    for path, frames in files.items():
        for _ in range(rng.integers(1, 3)):
            taken = [frame['token'] for frame in frames]
            if rng.random() < 0.5:
                taken = [
                    taken[i]
                    for i in sorted(rng.choice(len(taken), rng.integers(1, len(taken) + 1), False))
                ]
            parts.append(InfoPart(path, taken, (rng.random(len(taken)) < 0.5).tolist()))
    return parts


def contents(files):
    categories = {name: label for label, name in enumerate(NAMES)}
    return {
        path: dict(metainfo=dict(categories=categories), data_list=frames)
        for path, frames in files.items()
    }


def check_judged(database, parts, files):
    """Objects of pruned frames go, those of kept ones stay, or a line, returned, says why not."""
    kept = {name for part in parts for name in itertools.compress(part.ids, part.kept)}
    pruned = {name for part in parts for name in part.ids} - kept
    try:
        stays, counts = judge_objects(
            database, FrameIndex(parts, contents(files)), Path('dbinfos.pkl')
        )
    except UserError as error:
        assert '\n' not in str(error) and 'dbinfos.pkl' in str(error)
        return str(error)
    objects = [item for items in database.values() for item in items]
    for item, flag in zip(objects, stays, strict=True):
        assert item['of'] not in (kept if not flag else pruned)
    assert (
        counts.records == len(objects)
        and counts.kept == stays.sum()
        and counts.outside <= counts.kept
    )
    return ''


ORIGINS = st.sampled_from(['whole', 'part', 'shuffled', 'end'])


@tries(150)
@given(
    seed=st.integers(0, 2**32),
    made_from=ORIGINS,
    trained_on=ORIGINS,
    halves=st.booleans(),
    address=st.sampled_from(['position', 'sample_idx', 'token', 'text']),
    renumbered=st.booleans(),
    static=st.sampled_from([0, 0, 0.3, 1]),
    with_boxes=st.booleans(),
)
def test_objects_follow_their_frames_wherever_the_database_comes_from(
    seed, made_from, trained_on, halves, address, renumbered, static, with_boxes
):
    rng = np.random.default_rng(seed)
    world = make_world(rng, int(rng.integers(2, 12)), static)
    database = make_database(rng, choose(rng, world, made_from), address, with_boxes)
    frames = choose(rng, world, trained_on)
    if renumbered:
        frames = [{**frame, 'sample_idx': i} for i, frame in enumerate(frames)]
    middle = len(frames) // 2
    files = (
        dict(zip(FILES, [frames[:middle], frames[middle:]], strict=True))
        if halves and middle
        else {FILES[0]: frames}
    )
    said = check_judged(database, make_parts(rng, files), files)
    has_all = {frame['token'] for frame in frames} == {frame['token'] for frame in world}
    if has_all and (address == 'token' or (with_boxes and not static)):
        assert not said


ODD = VALUES | st.sampled_from(
    [
        np.zeros(0),
        np.zeros((3, 3)),
        np.full(4, np.nan),
        np.array([{}], object),
        b'text',
        np.array(['car']),
        np.array([['car']]),
        np.float64(1),
        (1, 2),
    ]
)


@functools.cache
def drives(make):
    """A dataset's folder, its config and the content of its infos, made once."""
    folder = Path(tempfile.mkdtemp())
    config = make(folder)
    path = folder / config.train_dataloader.dataset.ann_file
    return folder, config, path, load_pickle(path)


@tries(150)
@given(
    make=st.sampled_from([make_nuscenes, make_temporal]),
    number=st.integers(1, 5),
    place=PLACES,
    value=ODD,
    deletes=st.booleans(),
)
def test_odd_values_in_a_frame_are_read_or_the_frame_is_named(make, number, place, value, deletes):
    folder, config, path, content = drives(make)
    records = copy.deepcopy(content['infos' if make is make_temporal else 'data_list'])
    nodes = list(_nodes([records[number]]))
    parent, key = nodes[place % len(nodes)]
    if deletes and isinstance(parent, dict):
        del parent[key]
    else:
        parent[key] = copy.deepcopy(value)
    dump(path, content | {'infos' if make is make_temporal else 'data_list': records})
    before = snapshot(folder)
    try:
        with clean():
            try:
                pool, sources = read_pool(config)
                kept = np.arange(len(pool)) % 2 == 0
                with tempfile.TemporaryDirectory() as out:
                    write_pruned(sources, kept, out)
                    again, _ = read_pool(pruned_config(config, sources, out))
                assert again.sample_ids == tuple(itertools.compress(pool.sample_ids, kept))
            except UserError as error:
                names = [
                    f't{6 - number if make is make_temporal else number}',
                    f'record {number}',
                    f'number {number}',
                    f'frame {number}',
                ]
                assert any(name in str(error) for name in names), error
                raise
        assert snapshot(folder) == before
    finally:
        dump(path, content)
