"""Can it be read? One answer in every room, and ``on_bad_image`` decides about the rest."""

import importlib.util
import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import TRANSFORMS
from PIL import Image, features
from pruning_runs import quick, run, samples  # noqa: F401

from adadedup_mm.cli.leakage import main as leakage_main
from adadedup_mm.cli.prune import main as prune_main
from adadedup_mm.datasets import read_pool
from adadedup_mm.features import BadImage, Transform, decode
from adadedup_mm.features.alike import share_of_same_features
from adadedup_mm.images import Reader, image_size, read_file, read_pixels, vanishes
from adadedup_mm.images.steps import failing_pictures_named
from adadedup_mm.images.training import reader_of, training_reader
from adadedup_mm.pruning.estimate import _first_readable, measure_rates
from adadedup_mm.report.thumbnails import make_thumbnail
from adadedup_mm.settings.load import load_config
from adadedup_mm.settings.options import resolve_options
from adadedup_mm.stages import StageStore
from adadedup_mm.strategies.needs import needs_of
from adadedup_mm.strategies.run import Run

ROOT = Path(__file__).parents[1]
SMALL = Transform(24, 24, squash=True)
PROXY = """
_base_ = '{root}/configs/proxy/faster_rcnn_tiny.py'
model = dict(neck=dict(out_channels=16), rpn_head=dict(in_channels=16, feat_channels=16),
             roi_head=dict(bbox_roi_extractor=dict(out_channels=16),
                           bbox_head=dict(in_channels=16, fc_out_channels=16)))
pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
            dict(type='Resize', scale=({side}, {side}), keep_ratio=True),
            {more} dict(type='PackDetInputs')]
train_dataloader = dict(batch_size=4, num_workers={workers}, dataset=dict(pipeline=pipeline))
test_dataloader = dict(dataset=dict(pipeline=pipeline))
train_cfg = dict(max_epochs=1)
"""
CONFIG = """
_base_ = ['{root}/configs/proxy/faster_rcnn_tiny.py', 'adadedup_mm::_base_/adadedup_offline.py']
adadedup = dict(keep_ratio=.5, embedder=dict(_delete_=True, type='PixelEmbedder'),
                proxy=dict(config='{folder}/proxy.py'),
                feedback=dict(signal='proxy'), {options})
train_dataloader = dict(dataset=dict(
    _delete_=True, type='CocoDataset', data_root='{folder}', ann_file='train.json',
    data_prefix=dict(img='images'), metainfo=dict(classes=('square', 'other')),
    filter_cfg=dict(filter_empty_gt=False), pipeline={pipeline}))
val_dataloader = dict(dataset=dict(
    type='CocoDataset', data_root='{folder}', ann_file='val.json',
    data_prefix=dict(img='images'), metainfo=dict(classes=('square', 'other')), pipeline=[]))
test_dataloader = None
"""


def picture(seed, height=48, width=64):
    """Coloured clouds; all seeds differ."""
    rng = np.random.default_rng(seed)
    return cv2.resize(
        rng.integers(0, 256, (5, 6, 3), dtype=np.uint8),
        (width, height),
        interpolation=cv2.INTER_CUBIC,
    )


def gif(path):
    Image.fromarray(picture(1)).save(path, 'GIF')


def avif(path):
    Image.fromarray(picture(2)).save(path, 'AVIF' if features.check('avif') else 'TGA')


def float_tiff(path):
    Image.fromarray(picture(3)[..., 0].astype(np.float32) / 255).save(path, 'TIFF')


def tiff_of_32_bits(path):
    Image.fromarray(picture(4)[..., 0].astype(np.int32) * 1000).save(path, 'TIFF')


def empty(path):
    path.touch()


def text(path):
    path.write_text('<html>404</html>')


def folder(path):
    path.mkdir()


def pipe(path):
    os.mkfifo(path)


def long_strip(path):
    Image.new('RGB', (3000, 2), 'red').save(path, 'PNG')


