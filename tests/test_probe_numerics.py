"""The probe's arithmetic against its definitions: cells, sums, heads, detections, precision."""

import contextlib
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn.linear_model import Ridge
from torch.nn import functional

from adadedup_mm.feedback import Gaps, shrink, standardise, weighted_gaps
from adadedup_mm.probe import sums as sums_module
from adadedup_mm.probe.cells import (
    GRIDS,
    OBJECT_WEIGHT,
    Grid,
    box_targets,
    boxes_from,
    choose_cells,
    interpolate,
    owners,
)
from adadedup_mm.probe.collect import GridRows
from adadedup_mm.probe.detect import LEAST_SCORE, Detections, Detector, Head, with_constant
from adadedup_mm.probe.fit import (
    BOX_PENALTY,
    CLASS_PENALTY,
    class_targets,
    cross_fitted_losses,
    fit_heads,
)
from adadedup_mm.probe.folds import cross_folds, scene_blocks
from adadedup_mm.probe.held_out import held_out_losses
from adadedup_mm.probe.precision import Truth
from adadedup_mm.probe.sums import LeftOut, no_sums, penalty_of, solve, sum_cells

seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=30, deadline=None)
ANY_SIZE = Grid(8, 0, np.inf)


def some_boxes(generator, count, height=96, width=128):
    """(count, 4) float32 of all sizes, some of them beyond the edge."""
    corner = generator.uniform(-8, [width, height], (count, 2))
    side = np.exp(generator.uniform(0, np.log(90), (count, 2)))
    return np.hstack([corner, corner + side]).astype(np.float32)


# Cells.


def test_the_cells_in_the_middle_of_a_box_answer_for_it():
    boxes = np.array([[8, 16, 72, 48]], np.float32)
    owner = owners(boxes, ANY_SIZE, 64, 96)
    # Its middle half is 24..56 across and 24..40 down.
    expected = np.full((8, 12), -1)
    expected[3:5, 3:7] = 0
    np.testing.assert_array_equal(owner, expected)


def test_the_smaller_box_wins_wherever_it_stands_in_the_list():
    large, small = [0, 0, 64, 64], [20, 20, 44, 44]
    for boxes in ([large, small], [small, large]):
        owner = owners(np.array(boxes, np.float32), ANY_SIZE, 64, 64)
        assert owner[3, 3] == boxes.index(small) and owner[2, 2] == boxes.index(large)


def test_a_box_smaller_than_a_cell_is_answered_for_by_the_cell_at_its_centre():
    owner = owners(np.array([[17, 1, 20, 3]], np.float32), ANY_SIZE, 64, 64)
    np.testing.assert_array_equal(np.argwhere(owner == 0), [[0, 2]])


def test_every_box_belongs_to_the_one_grid_of_its_size():
    for side, stride in ((1, 4), (19.9, 4), (20, 8), (55.9, 8), (56, 16), (300, 16)):
        boxes = np.array([[10, 10, 10 + side, 10 + side]], np.float32)
        found = [grid.stride for grid in GRIDS if (owners(boxes, grid, 320, 320) >= 0).any()]
        assert found == [stride]


