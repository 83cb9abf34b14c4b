"""The probe's fast ways are equal to the plain ones."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adadedup_mm.images import Reader
from adadedup_mm.probe import totals
from adadedup_mm.probe.collect import GridRows, look_at_all
from adadedup_mm.probe.parts import disjoint_parts
from adadedup_mm.probe.sums import LeftOut, penalty_of, sum_cells


@given(st.integers(0, 6), st.integers(0, 30), st.integers(1, 9), st.integers(0, 99))
def test_sets_are_unions_of_parts(count, pictures, most, seed):
    generator = np.random.default_rng(seed)
    sets = generator.random((count, pictures)) < generator.random((count, 1))
    groups = disjoint_parts(sets, most)
    again = []
    for parts in groups:
        assert parts.count <= most or len(parts.of_set) == 1
        for chosen in parts.of_set:
            again.append(np.isin(parts.of_picture, np.flatnonzero(chosen)))
    np.testing.assert_array_equal(np.reshape(again, sets.shape), sets)


def test_nested_sets_have_a_part_each():
    rank = np.random.default_rng(0).permutation(100)
    sets = np.array([rank < count for count in (10, 20, 50, 100)])
    [parts] = disjoint_parts(sets, 4)
    assert parts.count == 4


@pytest.mark.parametrize(('memory', 'block'), [(1, 7), (2**30, 7), (2**30, 2**15)])
def test_sums_of_sets_are_those_of_their_cells(memory, block, monkeypatch):
    monkeypatch.setattr(totals, '_MEMORY', memory)
    monkeypatch.setattr(totals, 'BLOCK', block)
    generator = np.random.default_rng(0)
    pieces = [some_cells(generator, range(start, start + 4)) for start in (0, 4, 8)]
    everything = totals._joined(pieces)
    sets = generator.random((5, 12)) < 0.5
    sums = list(totals.sums_of_sets(lambda: pieces, sets, 3, 2))
    assert len(sums) == 5
    features = np.hstack([everything.features, np.ones((len(everything.label), 1))])
    targets = totals.class_targets(everything.label, 2)
    for (of_classes, of_boxes), chosen in zip(sums, sets, strict=True):
        own = chosen[everything.picture]
        rows = features.astype(np.float32)
        expected = sum_cells(rows[own], everything.weight[own], targets[own])
        assert_same_sums(of_classes, expected)
        own &= everything.label >= 0
        equal = np.ones(own.sum(), np.float32)
        assert_same_sums(of_boxes, sum_cells(rows[own], equal, everything.box[own]))


def some_cells(generator, pictures):
    picture = np.repeat(list(pictures), 5)
    return GridRows(
        features=generator.standard_normal((len(picture), 3)).astype(np.float16),
        picture=picture,
        label=generator.integers(-1, 2, len(picture)).astype(np.int32),
        weight=generator.random(len(picture), np.float32),
        box=generator.standard_normal((len(picture), 4)).astype(np.float32),
    )


def assert_same_sums(ours, theirs):
    np.testing.assert_allclose(ours.gram, theirs.gram, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.cross, theirs.cross, rtol=1e-4, atol=1e-5)
    assert ours.weight == pytest.approx(theirs.weight)


def test_residuals_of_groups_side_by_side_are_those_of_each_alone():
    generator = np.random.default_rng(0)
    features = generator.standard_normal((40, 4)).astype(np.float32)
    features[:, -1] = 1
    weight = generator.random(40, np.float32)
    targets = generator.standard_normal((40, 2)).astype(np.float32)
    sums = sum_cells(features, weight, targets)
    left_out = LeftOut(sums, penalty_of(sums, 1e-3))
    sizes, learned = [3, 7, 1, 29], [True, False, True, True]
    together = left_out.of_groups(features, weight, targets, sizes, learned)
    start = 0
    for size, seen in zip(sizes, learned, strict=True):
        own = slice(start, start + size)
        alone = left_out.residuals(features[own], weight[own], targets[own], seen)
        np.testing.assert_allclose(together[own], alone, atol=1e-9)
        start += size


class Means:
    """The mean of each square of 32 pixels; notes how many pictures it gets at a time."""

    side = None
    strides = (32,)
    channels = (3,)

    def __init__(self, device):
        self.device = device
        self.batches = []

    def maps(self, images):
        self.batches.append(len(images))
        count, height, width, _ = images.shape
        squares = images.reshape(count, height // 32, 32, width // 32, 32, 3)
        return [squares.mean(axis=(2, 4), dtype=np.float32)]


@pytest.mark.parametrize(('device', 'batches'), [('cpu', [1, 1, 1, 1]), ('cuda', [1, 3])])
def test_devices_get_pictures_of_a_shape_together(device, batches, tmp_path):
    generator = np.random.default_rng(0)
    paths = [str(tmp_path / f'{number}.png') for number in range(5)]
    for path, width in zip(paths, (64, 96, 64, 0, 64), strict=True):
        if width:
            cv2.imwrite(path, generator.integers(0, 256, (64, width, 3), np.uint8))
    (tmp_path / '3.png').write_text('no picture')
    backbone = Means(device)

    def look(picture, maps, place):
        return picture, maps[0].mean(), place.pixels.mean()

    with ThreadPoolExecutor(2) as threads:
        looked = look_at_all(range(5), paths, backbone, Reader(), 96, look, threads)
    assert sorted(backbone.batches) == batches
    assert looked[3] is None
    for number, found in enumerate(looked):
        if found:
            assert found[0] == number and found[1] == pytest.approx(found[2], rel=1e-5)