def thin_strip(path):
    Image.new('L', (1, 5000), 90).save(path, 'JPEG')


def truncated(path):
    Image.fromarray(picture(5)).save(path, 'JPEG')
    path.write_bytes(path.read_bytes()[:-200])


def missing(path):
    pass


BAD = [
    gif,
    avif,
    float_tiff,
    tiff_of_32_bits,
    empty,
    text,
    folder,
    pipe,
    long_strip,
    thin_strip,
    truncated,
    missing,
]


def make(root, bad=(), count=16, options='', pipeline=(), more='', side=96, workers=0):
    """Good pictures in pairs of near-equal ones, and bad ones; returns the config and the bad ones'
    sample ids."""
    (root / 'images').mkdir(parents=True)
    images, annotations = [], []
    for i in range(count + len(bad)):
        path = root / f'images/{i:03}.jpg'
        if i < count:
            Image.fromarray(picture(i // 2 + 100) // 2 + i % 2).save(path, 'PNG')
        else:
            bad[i - count](path)
        images.append(dict(id=i, file_name=path.name, height=48, width=64))
        annotations.append(
            dict(id=i, image_id=i, category_id=i % 2, bbox=[5, 5, 20, 20], area=400, iscrowd=0)
        )
    categories = [dict(id=i, name=name) for i, name in enumerate(('square', 'other'))]
    for name, chosen in (('train', images), ('val', images[:2] + images[-3:])):
        ids = {image['id'] for image in chosen}
        content = dict(
            images=chosen,
            categories=categories,
            annotations=[item for item in annotations if item['image_id'] in ids],
        )
        (root / f'{name}.json').write_text(json.dumps(content))
    (root / 'proxy.py').write_text(PROXY.format(root=ROOT, side=side, more=more, workers=workers))
    config = root / 'config.py'
    config.write_text(
        CONFIG.format(root=ROOT, folder=root, options=options, pipeline=list(pipeline))
    )
    return config, [str(i) for i in range(count, count + len(bad))]


def notes(work_dir):
    return ' '.join(json.loads((work_dir / 'manifest.json').read_text())['notes'])


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as stop:
        prune_main([str(argument) for argument in arguments])
    error = capsys.readouterr().err
    [line] = [line for line in error.splitlines() if line.startswith('error: ')]
    assert stop.value.code == 2 and 'Traceback' not in error
    return line


@pytest.fixture(scope='module')
def mixed(tmp_path_factory):
    """A config with one bad picture of each kind, and the ids of these."""
    return make(tmp_path_factory.mktemp('mixed'), BAD)


STRATEGIES = ['adadedup', 'vlm_sse', 'loss_topk', 'random', 'uniform_stride', 'tfdp']


@pytest.mark.parametrize('strategy', STRATEGIES)
def test_bad_pictures_are_dropped_under_every_strategy(strategy, mixed, tmp_path):
    config, bad = mixed
    work_dir = run(
        config,
        tmp_path / 'run',
        '--strategy',
        strategy,
        '--cfg-options',
        'adadedup.on_bad_image=drop',
    )
    table = samples(work_dir).set_index('sample_id')
    assert table.kept.sum() == 14 and not table.kept[bad].any()
    assert set(table.reason[bad]) == {'unreadable image'}
    assert f'{len(bad)} images cannot be read by the training' in notes(work_dir)


@pytest.mark.parametrize('strategy', STRATEGIES)
def test_bad_pictures_are_refused_by_name_before_anything_else(
    strategy, mixed, tmp_path, capsys, monkeypatch
):
    def fail(*arguments, **options):
        raise AssertionError('too late')

    monkeypatch.setattr('adadedup_mm.features.baselines.PixelEmbedder.encode', fail)
    monkeypatch.setattr(
        'adadedup_mm.pruning.estimate.time_images', lambda *arguments, **options: (0.0, 8)
    )
    monkeypatch.setattr('adadedup_mm.strategies.trainings.train_proxy', fail)
    config, bad = mixed
    line = refused(
        capsys,
        config,
        '--work-dir',
        tmp_path / 'run',
        '--strategy',
        strategy,
        '--cfg-options',
        'adadedup.on_bad_image=error',
    )
    assert f'{len(bad)} of 28 images cannot be read' in line and '016.jpg (a GIF image' in line


@pytest.mark.parametrize('strategy', ['adadedup', 'clip_dedup', 'vlm_sse', 'el2n'])
def test_bad_pictures_are_kept_and_named_and_the_proxy_does_without_them(strategy, mixed, tmp_path):
    config, bad = mixed
    work_dir = run(config, tmp_path / 'run', '--strategy', strategy, '--keep-ratio', 0.7)
    table = samples(work_dir).set_index('sample_id')
    assert table.kept.sum() == 20 and table.kept[bad].all()
    assert set(table.reason[bad]) == {'unreadable image'}
    assert '016.jpg (a GIF image' in notes(
        work_dir
    ) and '12 of their 12 samples were kept' in notes(work_dir)
    if strategy == 'adadedup':
        assert table.loss[bad].isna().all() and table.loss.drop(bad).notna().all()


def test_strategies_that_look_at_no_picture_read_none_unless_they_are_asked_to(mixed, tmp_path):
    work_dir = run(mixed[0], tmp_path / 'run', '--strategy', 'random')
    assert 'cannot be read' not in notes(work_dir) and not list(
        (work_dir / 'stages').glob('*/features.npy')
    )


def test_a_dry_run_and_leakage_count_them_too(mixed, tmp_path, capsys):
    config, _ = mixed
    prune_main([str(config), '--work-dir', str(tmp_path / 'run'), '--dry-run'])
    assert '12 images cannot be read by the training' in ' '.join(capsys.readouterr().out.split())
    leakage_main([str(config), '--work-dir', str(tmp_path / 'leakage')])
    summary = json.loads((tmp_path / 'leakage/leakage/summary.json').read_text())
    assert summary['splits'][0]['unreadable'] == 3


def test_the_proxy_is_probed_on_readable_samples_of_every_inner_dataset(mixed, tmp_path):
    """Bad pictures first, and a second dataset beyond the first few samples."""
    config = load_config(mixed[0])
    data = config.train_dataloader.dataset
    reversed_file = tmp_path / 'reversed.json'
    content = json.loads(Path(data.data_root, 'train.json').read_text())
    content['images'].reverse()
    reversed_file.write_text(json.dumps(content))
    copies = tmp_path / 'copies'
    copies.symlink_to(data.data_root)
    config.train_dataloader.dataset = dict(
        type='ConcatDataset',
        datasets=[dict(data, ann_file=str(reversed_file)), dict(data, data_root=f'{copies}/')],
    )
    config.adadedup.on_bad_image = 'drop'
    pool, sources = read_pool(config)
    pruning = Run(config, resolve_options(config), StageStore(tmp_path / 'stages'), pool, sources)
    probe = measure_rates(pruning, needs_of(pruning, 0.5)).proxy
    assert probe.seconds_per_image > 0
    chosen = _first_readable(pruning, 6)
    assert chosen.sum() == 6 and not pruning.unreadable[chosen].any()
    assert np.bincount(pool.dataset_index[chosen]).tolist() == [3, 3]


def test_new_pictures_of_an_update_are_judged_alike(tmp_path):
    config, _ = make(tmp_path / 'data')
    old = run(config, tmp_path / 'old', '--strategy', 'clip_dedup')
    gif(tmp_path / 'data/images/new.jpg')
    content = json.loads((tmp_path / 'data/train.json').read_text())
    content['images'].append(dict(id=99, file_name='new.jpg', height=48, width=64))
    content['annotations'].append(dict(content['annotations'][0], id=99, image_id=99))
    (tmp_path / 'data/train.json').write_text(json.dumps(content))
    new = run(config, tmp_path / 'new', '--update', old)
    assert 'new.jpg (a GIF image' in notes(new)
    assert samples(new).set_index('sample_id').reason['99'] == 'unreadable image'


def test_what_the_trainings_own_reader_reads_is_good(tmp_path):
    """With Pillow as the decoder, a GIF is a picture like any other, for the proxy too."""
    loader = dict(type='LoadImageFromFile', imdecode_backend='pillow')
    config, _ = make(tmp_path / 'data', [gif, float_tiff], pipeline=[loader])
    work_dir = run(config, tmp_path / 'run')
    assert 'cannot be read' not in notes(work_dir)
    assert samples(work_dir).loss.notna().all()


def test_pictures_that_only_the_proxy_cannot_resize_are_left_out_of_its_work(tmp_path):
    def strip(path):
        Image.fromarray(picture(7, 3, 900)).save(path, 'PNG')

    config, [name] = make(tmp_path / 'data', [strip])
    content = json.loads((tmp_path / 'data/train.json').read_text())
    content['images'][-1] |= dict(height=3, width=900)
    (tmp_path / 'data/train.json').write_text(json.dumps(content))
    for strategy in ('adadedup', 'el2n'):
        work_dir = run(config, tmp_path / strategy, '--strategy', strategy)
        assert '1 samples are too long and thin for the Resize of the proxy' in notes(work_dir)
        assert 'unreadable image' not in set(samples(work_dir).reason)
    assert samples(tmp_path / 'adadedup').set_index('sample_id').loss.isna()[name]


def test_the_longest_pictures_that_can_be_resized_are_trained_on(tmp_path):
    def strip(path):
        Image.fromarray(picture(7, 5, 3000)).save(path, 'PNG')

    def upright(path):
        Image.fromarray(picture(8, 640, 1)).save(path, 'PNG')

    config, _ = make(tmp_path / 'data', [strip, upright], side=320)
    content = json.loads((tmp_path / 'data/train.json').read_text())
    for i, height, width in ((16, 5, 3000), (17, 640, 1)):
        content['images'][i] |= dict(height=height, width=width)
        content['annotations'][i]['bbox'] = [0, 1, min(width, 900), min(height - 1, 200)]
    (tmp_path / 'data/train.json').write_text(json.dumps(content))
    work_dir = run(config, tmp_path / 'run')
    assert 'cannot' not in notes(work_dir)
    assert samples(work_dir).loss.notna().all()


@pytest.fixture
def stumbling():
    @TRANSFORMS.register_module()
    class Stumbles:
        def __init__(self, over):
            self.over = over

        def __call__(self, results):
            if results['img_path'].endswith(self.over):
                raise IndexError('of three\nlines\n')
            return results

    yield
    TRANSFORMS.module_dict.pop('Stumbles')


@pytest.mark.parametrize('strategy', ['adadedup', 'el2n'])
@pytest.mark.parametrize('workers', [0, 1])
def test_a_picture_that_the_proxys_pipeline_fails_on_is_named_in_one_line(
    strategy, workers, stumbling, tmp_path, capsys
):
    config, _ = make(
        tmp_path / 'data', more="dict(type='Stumbles', over='005.jpg'),", workers=workers
    )
    line = refused(capsys, config, '--work-dir', tmp_path / 'run', '--strategy', strategy)
    assert line.startswith("error: the proxy's pipeline fails on ")
    assert '005.jpg (IndexError: of three lines): repair this picture' in line


def test_other_errors_are_not_blamed_on_a_picture():
    with pytest.raises(ZeroDivisionError), failing_pictures_named():
        raise ZeroDivisionError


def test_reading_does_not_depend_on_what_pillow_takes(tmp_path, monkeypatch):
    """16-bit grey is mode I before Pillow 10.3, and pictures above a limit are refused."""
    deep, colour = tmp_path / 'deep.png', tmp_path / 'colour.png'
    values = picture(1)[..., 0].astype(np.uint16) * 256
    cv2.imwrite(str(deep), values)
    cv2.imwrite(str(colour), picture(1))
    before = [decode(path, SMALL) for path in (deep, colour)]
    monkeypatch.setattr(Image, 'open', None)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 10)
    after = [decode(path, SMALL) for path in (deep, colour)]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert make_thumbnail(str(deep)) is not None
    assert np.array_equal(read_pixels(read_file(deep), Reader())[..., 0], picture(1)[..., 0])


@pytest.mark.skipif('FUZZ' not in os.environ, reason='takes 1 GB of memory')
def test_a_png_beyond_pillows_limit_is_read(tmp_path):
    rows = np.linspace(0, 255, 13_400).astype(np.uint8)
    cv2.imwrite(str(tmp_path / 'huge.png'), np.broadcast_to(rows[:, None], (13_400, 13_400)))
    seen = decode(tmp_path / 'huge.png', SMALL).float()
    assert torch.allclose(seen.mean((0, 2)), torch.linspace(5, 250, 24), atol=3)


def test_huge_pictures_are_made_smaller_first_with_next_to_no_difference(tmp_path, monkeypatch):
    path = tmp_path / 'image.png'
    cv2.imwrite(str(path), picture(3, 901, 1203))
    plain = decode(path, SMALL)
    monkeypatch.setattr(sys.modules['adadedup_mm.features.decode'], '_HUGE', 1000)
    difference = decode(path, SMALL).float() - plain.float()
    assert 0 < difference.abs().max() <= 12 and difference.abs().mean() < 2


def test_thumbnails_show_deep_and_floating_point_pictures_and_not_white(tmp_path):
    values = picture(1)[..., 0].astype(np.float32) / 255
    cv2.imwrite(str(tmp_path / 'float.tiff'), values)
    cv2.imwrite(str(tmp_path / 'deep.tiff'), (values * 900 + 3000).astype(np.uint16))
    for name in ('float.tiff', 'deep.tiff'):
        pixels = read_pixels(read_file(tmp_path / name), Reader('unchanged'))
        assert (pixels.min(), pixels.max()) == (0, 255)
        assert make_thumbnail(str(tmp_path / name), Reader('unchanged')) is not None
    assert make_thumbnail(str(tmp_path / 'float.tiff')) is None


def test_floating_point_pictures_may_hold_what_is_no_number(tmp_path):
    values = picture(1)[..., 0].astype(np.float32)
    values[:4] = np.array([np.nan, np.nan, np.inf, -np.inf])[:, None]
    for content, spread in ((values, True), (values[:2], False)):
        pixels = read_pixels(cv2.imencode('.tiff', content)[1].tobytes(), Reader('unchanged'))
        assert pixels.dtype == np.uint8 and (pixels.std() > 0) == spread


@pytest.mark.parametrize(
    'content, words',
    [
        (b'', 'empty'),
        (b'GIF89a', 'not an image'),
        (b'%!PS-Adobe-3.0 EPSF-3.0\n', '.'),
        (b'\x89PNG\r\n', '.'),
    ],
)
def test_reasons_are_one_line(content, words, tmp_path):
    (tmp_path / 'image').write_bytes(content)
    with pytest.raises(BadImage, match=words) as error:
        read_pixels(read_file(tmp_path / 'image'), Reader())
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    'height, width, longest, gone',
    [
        (2, 3000, 320, True),
        (3000, 2, 320, True),
        (5000, 1, 1333, True),
        (2, 3000, 1333, False),
        (1, 1, 320, False),
        (1, 640, 320, False),
        (1, 641, 320, True),
        (0, 0, 320, False),
        (480, 640, 320, False),
    ],
)
def test_a_shape_is_refused_just_where_mmcvs_resize_fails(height, width, longest, gone):
    import mmcv

    assert vanishes(np.array([height, width]), longest) == gone
    if height:
        image = np.zeros((height, width, 3), np.uint8)
        if gone:
            with pytest.raises(cv2.error):
                mmcv.imrescale(image, (longest, longest))
        else:
            assert min(mmcv.imrescale(image, (longest, longest)).shape[:2]) >= 1


