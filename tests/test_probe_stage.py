"""The probe in a run: its cells, losses and curve, and the networks that it looks through."""

import json
import os
import signal
from pathlib import Path
from unittest import mock

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from shared_work import do_pieces, do_work
from test_datasets import config_of
from test_faults import digests
from test_features_embedders import tiny_clip  # noqa: F401
from test_ranks import in_processes

from adadedup_mm.base.errors import UserError
from adadedup_mm.datasets import read_pool
from adadedup_mm.feedback import Gaps
from adadedup_mm.images import Reader
from adadedup_mm.images.training import training_reader
from adadedup_mm.probe import OfflineBackbone, OpenCLIPBackbone, TimmBackbone, collect, predict
from adadedup_mm.probe.cells import GRIDS
from adadedup_mm.probe.collect import cell_shards, look_at, read_cells, read_input
from adadedup_mm.probe.curve import WHOLE
from adadedup_mm.probe.detect import Detector
from adadedup_mm.probe.fit import cross_fitted_losses
from adadedup_mm.probe.pictures import pictures_of
from adadedup_mm.probe.stage import ProbeStages
from adadedup_mm.proxy.stage import ProxyStages
from adadedup_mm.pruning.measure import measure_curve
from adadedup_mm.pruning.prune import prune
from adadedup_mm.registry import BACKBONES
from adadedup_mm.settings.options import resolve_options
from adadedup_mm.stages import StageStore
from adadedup_mm.strategies import adadedup
from adadedup_mm.strategies.run import Run

HEIGHT, WIDTH = 64, 96
FOUR = dict(type='SphericalKMeans', num_clusters=4)
CLASSES = ('red', 'green')
COLOURS = ((220, 30, 30), (30, 200, 40))