@quick
@given(seeds, st.integers(0, 12), st.integers(1, 100), st.integers(1, 130))
def test_owners_are_what_a_look_at_every_cell_finds(seed, count, height, width):
    boxes = some_boxes(np.random.default_rng(seed), count)
    for grid in GRIDS:
        owner = owners(boxes, grid, height, width)
        assert owner.shape == (height // grid.stride, width // grid.stride)
        sides = boxes[:, 2:] - boxes[:, :2]
        size = np.sqrt(sides.prod(axis=1))
        for (row, column), index in np.ndenumerate(owner):
            centre = (np.array([column, row]) + 0.5) * grid.stride
            middle = (boxes[:, :2] + boxes[:, 2:]) / 2
            inside = (np.abs(centre - middle) < sides / 4 - 1e-3).all(axis=1)
            inside &= (size >= grid.smallest) & (size < grid.largest)
            if inside.any():
                assert index >= 0 and size[index] <= size[inside].min() + 1e-3
            if index >= 0:
                assert grid.smallest <= size[index] < grid.largest


@quick
@given(seeds, st.integers(0, 12), st.integers(1, 60), st.integers(1, 96), st.integers(1, 128))
def test_chosen_cells_are_all_with_objects_and_some_that_stand_for_the_rest(
    seed, count, background, height, width
):
    generator = np.random.default_rng(seed)
    boxes = some_boxes(generator, count).clip(0, [width, height] * 2)
    boxes = boxes[(boxes[:, 2:] - boxes[:, :2] >= 1).all(axis=1)]
    labels = generator.integers(0, 3, len(boxes)).astype(np.int32)
    for grid in GRIDS:
        owner = owners(boxes, grid, height, width)
        cells, again = (
            choose_cells(
                boxes, labels, grid, height, width, background, np.random.default_rng([seed, 1])
            )
            for _ in range(2)
        )
        for one, other in zip(vars(cells).values(), vars(again).values(), strict=True):
            np.testing.assert_array_equal(one, other)

        kinds = {name: values.dtype for name, values in vars(cells).items()}
        label_kind = kinds.pop('label')
        assert label_kind == np.int32 and set(kinds.values()) == {np.dtype(np.float32)}
        with_object = cells.label >= 0
        assert with_object.sum() == (owner >= 0).sum()
        assert (cells.weight[with_object] == OBJECT_WEIGHT).all()
        empty = (owner < 0).sum()
        assert (~with_object).sum() == min(background, empty)
        np.testing.assert_allclose(cells.weight[~with_object].sum(), empty, rtol=1e-5)
        assert not cells.box[~with_object].any()

        column, row = (cells.x // grid.stride).astype(int), (cells.y // grid.stride).astype(int)
        assert len(set(zip(row, column, strict=True))) == len(row)
        own = owner[row, column]
        np.testing.assert_array_equal(own >= 0, with_object)
        own = own[with_object]
        np.testing.assert_array_equal(cells.label[with_object], labels[own])
        x, y = cells.x[with_object], cells.y[with_object]
        back = boxes_from(cells.box[with_object], x, y, grid.stride)
        np.testing.assert_allclose(back, boxes[own], rtol=1e-4, atol=1e-2)


@quick
@given(seeds, st.integers(0, 20), st.sampled_from([4, 8, 16]))
def test_boxes_come_back_from_their_targets(seed, count, stride):
    generator = np.random.default_rng(seed)
    boxes = some_boxes(generator, count).astype(np.float64)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    x, y = (centre + generator.uniform(-20 * stride, 20 * stride, (count, 2))).T
    targets = box_targets(boxes, x, y, stride)
    np.testing.assert_allclose(boxes_from(targets, x, y, stride), boxes, atol=1e-9)


# Places in maps.


@pytest.mark.parametrize('stride', [4, 8, 16, 32])
@pytest.mark.parametrize('cell', [4, 8, 16])
def test_interpolation_at_the_centres_of_cells_is_torchs(stride, cell):
    height, width = 64, 96
    values = np.random.default_rng(0).normal(size=(height // stride, width // stride, 3))
    values = values.astype(np.float32)
    rows, columns = height // cell, width // cell
    row, column = np.divmod(np.arange(rows * columns), columns)
    ours = interpolate([values], [stride], (column + 0.5) * cell, (row + 0.5) * cell)
    theirs = functional.interpolate(
        torch.from_numpy(values).permute(2, 0, 1)[None], (rows, columns), mode='bilinear'
    )
    assert ours.dtype == np.float32
    np.testing.assert_allclose(
        ours, theirs[0].permute(1, 2, 0).reshape(-1, 3).numpy(), rtol=1e-5, atol=1e-6
    )


def test_beyond_the_edge_of_a_map_it_goes_on_as_at_the_edge():
    values = np.arange(6, dtype=np.float32).reshape(2, 3, 1)
    x = np.array([-9.0, 0, 4, 23, 99, 4])
    y = np.array([-9.0, 1, 4, 15, 99, 99])
    np.testing.assert_allclose(interpolate([values], [8], x, y)[:, 0], [0, 0, 0, 5, 5, 3])


def test_maps_stand_side_by_side():
    generator = np.random.default_rng(0)
    maps = [generator.normal(size=(64 // s, 64 // s, s)).astype(np.float32) for s in (4, 16)]
    x, y = generator.uniform(0, 64, (2, 9))
    both = interpolate(maps, [4, 16], x, y)
    alone = [interpolate([values], [s], x, y) for values, s in zip(maps, (4, 16), strict=True)]
    np.testing.assert_array_equal(both, np.hstack(alone))


# Sums and heads.


def some_cells(seed, count, channels=5, targets=3):
    """Features with a last channel of ones, weights and targets."""
    generator = np.random.default_rng(seed)
    features = generator.normal(generator.normal(size=channels), 1, (count, channels))
    features = with_constant(features.astype(np.float32))
    weight = generator.uniform(0.5, 10, count).astype(np.float32)
    answers = generator.normal(size=(count, targets)).astype(np.float32)
    return features, weight, answers


def exact_sums(features, weight, targets):
    rows = features.astype(np.float64)
    weighted = (rows * weight[:, None]).T
    return weighted @ rows, weighted @ targets


@pytest.mark.parametrize('block', [1, 7, 64, 10_000])
def test_sums_do_not_depend_on_the_size_of_blocks(block, monkeypatch):
    monkeypatch.setattr(sums_module, 'BLOCK', block)
    cells = some_cells(0, 200)
    for features in (cells[0], cells[0].astype(np.float16)):
        sums = sum_cells(features, *cells[1:])
        gram, cross = exact_sums(features, *cells[1:])
        np.testing.assert_allclose(sums.gram, gram, rtol=1e-5, atol=1e-3)
        np.testing.assert_allclose(sums.cross, cross, rtol=1e-5, atol=1e-3)
        assert sums.weight == pytest.approx(float(cells[1].sum(dtype=np.float64)))
        assert sums.gram.dtype == sums.cross.dtype == np.float64


def test_sums_of_parts_add_up_and_come_off_again():
    features, weight, targets = some_cells(1, 90)
    whole = sum_cells(features, weight, targets)
    parts = [
        sum_cells(features[part], weight[part], targets[part])
        for part in (slice(40), slice(40, 90))
    ]
    for one, other in ((parts[0] + parts[1], whole), (whole - parts[1], parts[0])):
        np.testing.assert_allclose(one.gram, other.gram, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(one.cross, other.cross, rtol=1e-4, atol=1e-3)
        assert one.weight == pytest.approx(other.weight)
    nothing = sum_cells(features[:0], weight[:0], targets[:0])
    empty = no_sums(6, 3)
    assert not nothing.weight and nothing.gram.shape == empty.gram.shape
    np.testing.assert_array_equal((whole + empty).gram, whole.gram)


@pytest.mark.parametrize('strength', [1e-3, 1.0])
def test_heads_are_those_of_weighted_ridge_regression_on_standardised_channels(strength):
    features, weight, targets = some_cells(2, 300)
    sums = sum_cells(features, weight, targets)
    head = solve(sums, penalty_of(sums, strength))
    channels = features[:, :-1].astype(np.float64)
    mean = np.average(channels, axis=0, weights=weight)
    spread = np.sqrt(np.average((channels - mean) ** 2, axis=0, weights=weight))
    ridge = Ridge(alpha=float(strength * weight.sum(dtype=np.float64)))
    ridge.fit((channels - mean) / spread, targets, sample_weight=weight)
    theirs = ridge.predict((channels - mean) / spread)
    np.testing.assert_allclose(features.astype(np.float64) @ head, theirs, atol=1e-4)


def test_without_a_penalty_heads_are_least_squares():
    features, weight, targets = some_cells(3, 300)
    sums = sum_cells(features, weight, targets)
    root = np.sqrt(weight.astype(np.float64))[:, None]
    theirs, *_ = np.linalg.lstsq(features * root, targets * root, rcond=None)
    np.testing.assert_allclose(solve(sums, penalty_of(sums, 0)), theirs, atol=1e-4)


@quick
@given(seeds, st.integers(0, 4), st.integers(-8, 8))
def test_the_scale_of_a_channel_changes_no_prediction(seed, channel, power):
    features, weight, targets = some_cells(seed, 60)
    scaled = features.copy()
    scaled[:, channel] *= np.float32(2.0**power)
    predictions = []
    for values in (features, scaled):
        sums = sum_cells(values, weight, targets)
        predictions.append(values.astype(np.float64) @ solve(sums, penalty_of(sums, 0.1)))
    np.testing.assert_allclose(*predictions, atol=1e-4)


def test_a_channel_that_never_varies_changes_no_prediction():
    features, weight, targets = some_cells(4, 80)
    for level in (0, 3):
        flat = features.copy()
        flat[:, 2] = level
        with_flat = sum_cells(flat, weight, targets)
        without = sum_cells(np.delete(flat, 2, axis=1), weight, targets)
        one = flat @ solve(with_flat, penalty_of(with_flat, 0.1))
        other = np.delete(flat, 2, axis=1) @ solve(without, penalty_of(without, 0.1))
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_a_head_of_no_cells_says_nothing():
    empty = no_sums(6, 3)
    with np.errstate(all='raise'):
        head = solve(empty, penalty_of(empty, 0.1))
    np.testing.assert_array_equal(head, np.zeros((6, 3)))


# Leaving out.


@pytest.mark.parametrize('size', [1, 5, 6, 7, 30])
@quick
@given(seeds)
def test_residuals_of_a_group_are_those_of_a_head_refitted_without_it(size, seed):
    """Of 6 channels: for groups that are smaller, as large and larger."""
    features, weight, targets = some_cells(seed, 60)
    # Near-duplicates of each other, which go together.
    features[:size] = features[:1] + np.float32(1e-2) * features[:size]
    features[:, -1] = 1
    sums = sum_cells(features, weight, targets)
    penalty = penalty_of(sums, 0.01)
    gram, cross = exact_sums(features[size:], weight[size:], targets[size:])
    refitted = np.linalg.solve(gram + np.diag(sums.weight * penalty), cross)
    expected = targets[:size] - features[:size] @ refitted
    left_out = LeftOut(sums, penalty)
    group = features[:size], weight[:size], targets[:size]
    np.testing.assert_allclose(left_out.residuals(*group, learned=True), expected, atol=1e-3)

    seen = targets[:size] - features[:size] @ solve(sums, penalty)
    np.testing.assert_allclose(left_out.residuals(*group, learned=False), seen, atol=1e-6)


@pytest.mark.parametrize('count', [4, 40])
def test_without_its_only_group_a_head_says_nothing(count):
    features, weight, targets = some_cells(5, count)
    sums = sum_cells(features, weight, targets)
    residuals = LeftOut(sums, penalty_of(sums, 0.01)).residuals(features, weight, targets, True)
    np.testing.assert_allclose(residuals, targets, atol=1e-12)


def some_rows(seed, pictures=12, channels=4, classes=2, piece=5):
    """Cells of one grid in pieces, as they are read from a stage."""
    generator = np.random.default_rng(seed)
    pieces = []
    for start in range(0, pictures, piece):
        own = np.arange(start, min(start + piece, pictures))
        picture = np.repeat(own, generator.integers(2, 12, len(own)))
        count = len(picture)
        rows = GridRows(
            features=generator.normal(1, 1, (count, channels)).astype(np.float16),
            picture=picture,
            label=generator.integers(-1, classes, count).astype(np.int32),
            weight=generator.uniform(1, 10, count).astype(np.float32),
            box=generator.normal(size=(count, 4)).astype(np.float32),
        )
        pieces.append(rows)
    return pieces


def joined(pieces):
    return GridRows(
        *(
            np.concatenate(values)
            for values in zip(*(vars(p).values() for p in pieces), strict=True)
        )
    )


@pytest.mark.parametrize('at_once', [1, 2**30])
def test_heads_of_sets_of_pictures_are_those_of_their_cells(at_once, monkeypatch):
    monkeypatch.setattr('adadedup_mm.probe.totals._MEMORY', at_once)
    grids = [some_rows(0), some_rows(1)]
    members = np.random.default_rng(0).random((3, 12)) < 0.5
    heads = fit_heads(grids.__getitem__, 2, 4, 2, members)
    for head, own in zip(heads, members, strict=True):
        for grid, pieces in enumerate(grids):
            rows = joined(pieces)
            features = with_constant(rows.features.astype(np.float32))
            targets = class_targets(rows.label, 2)
            whole = sum_cells(features, rows.weight, targets)
            chosen = own[rows.picture]
            sums = sum_cells(features[chosen], rows.weight[chosen], targets[chosen])
            expected = solve(sums, penalty_of(whole, CLASS_PENALTY))
            np.testing.assert_allclose(head.classes[grid], expected, atol=1e-4)

            equal = np.ones(len(chosen), np.float32)
            on_object = rows.label >= 0
            whole = sum_cells(features[on_object], equal[on_object], rows.box[on_object])
            chosen &= on_object
            sums = sum_cells(features[chosen], equal[chosen], rows.box[chosen])
            expected = solve(sums, penalty_of(whole, BOX_PENALTY))
            np.testing.assert_allclose(head.boxes[grid], expected, atol=1e-4)
            assert head.classes[grid].dtype == head.boxes[grid].dtype == np.float32


def test_a_grid_without_cells_has_heads_that_say_nothing():
    [nothing] = [GridRows(*(values[:0] for values in vars(some_rows(0)[0]).values()))]
    with np.errstate(all='raise'):
        [head] = fit_heads(lambda grid: [nothing], 1, 4, 2, np.ones((1, 3), bool))
        losses = cross_fitted_losses(lambda grid: [nothing], 1, 4, 2, np.ones(3, bool))
    assert not head.classes[0].any() and not head.boxes[0].any() and not losses.any()


@pytest.mark.parametrize('seed', range(4))
def test_cross_fitted_losses_are_those_of_a_head_fitted_anew_for_each_picture(seed):
    grids = [some_rows(seed), some_rows(seed + 10)]
    learned = np.random.default_rng(seed).random(12) < 0.6
    losses = cross_fitted_losses(grids.__getitem__, 2, 4, 2, learned)
    expected = np.zeros(12)
    for pieces in grids:
        rows = joined(pieces)
        features = with_constant(rows.features.astype(np.float64))
        targets = class_targets(rows.label, 2)
        whole = sum_cells(features.astype(np.float32), rows.weight, targets)
        seen = learned[rows.picture]
        scale = rows.weight[seen].sum(dtype=np.float64) * penalty_of(whole, CLASS_PENALTY)
        for picture in range(12):
            own = rows.picture == picture
            rest = seen & ~own
            gram, cross = exact_sums(features[rest], rows.weight[rest], targets[rest])
            head = np.linalg.solve(gram + np.diag(scale), cross)
            squares = ((targets[own] - features[own] @ head) ** 2).sum(axis=1)
            expected[picture] += rows.weight[own] @ squares
    np.testing.assert_allclose(losses, expected, rtol=1e-4)


@pytest.mark.parametrize('seed', range(4))
def test_held_out_losses_are_those_of_a_head_fitted_without_the_group(seed):
    grids = [some_rows(seed), some_rows(seed + 10)]
    generator = np.random.default_rng(seed)
    learned, group = generator.random(12) < 0.7, generator.permutation(np.arange(12) % 4)
    losses = held_out_losses(grids.__getitem__, 2, 4, 2, learned, group)
    expected = np.zeros(12)
    for pieces in grids:
        rows = joined(pieces)
        features = with_constant(rows.features.astype(np.float32))
        targets = class_targets(rows.label, 2)
        penalty = penalty_of(sum_cells(features, rows.weight, targets), CLASS_PENALTY)
        for picture in range(12):
            own = rows.picture == picture
            rest = learned[rows.picture] & (group[rows.picture] != group[picture])
            head = solve(sum_cells(features[rest], rows.weight[rest], targets[rest]), penalty)
            squares = ((targets[own] - features[own] @ head) ** 2).sum(axis=1)
            expected[picture] += rows.weight[own] @ squares
    np.testing.assert_allclose(losses, expected, rtol=1e-4)


def test_where_only_its_own_group_was_learned_a_head_says_nothing():
    pieces = some_rows(0)
    learned, group = np.arange(12) < 3, np.minimum(np.arange(12) // 3, 1)
    losses = held_out_losses(lambda grid: pieces, 1, 4, 2, learned, group)
    rows = joined(pieces)
    squares = rows.weight * (rows.label >= 0)
    of_targets = np.bincount(rows.picture, squares, minlength=12)
    np.testing.assert_allclose(losses[:3], of_targets[:3], rtol=1e-6)
    assert not np.allclose(losses[3:], of_targets[3:])


# Several signals as one.


def some_gaps(seed, clusters=12, scale=1.0):
    generator = np.random.default_rng(seed)
    gap = scale * generator.normal(size=clusters)
    gap_se = scale * generator.uniform(0.1, 0.5, clusters)
    unknown = generator.random(clusters) < 0.2
    gap[unknown] = gap_se[unknown] = np.nan
    return Gaps(
        loss_kept=generator.random(clusters),
        loss_pruned=generator.random(clusters),
        gap=gap,
        gap_se=gap_se,
        count=generator.integers(1, 9, clusters),
        split_half=float(generator.uniform(-1, 1)),
    )


@quick
@given(seeds)
def test_one_signal_alone_decides_what_it_decided_before(seed):
    gaps = some_gaps(seed)
    alone = weighted_gaps([gaps])
    np.testing.assert_array_equal(np.isnan(alone.gap), np.isnan(gaps.gap))
    for weigh in (shrink, standardise):
        one, told = weigh(alone)
        other, before = weigh(gaps)
        np.testing.assert_allclose(one, other, atol=1e-9)
        assert told.keys() == before.keys()


@quick
@given(seeds, st.sampled_from([1e-3, 7.0, 1e4]))
def test_the_units_of_a_signal_change_nothing(seed, unit):
    one, other = some_gaps(seed), some_gaps(seed + 1)
    scaled = some_gaps(seed + 1, scale=unit)
    together, in_units = weighted_gaps([one, other]), weighted_gaps([one, scaled])
    np.testing.assert_allclose(together.gap, in_units.gap, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(together.gap_se, in_units.gap_se, rtol=1e-6)
    assert together.split_half == max(one.split_half, other.split_half)


def test_a_signal_that_is_certain_outweighs_one_that_is_not_and_a_silent_one_changes_nothing():
    clusters = np.arange(8)
    even = replace(some_gaps(0, 8), gap=clusters / 8, gap_se=np.full(8, 0.01))
    noisy = replace(even, gap=-even.gap, gap_se=np.full(8, 0.9))
    together = weighted_gaps([noisy, even])
    assert np.corrcoef(together.gap, clusters)[0, 1] > 0.99
    silent = replace(even, gap=np.full(8, np.nan), gap_se=np.full(8, np.nan), split_half=np.nan)
    alone, beside = weighted_gaps([even]), weighted_gaps([silent, even])
    np.testing.assert_array_equal(alone.gap, beside.gap)
    assert beside.split_half == even.split_half
    nothing = weighted_gaps([silent])
    assert np.isnan(nothing.gap).all() and np.isnan(nothing.split_half)
    delta, _ = shrink(nothing)
    assert not delta.any()


# Detections.

CHANNELS, STRIDES = (3, 4, 5), (4, 8, 32)


def some_maps(generator, height=64, width=96):
    return [
        generator.normal(size=(height // stride, width // stride, channels)).astype(np.float32)
        for channels, stride in zip(CHANNELS, STRIDES, strict=True)
    ]


def some_head(generator, classes=2):
    channels = sum(CHANNELS) + 1
    return Head(
        classes=tuple(
            generator.normal(scale=0.2, size=(channels, classes)).astype(np.float32) for _ in GRIDS
        ),
        boxes=tuple(
            generator.normal(scale=0.2, size=(channels, 4)).astype(np.float32) for _ in GRIDS
        ),
    )


@quick
@given(seeds, st.integers(1, 64), st.integers(1, 96))
def test_several_heads_find_side_by_side_what_each_finds_alone(seed, height, width):
    generator = np.random.default_rng(seed)
    maps = some_maps(generator)
    heads = [some_head(generator) for _ in range(3)]
    together = Detector(heads, GRIDS, CHANNELS, STRIDES)(maps, height, width)
    for head, found in zip(heads, together, strict=True):
        [alone] = Detector([head], GRIDS, CHANNELS, STRIDES)(maps, height, width)
        assert len(found.scores) == len(alone.scores) <= 100
        np.testing.assert_allclose(found.scores, alone.scores, atol=1e-4)
        np.testing.assert_allclose(found.boxes, alone.boxes, atol=1e-2)
        np.testing.assert_array_equal(found.labels, alone.labels)
        assert (found.scores > LEAST_SCORE).all() and (np.diff(found.scores) <= 0).all()
        assert (found.boxes >= 0).all() and (found.boxes <= [width, height] * 2).all()


@pytest.mark.parametrize(('height', 'width'), [(64, 96), (61, 83), (5, 96), (64, 3)])
def test_scores_are_those_of_interpolated_maps_at_every_cell(height, width):
    generator = np.random.default_rng(0)
    maps, heads = some_maps(generator), [some_head(generator) for _ in range(2)]
    detector = Detector(heads, GRIDS, CHANNELS, STRIDES)
    for number, grid in enumerate(GRIDS):
        rows, columns = height // grid.stride, width // grid.stride
        tensors = [torch.from_numpy(values) for values in maps]
        answers = detector._answers(tensors, detector._weights[number], grid, rows, columns)
        scores = answers[:, :, :2].permute(1, 2, 0).numpy()
        row, column = np.divmod(np.arange(rows * columns), max(1, columns))
        x, y = (column + 0.5) * grid.stride, (row + 0.5) * grid.stride
        features = with_constant(interpolate(maps, STRIDES, x, y))
        assert scores.shape == (2, 2, rows * columns)
        for index, head in enumerate(heads):
            np.testing.assert_allclose(
                scores[index], (features @ head.classes[number]).T, rtol=1e-4, atol=1e-4
            )


def test_a_head_that_knows_an_object_finds_its_box():
    """Where a map says what is there, the detector's best box is that of the object."""
    grid = GRIDS[1]
    boxes = np.array([[16, 8, 56, 40]], np.float32)
    owner = owners(boxes, grid, 64, 64)
    values = np.zeros((8, 8, 5), np.float32)
    for row, column in np.argwhere(owner == 0):
        x, y = (np.array([[column], [row]]) + 0.5) * grid.stride
        values[row, column] = [1, *box_targets(boxes, x, y, grid.stride)[0]]
    classes, box_head = np.zeros((6, 1), np.float32), np.zeros((6, 4), np.float32)
    classes[0] = 1
    box_head[1:5] = np.eye(4)
    head = Head(classes=(classes,), boxes=(box_head,))
    [found] = Detector([head], [grid], [5], [8])([values], 64, 64)
    np.testing.assert_allclose(found.boxes, boxes, atol=1e-3)
    np.testing.assert_allclose(found.scores, [1])


# Precision.


def detections(boxes, scores, labels):
    return Detections(
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=np.array(scores, np.float32),
        labels=np.array(labels, np.int64),
    )


NOTHING_FOUND = detections([], [], [])


def some_truth(seed, pictures=9, classes=3):
    """Objects, and detections near some of them."""
    generator = np.random.default_rng(seed)
    boxes, labels, found = [], [], []
    for _ in range(pictures):
        count = int(generator.integers(0, 5))
        own = some_boxes(generator, count)
        kind = generator.integers(0, classes - 1, count)
        boxes.append(own)
        labels.append(kind.astype(np.int32))
        near = own + generator.normal(scale=3, size=own.shape)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2])
        others = some_boxes(generator, 2)
        other_kinds = generator.integers(0, classes, 2)
        scores = generator.random(count + 2)
        order = np.argsort(-scores)
        found.append(
            detections(
                np.vstack([near, others])[order],
                scores[order],
                np.concatenate([kind, other_kinds])[order],
            )
        )
    return boxes, labels, found


def pycocotools_precision(boxes, labels, found, classes):
    """AP, AP50 and AP by class, all by stock pycocotools from dicts."""
    annotations, results = [], []
    for picture, (own, kinds) in enumerate(zip(boxes, labels, strict=True)):
        for (x1, y1, x2, y2), kind in zip(own.tolist(), kinds.tolist(), strict=True):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=picture,
                    category_id=kind,
                    bbox=[x1, y1, x2 - x1, y2 - y1],
                    area=(x2 - x1) * (y2 - y1),
                    iscrowd=0,
                )
            )
    for picture, item in enumerate(found):
        for (x1, y1, x2, y2), score, kind in zip(
            item.boxes.tolist(), item.scores.tolist(), item.labels.tolist(), strict=True
        ):
            results.append(
                dict(
                    image_id=picture,
                    category_id=kind,
                    bbox=[x1, y1, x2 - x1, y2 - y1],
                    score=score,
                )
            )
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = dict(
            info={},
            images=[dict(id=picture) for picture in range(len(boxes))],
            categories=[dict(id=kind) for kind in range(classes)],
            annotations=annotations,
        )
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    table = evaluation.eval['precision'][:, :, :, 0, -1]
    by_class = [
        values[values > -1].mean() if (values > -1).any() else np.nan
        for values in table.transpose(2, 0, 1)
    ]
    return evaluation.stats[0], evaluation.stats[1], by_class


def test_precision_of_a_case_made_by_hand():
    # Of two objects, the better detection finds one exactly; the worse one finds nothing.
    truth = Truth(
        [np.array([[0, 0, 10, 10], [50, 50, 60, 60]], np.float32)], [np.array([0, 0], np.int32)], 1
    )
    found = detections([[0, 0, 10, 10], [20, 20, 30, 30]], [0.9, 0.8], [0, 0])
    result = truth.precision([found])
    # 51 of the 101 recall levels up to .5 have precision 1.
    assert result.ap == result.ap50 == pytest.approx(51 / 101)
    assert result.without.shape == (0,)


@pytest.mark.parametrize('seed', range(4))
def test_precision_is_that_of_stock_pycocotools_and_without_a_block_that_of_the_rest(seed):
    boxes, labels, found = some_truth(seed)
    truth = Truth(boxes, labels, 3)
    blocks = [np.array([0, 1]), np.array([8, 4]), np.array([3])]
    result = truth.precision(found, blocks)
    ap, ap50, by_class = pycocotools_precision(boxes, labels, found, 3)
    assert 0 < ap < ap50 <= 1
    assert result.ap == pytest.approx(ap) and result.ap50 == pytest.approx(ap50)
    np.testing.assert_allclose(result.by_class, by_class)
    assert np.isnan(result.by_class[2])

    for block, without in zip(blocks, result.without, strict=True):
        rest = [picture for picture in range(9) if picture not in block]
        _, expected, _ = pycocotools_precision(
            *([part[i] for i in rest] for part in (boxes, labels, found)), 3
        )
        assert without == pytest.approx(expected)
    # Asking once more changes nothing.
    again = truth.precision(found, blocks)
    np.testing.assert_array_equal(again.without, result.without)
    assert again.ap == result.ap


def test_where_nothing_is_found_or_to_be_found_precision_is_0():
    boxes, labels, found = some_truth(0)
    everything = np.arange(9)
    silent = Truth(boxes, labels, 3).precision([NOTHING_FOUND] * 9, [everything[:3], everything])
    assert silent.ap == silent.ap50 == 0
    np.testing.assert_array_equal(silent.without, [0, 0])
    empty = [np.empty((0, 4), np.float32)] * 9, [np.empty(0, np.int32)] * 9
    nothing = Truth(*empty, 3).precision(found, [everything[:3]])
    assert nothing.ap == nothing.ap50 == 0 and np.isnan(nothing.by_class).all()
    np.testing.assert_array_equal(nothing.without, [0])


# Folds and blocks.

names = st.lists(st.sampled_from('abcdefghijkl'), min_size=1, max_size=60)


@given(names, st.integers(1, 12))
def test_blocks_are_of_whole_scenes_in_their_order(scenes, count):
    block = scene_blocks(scenes, len(scenes), count)
    assert block.dtype == np.int64 and block.shape == (len(scenes),)
    np.testing.assert_array_equal(np.unique(block), np.arange(block.max() + 1))
    assert block.max() < count
    if len(set(scenes)) > 1:
        of_scene = {scene: set(block[np.array(scenes) == scene]) for scene in dict.fromkeys(scenes)}
        assert all(len(blocks) == 1 for blocks in of_scene.values())
        in_order = [blocks.pop() for blocks in of_scene.values()]
        assert in_order == sorted(in_order)


@given(st.integers(1, 200), st.integers(1, 12))
def test_blocks_without_scenes_are_stretches_of_equal_size(samples, count):
    block = scene_blocks(None, samples, count)
    assert (np.diff(block) >= 0).all() and block.max() + 1 == min(count, samples)
    sizes = np.bincount(block)
    assert sizes.max() - sizes.min() <= 1


@given(seeds, st.integers(2, 80), st.integers(2, 40), st.integers(0, 12))
def test_folds_share_neither_groups_nor_near_duplicates(seed, samples, count, pairs):
    generator = np.random.default_rng(seed)
    groups = generator.integers(0, count, samples)
    alike = generator.integers(0, samples, (pairs, 2))
    fold = cross_folds(groups, alike, np.random.default_rng(seed))
    again = cross_folds(groups, alike, np.random.default_rng(seed))
    np.testing.assert_array_equal(fold, again)
    assert fold.dtype == np.int64
    np.testing.assert_array_equal(np.unique(fold), np.arange(fold.max() + 1))
    if len(set(groups)) == 1:
        return
    for group in np.unique(groups):
        assert len(set(fold[groups == group])) == 1
    assert fold.max() > 0

    # What hangs together by groups and near-duplicates.
    parent = groups.copy()
    for _ in range(samples):
        for one, other in alike:
            low = min(parent[one], parent[other])
            parent[np.isin(parent, [parent[one], parent[other]])] = low
    together = np.bincount(parent).max() > samples / 2
    if not together:
        assert (fold[alike[:, 0]] == fold[alike[:, 1]]).all()


def test_folds_are_of_about_equal_size():
    generator = np.random.default_rng(0)
    fold = cross_folds(np.repeat(np.arange(40), 5), np.empty((0, 2), np.int64), generator)
    np.testing.assert_array_equal(np.bincount(fold), [40] * 5)


def test_a_set_of_one_group_is_folded_by_samples():
    alike = np.array([[0, 9], [3, 4]])
    fold = cross_folds(np.zeros(20, np.int64), alike, np.random.default_rng(0))
    assert np.bincount(fold).tolist() == [4] * 5
    assert (fold[alike[:, 0]] == fold[alike[:, 1]]).all()