@pytest.mark.parametrize(
    'pipeline, expected',
    [
        ([], Reader(longest=320)),
        ([dict(type='LoadImageFromFile')], Reader(longest=320)),
        (
            [dict(type='mmdet.LoadImageFromFile', color_type='unchanged')],
            Reader('unchanged', longest=320),
        ),
        (
            [
                dict(type='LoadAnnotations', imdecode_backend='pillow'),
                dict(type='LoadImageFromFile', imdecode_backend='tifffile'),
            ],
            Reader(backend='tifffile', longest=320),
        ),
        ([dict(type='LoadImageFromNDArray'), dict(type='PackDetInputs')], Reader(longest=320)),
        (
            [dict(type='LoadMultiViewImageFromFiles', to_float32=True)],
            Reader('unchanged', longest=320),
        ),
        (
            [dict(type='BEVLoadMultiViewImageFromFiles', color_type='color')],
            Reader(backend='pillow', longest=320),
        ),
        ([dict(type='LoadMultiViewImages')], Reader(longest=320)),
        ([dict(type='Resize', scale=(1333, 800), keep_ratio=True)], Reader(longest=320)),
        ([dict(type='Resize', scale=(160, 120), keep_ratio=True)], Reader(longest=160)),
        ([dict(type='Resize', scale=(160, 120))], Reader(longest=320)),
        (
            [
                dict(
                    type='RandomResize', scale=(1024, 1024), ratio_range=(0.1, 2.0), keep_ratio=True
                )
            ],
            Reader(longest=102),
        ),
        (
            [
                dict(
                    type='RandomChoice',
                    transforms=[
                        [
                            dict(
                                type='RandomChoiceResize',
                                scales=[(480, 1333), (200, 100)],
                                keep_ratio=True,
                            )
                        ]
                    ],
                )
            ],
            Reader(longest=200),
        ),
        ([dict(type='ResizeShortestEdge', scale=[100], max_size=150)], Reader(longest=150)),
        (
            [dict(type='Resize', scale=['a', None], keep_ratio=True), dict(type=dict)],
            Reader(longest=320),
        ),
    ],
)
def test_the_reader_is_that_of_the_training_pipeline(pipeline, expected):
    dataset = dict(type='CocoDataset', pipeline=pipeline)
    assert reader_of(dataset, 'mmdet3d') == expected
    mixed = dict(
        type='MultiImageMixDataset',
        dataset=dict(type='ConcatDataset', datasets=[dataset]),
        pipeline=[],
    )
    config = Config(dict(default_scope='mmdet3d', train_dataloader=dict(dataset=mixed)))
    assert training_reader(config) == expected