class Means:
    """A backbone of a test: mean colours and their squares, at strides 8 and 16."""

    side = None
    strides = (8, 16)
    channels = (6, 6)

    @property
    def key(self):
        return dict(type='Means')

    def maps(self, images):
        levels = images.astype(np.float32) / 255
        maps = []
        for stride in self.strides:
            count, height, width, _ = levels.shape
            cells = levels.reshape(count, height // stride, stride, width // stride, stride, 3)
            means = cells.mean(axis=(2, 4))
            maps.append(np.concatenate([means, means**2], axis=-1))
        return maps


BACKBONES.register_module(name='MeansOfProbeTest', module=Means, force=True)


def draw(path, boxes, labels, seed, **options):
    """A noisy picture with rectangles."""
    pixels = np.random.default_rng(seed).integers(80, 120, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for (x, y, width, height), label in zip(boxes, labels, strict=True):
        pixels[y : y + height, x : x + width] = COLOURS[label]
    Image.fromarray(pixels).save(path, **options)


def make_set(root, name='train', count=24, seed=0, per_scene=4, with_boxes=True):
    """A COCO folder of pictures in pairs of near-duplicates; returns its dataset dict."""
    folder = root / name
    folder.mkdir(parents=True)
    images, annotations = [], []
    for number in range(count):
        generator = np.random.default_rng([seed, number // 2])
        labels = generator.integers(0, 2, 2).tolist()
        corner = generator.integers([0, 0], [WIDTH - 40, HEIGHT - 30], (2, 2))
        side = generator.integers(12, 28, (2, 2))
        boxes = np.hstack([corner, side]).tolist()
        draw(folder / f'{number}.png', boxes, labels, [seed, number])
        images.append(dict(id=number, file_name=f'{number}.png', height=HEIGHT, width=WIDTH))
        if per_scene:
            images[-1]['scene'] = f'scene {number // per_scene}'
        for box, label in zip(boxes, labels, strict=True) if with_boxes else ():
            annotations.append(
                dict(
                    id=len(annotations),
                    image_id=number,
                    category_id=label,
                    bbox=box,
                    area=box[2] * box[3],
                    iscrowd=0,
                )
            )
    content = dict(
        categories=[dict(id=label, name=name) for label, name in enumerate(CLASSES)],
        images=images,
        annotations=annotations,
    )
    (root / f'{name}.json').write_text(json.dumps(content))
    return dict(
        type='CocoDataset',
        data_root=f'{root}/',
        ann_file=f'{name}.json',
        data_prefix=dict(img=f'{name}/'),
        metainfo=dict(classes=CLASSES),
        pipeline=[dict(type='LoadImageFromFile')],
    )


def make_config(dataset, val=None, **options):
    base = dict(
        keep_ratio=0.5,
        embedder=dict(type='PixelEmbedder'),
        probe=dict(backbone=dict(type='MeansOfProbeTest'), size=96),
    )
    config = config_of(dataset, adadedup=base | options)
    if val is not None:
        config.val_dataloader = dict(batch_size=1, dataset=dict(val, test_mode=True))
    return config


def run_of(config, work_dir):
    store = StageStore(work_dir / 'stages')
    return Run(config, resolve_options(config), store, *read_pool(config))


@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    """The dict of a training set of 24 pictures in 6 scenes; do not write into its folder."""
    return make_set(tmp_path_factory.mktemp('probe'))


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(collect, 'PIECE', 5)
    monkeypatch.setattr(predict, 'PIECE', 5)


def stage_files(work_dir, *names):
    return {
        path: digest
        for path, digest in digests(work_dir / 'stages').items()
        if path.parts[0] in names and path.name not in ('done.json', 'lock')
    }


# Cells and losses.


def probe_by(world, config, work_dir):
    """Cells and losses by some processes; their exit statuses."""

    pool, sources = read_pool(config)

    def probe(rank):
        store = StageStore(work_dir / 'stages', rank, world, poll=0.02)
        stages = Run(config, resolve_options(config), store, pool, sources).probe_stages
        learned = np.arange(24) % 3 > 0
        assert np.isfinite(stages.losses(learned)).all()

    return in_processes(world, probe)


def test_cells_and_losses_are_the_same_by_any_number_of_processes_and_after_an_interruption(
    coco, tmp_path, monkeypatch
):
    config = make_config(coco)
    for world in (1, 2):
        assert probe_by(world, config, tmp_path / str(world)) == [0] * world
    files = stage_files(tmp_path / '1', 'probe', 'probe_losses')
    assert len([path for path in files if path.name.startswith('cells_')]) == 5
    assert Path('probe_losses/loss.npy') in files
    assert stage_files(tmp_path / '2', 'probe', 'probe_losses') == files

    replace = os.replace

    def die_at_the_third_piece(source, target):
        replace(source, target)
        if Path(target).name == 'cells_00002.npz':
            os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(os, 'replace', die_at_the_third_piece)
        assert any(probe_by(2, config, tmp_path / 'killed'))
    assert not (tmp_path / 'killed/stages/probe/done.json').exists()
    killed = tmp_path / 'killed'
    assert probe_by(1, config, killed) == [0]
    assert stage_files(killed, 'probe', 'probe_losses') == files


def test_losses_are_higher_where_labels_are_wrong_and_copies_of_learned_pictures_are_easy(
    coco, tmp_path
):
    root = Path(coco['data_root'])
    content = json.loads((root / 'train.json').read_text())
    for annotation in content['annotations']:
        if annotation['image_id'] == 7:
            annotation['category_id'] = 1 - annotation['category_id']
    (tmp_path / 'wrong.json').write_text(json.dumps(content))
    config = make_config(dict(coco, ann_file=str(tmp_path / 'wrong.json')))
    for learned in (np.ones(24, bool), np.arange(24) % 2 == 0):
        losses = run_of(config, tmp_path / str(learned.sum())).probe_stages.losses(learned)
        assert losses.argmax() == 7 and losses.dtype == np.float32


def test_unreadable_pictures_have_no_cells_and_no_loss(tmp_path):
    dataset = make_set(tmp_path)
    for number in (3, 11):
        (tmp_path / f'train/{number}.png').write_bytes(b'nothing')
    (tmp_path / 'train/12.png').unlink()
    run = run_of(make_config(dataset), tmp_path / 'work')
    losses = run.probe_stages.losses(np.ones(24, bool))
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(losses)), [3, 11, 12])
    for grid in range(len(GRIDS)):
        seen = np.concatenate([rows.picture for rows in run.probe_stages.cells(grid)])
        np.testing.assert_array_equal(np.unique(seen), np.delete(np.arange(24), [3, 11, 12]))


def test_features_of_cells_are_those_of_the_picture_at_their_places(coco):
    config = make_config(coco)
    pool, sources = read_pool(config)
    pictures = pictures_of(pool, sources, 'front')
    boxes, labels = pictures.objects(0)
    maps, place = look_at(pictures.paths[0], Means(), training_reader(config), 192)
    assert (place.height, place.width, place.scale) == (128, 192, 2)
    assert [values.shape for values in maps] == [(16, 24, 6), (8, 12, 6)]
    # The colour in the middle of an object is the object's.
    x, y = ((boxes[-1, :2] + boxes[-1, 2:]) / 2 * place.scale).astype(int)
    red, green = maps[0][y // 8, x // 8, :2] * 255
    assert (red > green) == (labels[-1] == 0)


@pytest.mark.parametrize(
    ('size', 'shape', 'inside'),
    [((50, 100), (160, 320), (160, 320)), ((100, 37), (320, 128), (320, 118))],
)
def test_pictures_keep_their_shape_with_grey_beside_them(size, shape, inside, tmp_path):
    Image.new('RGB', size[::-1], (10, 20, 30)).save(tmp_path / 'a.png')
    for square in (False, True):
        place = read_input(str(tmp_path / 'a.png'), Reader(), 320, square)
        assert place.pixels.shape == ((320, 320, 3) if square else (*shape, 3))
        assert (place.height, place.width) == inside
        assert (place.pixels[: place.height, : place.width] == [10, 20, 30]).all()
        assert (place.pixels[place.height :] == 127).all()
        assert (place.pixels[:, place.width :] == 127).all()


def test_a_picture_as_flat_as_a_line_has_cells_and_may_be_looked_at(tmp_path):
    dataset = make_set(tmp_path, count=4)
    Image.new('RGB', (1920, 12)).save(tmp_path / 'train/0.png')
    stages = run_of(make_config(dataset), tmp_path / 'work').probe_stages
    assert np.isfinite(stages.losses(np.ones(4, bool))).all()
    heads = stages.heads(np.ones((2, 4), bool))
    maps, place = look_at(str(tmp_path / 'train/0.png'), Means(), Reader(), 96)
    found = Detector(heads, GRIDS, Means.channels, Means.strides)(maps, place.height, place.width)
    assert [len(item.scores) for item in found] == [0, 0]


def test_turned_pictures_match_their_boxes(tmp_path):
    """Labels are of pictures as the training sees them, which turns them by EXIF."""
    box = [60, 10, 24, 40]
    draw(tmp_path / 'plain.png', [box], [1], 0)
    stored = Image.open(tmp_path / 'plain.png').rotate(90, expand=True)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    stored.save(tmp_path / 'turned.png', exif=exif)
    plain, turned = (
        look_at(str(tmp_path / f'{name}.png'), Means(), Reader(), 96)
        for name in ('plain', 'turned')
    )
    for one, other in zip(plain[0], turned[0], strict=True):
        np.testing.assert_array_equal(one, other)
    ignoring = Reader('color_ignore_orientation')
    _, place = look_at(str(tmp_path / 'turned.png'), Means(), ignoring, 96)
    assert (place.height, place.width) == (96, 64)


def test_pieces_can_be_done_in_any_order(coco, tmp_path):
    config = make_config(coco)
    pool, sources = read_pool(config)
    pictures = pictures_of(pool, sources, 'front')
    shards = cell_shards(pictures, Means(), training_reader(config), 96, GRIDS)
    do_work(shards, tmp_path / 'one')
    do_pieces(shards, tmp_path / 'other', [4, 1])
    do_work(shards, tmp_path / 'other', world=3)
    assert digests(tmp_path / 'one') == digests(tmp_path / 'other')
    rows = list(read_cells(tmp_path / 'one', len(shards.files), 0))
    assert [len(np.unique(piece.picture)) for piece in rows] == [5, 5, 5, 5, 4]


def key_of(config, tmp_path):
    run = run_of(config, tmp_path / 'work')
    _ = run.probe_stages.cells
    return run.ledger.used['probe']


def test_a_changed_box_or_picture_is_looked_at_again_and_nothing_else(tmp_path):
    dataset = make_set(tmp_path, count=6)
    config = make_config(dataset)
    key = key_of(config, tmp_path)
    with mock.patch.object(Means, 'maps', side_effect=AssertionError('looked again')):
        assert key_of(config, tmp_path) == key
        assert key_of(make_config(dataset, keep_ratio=0.3, seed=4), tmp_path) == key

    content = json.loads((tmp_path / 'train.json').read_text())
    content['annotations'][0]['bbox'][2] += 1
    (tmp_path / 'train.json').write_text(json.dumps(content))
    looks = mock.patch.object(Means, 'maps', side_effect=RuntimeError('looks'))
    with looks, pytest.raises(RuntimeError, match='looks'):
        key_of(config, tmp_path)
    moved = key_of(config, tmp_path)
    assert moved != key

    draw(tmp_path / 'train/0.png', [], [], 99)
    assert key_of(config, tmp_path) not in (key, moved)
    other = make_config(dataset, probe=dict(backbone=dict(type='MeansOfProbeTest'), size=64))
    assert key_of(other, tmp_path) != key_of(config, tmp_path)


def test_a_set_without_boxes_says_so_in_a_line(tmp_path):
    dataset = make_set(tmp_path, count=4, with_boxes=False)
    dataset['pipeline'].append(dict(type='LoadEmptyAnnotations'))
    config = make_config(dataset)
    stages = run_of(config, tmp_path / 'work').probe_stages
    assert not stages.has_objects
    with pytest.raises(UserError, match='learns from labelled 2D boxes') as said:
        stages.losses(np.ones(4, bool))
    assert '\n' not in str(said.value)


def test_samples_without_labels_teach_nothing_and_have_no_loss(coco, tmp_path):
    config = make_config(coco)
    run = run_of(config, tmp_path / 'work')
    labelled = np.arange(24) % 4 > 0
    object.__setattr__(run.pool, 'labelled', labelled)
    stages, everything = run.probe_stages, np.ones(24, bool)
    losses = stages.losses(everything)
    np.testing.assert_array_equal(np.isnan(losses), ~labelled)
    np.testing.assert_array_equal(losses, stages.losses(labelled))
    one, other = stages.heads(np.stack([everything, labelled]))
    np.testing.assert_array_equal(one.classes, other.classes)
    fold = np.arange(24) // 4
    losses = stages.held_out_losses(everything, fold)
    np.testing.assert_array_equal(losses > 0, labelled)
    np.testing.assert_array_equal(losses, stages.held_out_losses(labelled, fold))


# Frames.


@pytest.mark.parametrize('views', ['all', 'front', ['CAM_BACK', 'CAM_FRONT'], ['CAM_BACK']])
def test_pictures_of_frames_are_those_of_the_chosen_cameras(views, tmp_path):
    """Frames of which the front camera sees a car, the one at the back a pedestrian."""
    pytest.importorskip('mmdet3d')
    from test_infos import CAMERAS, make_nuscenes

    config = make_nuscenes(tmp_path)
    pool, sources = read_pool(config)
    names = views
    if isinstance(views, str):
        names = dict(all=CAMERAS, front=['CAM_FRONT'])[views]
    pictures = pictures_of(pool, sources, views)
    assert len(pictures) == 6 * len(names)
    for picture, path in enumerate(pictures.paths):
        sample, place = divmod(picture, len(names))
        assert pictures.sample[picture] == sample and f'/{names[place]}/' in path
        assert path in pool.image_paths[sample]
        boxes, labels = pictures.objects(picture)
        [kind] = [pool.classes[label] for label in labels]
        assert kind == dict(CAM_FRONT='car', CAM_BACK='pedestrian')[names[place]]
        shown = 2 * sample + CAMERAS.index(names[place])
        np.testing.assert_array_equal(boxes, sources[0].objects.boxes[shown : shown + 1])

    options = dict(backbone=dict(type='MeansOfProbeTest'), size=96)
    embedder = dict(type='PixelEmbedder')
    config.adadedup = dict(embedder=embedder, views=views, probe=options)
    stages = run_of(config, tmp_path / 'work').probe_stages
    losses = stages.losses(np.ones(6, bool))
    assert losses.shape == (6,) and np.isfinite(losses).all()


def test_a_frame_is_as_hard_as_its_pictures_on_average(tmp_path):
    pytest.importorskip('mmdet3d')
    from test_infos import make_nuscenes

    config = make_nuscenes(tmp_path)
    options = dict(backbone=dict(type='MeansOfProbeTest'), size=96)
    config.adadedup = dict(embedder=dict(type='PixelEmbedder'), views='all', probe=options)
    stages = run_of(config, tmp_path / 'work').probe_stages
    losses = stages.losses(np.arange(6) < 4)
    of_pictures = cross_fitted_losses(
        stages.cells,
        len(GRIDS),
        sum(Means.channels),
        len(stages.pool.classes),
        np.repeat(np.arange(6) < 4, 2),
    )
    np.testing.assert_allclose(losses, of_pictures.reshape(6, 2).mean(axis=1), rtol=1e-6)


# In a pruning run.


def prune_with(config, work_dir):
    """What a run keeps, and its feedback as the manifest has it."""
    import pyarrow.parquet as pq

    prune(config, resolve_options(config), work_dir)
    table = pq.read_table(work_dir / 'samples.parquet')
    manifest = json.loads((work_dir / 'manifest.json').read_text())
    return table['kept'].to_numpy(), table, manifest


def no_proxy(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError('a proxy was asked for')

    for name in ('config', 'losses'):
        monkeypatch.setattr(ProxyStages, name, refuse if name == 'losses' else property(refuse))


@pytest.mark.parametrize('shrink', [True, False])
def test_the_probes_losses_decide_without_any_proxy(shrink, coco, tmp_path, monkeypatch):
    no_proxy(monkeypatch)
    feedback = dict(signal='probe', beta=2.0, shrink=shrink)
    config = make_config(
        coco,
        feedback=feedback,
        clusterer=FOUR,
        proxy=dict(config='missing.py'),
    )
    kept, table, manifest = prune_with(config, tmp_path / 'work')
    assert kept.sum() == 12 and 'probe_losses' in manifest['stages']
    assert not {'proxy', 'loss'} & set(manifest['stages'])
    assert np.isfinite(table['loss'].to_numpy()).all()


@pytest.fixture
def gaps_of(monkeypatch):
    """What the signals say about the clusters, to be set; who was asked comes in a list."""
    said, asked = {}, []

    def gaps_by(run, initial, layout, signal):
        asked.append(signal)
        clusters = run.clusters.max() + 1
        gap = np.zeros(clusters)
        gap[:2] = said[signal]
        gaps = Gaps(
            loss_kept=np.zeros(clusters),
            loss_pruned=gap,
            gap=gap,
            gap_se=np.full(clusters, 0.1),
            count=np.full(clusters, 3),
        )
        return gaps, np.zeros(len(run.pool), np.float32)

    monkeypatch.setattr(adadedup, '_gaps_by', gaps_by)
    monkeypatch.setattr(ProxyStages, 'config', None)
    monkeypatch.setattr(ProxyStages, 'usable', np.ones(24, bool))
    return said, asked


@pytest.mark.parametrize(
    ('signal', 'shrink', 'probe', 'expected'),
    [
        ('probe', True, (5, -5), ['probe']),
        ('proxy', True, (0.01, 0), ['proxy']),
        ('both', True, (0.01, 0), ['probe']),
        ('both', True, (5, -5), ['probe', 'proxy']),
        ('both', False, (0.01, 0), ['probe', 'proxy']),
    ],
)
def test_a_proxy_is_asked_where_the_signal_says_so_and_the_probe_finds_something(
    signal, shrink, probe, expected, coco, tmp_path, gaps_of
):
    said, asked = gaps_of
    said.update(probe=probe, proxy=(4, -4))
    feedback = dict(signal=signal, shrink=shrink, beta=2.0)
    run = run_of(make_config(coco, feedback=feedback, clusterer=FOUR), tmp_path / 'work')
    selection = adadedup.adadedup(run)
    assert asked == expected
    assert selection.signal == ('both' if len(asked) == 2 else asked[0])
    assert selection.kept.sum() == 12
    silent = signal == 'both' and expected == ['probe']
    assert any('no proxy was trained' in note for note in selection.notes) == silent
    if silent:
        np.testing.assert_array_equal(selection.kept, selection.without_feedback)


@pytest.mark.parametrize('gain', [0.3, 0.0, -0.3])
def test_thresholds_move_only_where_that_helps_in_cross_validation(
    gain, coco, tmp_path, gaps_of, monkeypatch
):
    said, _ = gaps_of
    said['probe'] = 5, -5
    config = make_config(coco, feedback=dict(signal='probe', beta=2.0), clusterer=FOUR)
    asked = []

    def held_out(self, kept, fold):
        asked.append(kept)
        noise = np.random.default_rng(0).normal(0, 0.01, 24)
        return 1 + noise - gain * (len(asked) == 2) - noise * (len(asked) == 2) * 0.5

    monkeypatch.setattr(ProbeStages, 'held_out_losses', held_out)
    selection = adadedup.adadedup(run_of(config, tmp_path / 'work'))
    np.testing.assert_array_equal(asked[0], selection.without_feedback)
    assert (selection.kept == selection.without_feedback).all() == (gain <= 0)
    assert any('does not help' in note for note in selection.notes) == (gain <= 0)
    if gain > 0:
        np.testing.assert_array_equal(selection.kept, asked[1])
    else:
        assert not selection.shift.any()


# The curve.


def curve_of(config, work_dir, strategies=('random', 'clip_dedup'), ratios=(0.25, 0.5), **options):
    return measure_curve(config, resolve_options(config), work_dir, strategies, ratios, **options)


def plain(curve):
    return [vars(point) for point in curve.points]


def test_a_curve_is_measured_on_the_validation_set(coco, tmp_path):
    val = make_set(tmp_path, 'val', count=12, seed=5)
    config = make_config(coco, val)
    curve = curve_of(config, tmp_path / 'work', seeds=2)
    assert 'validation set' in curve.validation and '12 images' in curve.validation
    assert curve.samples == 24 and curve.measure == 'AP50'
    assert [(point.strategy, point.keep_ratio, point.samples) for point in curve.points] == [
        ('random', 0.25, 6),
        ('random', 0.25, 6),
        ('random', 0.5, 12),
        ('random', 0.5, 12),
        ('clip_dedup', 0.25, 6),
        ('clip_dedup', 0.5, 12),
        (WHOLE, 1.0, 24),
    ]
    assert curve.blocks == 3
    # Rectangles in two colours are easily learned.
    assert curve.points[-1].quality > 0.25
    assert curve.points[-1].quality > min(point.quality for point in curve.points)

    with mock.patch.object(Means, 'maps', side_effect=AssertionError('looked again')):
        assert plain(curve_of(config, tmp_path / 'work', seeds=2)) == plain(curve)
    assert plain(curve_of(config, tmp_path / 'anew', seeds=2)) == plain(curve)


def test_other_pictures_or_boxes_of_the_validation_set_are_measured_anew(coco, tmp_path):
    config = make_config(coco, make_set(tmp_path, 'val', count=6, seed=5))
    first = curve_of(config, tmp_path / 'work', ['random'], [0.5], seeds=1)
    assert first.points[-1].quality > 0.25
    for number in range(6):
        draw(tmp_path / f'val/{number}.png', [], [], number)
    second = curve_of(config, tmp_path / 'work', ['random'], [0.5], seeds=1)
    assert second.points[-1].quality < 0.1


@pytest.mark.parametrize('per_scene', [4, 24, 0])
def test_without_a_validation_set_a_curve_is_cross_validated(per_scene, tmp_path):
    """By scenes; by clusters where there is one scene alone, or none known."""
    config = make_config(
        make_set(tmp_path, per_scene=per_scene),
        clusterer=dict(type='SphericalKMeans', num_clusters=6),
    )
    curve = curve_of(config, tmp_path / 'work', ['random', 'clip_dedup'], [0.5], seeds=1)
    kind = 'scene' if per_scene == 4 else 'cluster'
    assert f'cross-validation by {kind}' in curve.validation
    assert curve.points[-1].quality > 0.25
    again = curve_of(config, tmp_path / 'anew', ['random', 'clip_dedup'], [0.5], seeds=1)
    assert plain(again) == plain(curve)


def test_a_curve_goes_on_where_it_was_interrupted(coco, tmp_path):
    config = make_config(coco, make_set(tmp_path, 'val', count=12, seed=5))
    expected = plain(curve_of(config, tmp_path / 'whole', ['random'], [0.5], seeds=2))
    look, looks = Means.maps, []

    def interrupted_maps(self, images):
        looks.append(images)
        if len(looks) in (9, 27):
            raise KeyboardInterrupt
        return look(self, images)

    with mock.patch.object(Means, 'maps', interrupted_maps):
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                curve_of(config, tmp_path / 'work', ['random'], [0.5], seeds=2)
        again = curve_of(config, tmp_path / 'work', ['random'], [0.5], seeds=2)
    assert plain(again) == expected
    # Of the 24 and 12 pictures none is looked at again but those of the pieces that were lost.
    assert 36 < len(looks) <= 36 + 2 * 5


def test_a_strategy_that_trains_is_refused_in_a_line(coco, tmp_path):
    with pytest.raises(UserError, match='el2n trains detectors') as said:
        curve_of(make_config(coco), tmp_path / 'work', ['random', 'el2n'], [0.5])
    assert '\n' not in str(said.value)


def test_the_probes_own_feedback_is_measured_like_any_other(coco, tmp_path, monkeypatch):
    no_proxy(monkeypatch)
    config = make_config(
        coco, make_set(tmp_path, 'val', count=6, seed=5), feedback=dict(signal='proxy')
    )
    curve = curve_of(config, tmp_path / 'work', ['random', 'adadedup'], [0.5], seeds=1)
    assert [point.samples for point in curve.points] == [12, 12, 24]


# Backbones.


def some_images(side=None, count=2):
    shape = (side, side) if side else (64, 96)
    return np.random.default_rng(0).integers(0, 256, (count, *shape, 3), dtype=np.uint8)


@pytest.fixture
def random_weights(monkeypatch):
    """timm's models without their weights, the same ones every time."""
    create = timm.create_model

    def create_plain(*arguments, pretrained=False, **options):
        torch.manual_seed(0)
        return create(*arguments, pretrained=False, **options)

    monkeypatch.setattr(timm, 'create_model', create_plain)


def maps_of(backbone, images):
    return [np.asarray(values) for values in backbone.maps(images)]


def assert_maps_are_as_announced(backbone, images):
    maps = maps_of(backbone, images)
    count, height, width, _ = images.shape
    assert [values.shape for values in maps] == [
        (count, height // stride, width // stride, channels)
        for stride, channels in zip(backbone.strides, backbone.channels, strict=True)
    ]
    assert {values.dtype for values in maps} == {np.dtype(np.float32)}
    # An image's maps are its own.
    for together, alone in zip(maps, maps_of(backbone, images[1:]), strict=True):
        np.testing.assert_allclose(together[1:], alone, rtol=1e-3, atol=1e-3)
    return maps


def test_the_offline_backbone_has_maps_of_four_strides():
    backbone = OfflineBackbone()
    assert backbone.strides == [4, 8, 16, 32] and backbone.channels == [24, 40, 112, 320]
    assert backbone.side is None and backbone.key['type'] == 'OfflineBackbone'
    maps = assert_maps_are_as_announced(backbone, some_images())
    plain = OfflineBackbone()._load().eval()
    levels = torch.from_numpy(some_images()).permute(0, 3, 1, 2).float()
    mean = torch.tensor(backbone.mean).view(3, 1, 1)
    std = torch.tensor(backbone.std).view(3, 1, 1)
    with torch.inference_mode():
        expected = plain((levels - mean) / std)[1:]
    for ours, theirs in zip(maps, expected, strict=True):
        scale = float(theirs.abs().max())
        np.testing.assert_allclose(ours, theirs.permute(0, 2, 3, 1), atol=1e-4 * scale)


@pytest.mark.parametrize(
    ('model', 'strides', 'side'),
    [
        ('test_resnet', [4, 8, 16, 32], None),
        ('test_efficientnet', [4, 8, 16, 32], None),
        # With its channels last, of which there are as many as rows.
        ('test_mambaout', [4, 8, 16, 32], None),
        ('test_vit', [16], None),
        ('test_vit_relpos', [16], 160),
        ('test_maxvit', [4, 8, 16, 32], 160),
    ],
)
def test_timms_backbones_say_what_their_maps_are(model, strides, side, random_weights):
    backbone = TimmBackbone(model)
    assert backbone.strides == strides and backbone.side == side
    assert_maps_are_as_announced(backbone, some_images(side))
    assert backbone.key == dict(type='TimmBackbone', model=model, weights=None)


def test_weights_from_a_file_are_used_and_part_of_the_key(random_weights, tmp_path):
    torch.manual_seed(1)
    network = timm.create_model('test_resnet', features_only=True)
    for values in network.state_dict().values():
        values.copy_(torch.rand(values.shape)) if values.is_floating_point() else None
    torch.save(network.state_dict(), tmp_path / 'weights.pt')
    given = TimmBackbone('test_resnet', str(tmp_path / 'weights.pt'))
    assert given.key['weights'] and TimmBackbone('test_resnet').key != given.key
    one, *_ = maps_of(given, some_images())
    other, *_ = maps_of(TimmBackbone('test_resnet'), some_images())
    assert not np.allclose(one, other)
    torch.save(dict(conv=torch.zeros(3)), tmp_path / 'wrong.pt')
    wrong = TimmBackbone('test_resnet', str(tmp_path / 'wrong.pt'))
    with pytest.raises(UserError, match='do not fit') as said:
        wrong.maps(some_images())
    assert '\n' not in str(said.value)


def test_models_that_nobody_knows_or_that_have_no_maps_are_refused_in_a_line(monkeypatch):
    with pytest.raises(UserError, match='timm does not know') as said:
        TimmBackbone('resnet0')
    assert '\n' not in str(said.value)
    backbone = TimmBackbone('test_resnet')
    offline = mock.patch.object(timm, 'create_model', side_effect=OSError('no network'))
    with offline, pytest.raises(UserError, match='weights cannot be fetched') as said:
        backbone.maps(some_images())
    assert '\n' not in str(said.value)


def test_patches_of_open_clip_are_maps(tiny_clip):  # noqa: F811
    folder, model = tiny_clip
    backbone = OpenCLIPBackbone('tiny', str(folder / 'weights.pt'))
    assert backbone.side == 64 and list(backbone.strides) == [16]
    assert list(backbone.channels) == [48]
    [maps] = assert_maps_are_as_announced(backbone, some_images(64))
    transform = open_clip.image_transform(64, is_train=False)
    inputs = torch.stack([transform(Image.fromarray(image)) for image in some_images(64)])
    with torch.inference_mode():
        answers = model.visual.forward_intermediates(inputs, indices=1, intermediates_only=True)
    expected = answers['image_intermediates'][0].permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(maps, expected, atol=1e-3 * np.abs(expected).max())
    assert backbone.key['embedder'] == backbone.embedder.key


def test_a_backbone_of_a_fixed_size_works_in_a_run(coco, tmp_path, monkeypatch):
    monkeypatch.setattr(Means, 'side', 64)
    stages = run_of(make_config(coco), tmp_path / 'work').probe_stages
    assert stages.size == 64
    assert np.isfinite(stages.losses(np.ones(24, bool))).all()