def test_usual_reading_leaves_the_keys_of_stages_alone():
    assert Reader(longest=320).key == {}
    assert Reader('unchanged', longest=160).key == dict(color_type='unchanged', longest=160)


def test_sizes_are_those_that_the_training_sees(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(1)).save(tmp_path / 'turned.jpg', exif=exif)
    Image.fromarray(picture(1)).save(tmp_path / 'plain.jpg')
    assert image_size(tmp_path / 'turned.jpg', Reader()) == (64, 48)
    assert image_size(tmp_path / 'turned.jpg', Reader('unchanged')) == image_size(
        tmp_path / 'plain.jpg', Reader()
    )
    gif(tmp_path / 'gif.jpg')
    with pytest.raises(BadImage):
        image_size(tmp_path / 'gif.jpg', Reader())


@pytest.mark.parametrize('kind', ['constant', 'blank', 'copies', 'saved again', 'distinct', 'few'])
def test_features_that_are_the_same_for_different_files_are_noticed_and_copies_are_not(
    kind, tmp_path
):
    rng = np.random.default_rng(0)
    count = 3 if kind == 'few' else 20
    paths = [(str(tmp_path / f'{i}.png'),) for i in range(count)]
    for i, (path,) in enumerate(paths):
        pixels = picture(0 if kind in ('copies', 'saved again') else i)
        pixels = np.full_like(pixels, i) if kind == 'blank' else pixels
        Image.fromarray(pixels).save(path, compress_level=i % 9 if kind == 'saved again' else 6)
    noise = rng.normal(size=(count, 8))
    rows = noise if kind == 'distinct' else 1 + noise / 1e4
    rows = rows * (kind != 'blank') / np.linalg.norm(rows, axis=1, keepdims=True)
    share = share_of_same_features(rows.astype(np.float32), np.ones(count, bool), paths, Reader())
    assert share == dict(constant=1, blank=1, distinct=0.05).get(kind, 0)


@pytest.mark.parametrize('blank', [True, False])
def test_a_run_says_that_nearly_all_features_are_the_same(blank, tmp_path, capsys):
    config, _ = make(tmp_path / 'data')
    for i, path in enumerate(sorted((tmp_path / 'data/images').iterdir())):
        # Pictures of next to no contrast in 16 bits are blank in 8; a copy is a copy.
        pixels = picture(i)[..., 0].astype(np.uint16) // 2 + 256 if blank else picture(0)
        path.write_bytes(cv2.imencode('.png', pixels)[1].tobytes())
    work_dir = run(config, tmp_path / 'run', '--strategy', 'clip_dedup')
    said = 'of the images are the same, although their files differ'
    assert (said in notes(work_dir)) == (said in capsys.readouterr().out) == blank
    assert ('are near-duplicates' in notes(work_dir)) != blank
    prune_main(
        [
            str(config),
            '--work-dir',
            str(tmp_path / 'other'),
            '--dry-run',
            '--strategy',
            'clip_dedup',
        ]
    )
    assert (said in ' '.join(capsys.readouterr().out.split())) == blank


@pytest.mark.skipif(importlib.util.find_spec('mmdet3d') is None, reason='frames need mmdet3d')
def test_views_of_frames_are_read_by_the_frames_loader(tmp_path):
    from adadedup_mm.cli.make_minidrive import main

    main([str(tmp_path / 'world'), '--scenes', '6', '--frames', '2', '--formats', 'nuscenes'])
    config = tmp_path / 'config.py'
    config.write_text(f"""
default_scope = 'mmdet3d'
train_dataloader = dict(batch_size=1, dataset=dict(
    type='NuScenesDataset', data_root='{tmp_path}/world/nuscenes/',
    ann_file='nuscenes_infos_train.pkl',
    metainfo=dict(classes=('car', 'truck', 'bus', 'pedestrian')),
    modality=dict(use_camera=True, use_lidar=False),
    data_prefix=dict(img='', **{{name: 'samples/' + name for name in (
        'CAM_FRONT', 'CAM_FRONT_LEFT', 'CAM_FRONT_RIGHT', 'CAM_BACK', 'CAM_BACK_LEFT',
        'CAM_BACK_RIGHT')}}),
    pipeline=[dict(type='LoadMultiViewImageFromFiles', color_type='unchanged')]))
adadedup = dict(keep_ratio=.5, strategy='clip_dedup', views='all',
    embedder=dict(type='PixelEmbedder'))
""")
    pool, _ = read_pool(Config.fromfile(config))
    gif(Path(pool.image_paths[1][3]))
    float_tiff(Path(pool.image_paths[2][4]))
    work_dir = run(config, tmp_path / 'run')
    # Unchanged is what reads floating point.
    reasons = samples(work_dir).reason
    assert [i for i, reason in enumerate(reasons) if reason == 'unreadable image'] == [1]
    assert 'a GIF image' in notes(work_dir)
