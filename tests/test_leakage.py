"""Near-duplicates between the training set and the other splits."""

import csv
import dataclasses
import json
import shutil
from html.parser import HTMLParser

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_pipeline import CONFIG, ROOT, config, prune_main  # noqa: F401

from adadedup_mm.base.errors import UserError
from adadedup_mm.cli.leakage import main
from adadedup_mm.leakage import find, similar_pairs
from adadedup_mm.settings.load import load_config
from adadedup_mm.settings.options import resolve_options
from adadedup_mm.vectors.rows import snap


def rows_of(seed, n, d=5, blanks=False):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, d)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    if blanks:
        rows[rng.random(n) < 0.2] = 0
        rows[rng.random(n) < 0.1] = np.nan
    return rows


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 40),
    st.integers(1, 60),
    st.floats(0.05, 1),
    st.integers(1, 6),
    st.booleans(),
)
def test_pairs_equal_those_of_the_full_matrix(seed, queries, anchors, threshold, most, blanks):
    left, right = rows_of(seed, queries, blanks=blanks), rows_of(seed + 1, anchors, blanks=blanks)
    left[0] = right[0]
    pairs = similar_pairs(left, right, threshold, most)
    full = snap(np.nan_to_num(left) @ np.nan_to_num(right).T)
    expected = []
    for i, row in enumerate(full):
        order = [j for j in np.lexsort((np.arange(anchors), -row)) if row[j] >= threshold]
        assert pairs.matches[i] == len(order)
        expected += [(i, j, row[j]) for j in order[:most]]
        if np.isfinite(left[i]).all() and left[i].any():
            directed = np.isfinite(right).all(1) & right.any(1)
            assert np.isclose(pairs.nearest[i], row[directed].max(initial=-1), atol=2e-6)
        else:
            assert np.isnan(pairs.nearest[i])
    found = list(zip(pairs.query, pairs.anchor, pairs.similarity, strict=True))
    assert [(i, j) for i, j, _ in found] == [(i, j) for i, j, _ in expected]
    assert np.allclose([s for *_, s in found], [s for *_, s in expected], atol=2e-6)


def test_pairs_do_not_depend_on_blocks_or_threads(monkeypatch):
    left, right = rows_of(0, 50), np.concatenate([rows_of(1, 90), rows_of(0, 50), rows_of(0, 50)])
    expected = similar_pairs(left, right, 0.5, 3)
    assert (expected.similarity[::3] == 1).all()
    monkeypatch.setattr('adadedup_mm.leakage.pairs.CHUNK', 7)
    monkeypatch.setattr('adadedup_mm.leakage.pairs.QUERIES', 4)
    for workers in (1, 3):
        pairs = similar_pairs(left, right, 0.5, 3, workers)
        for name in ('query', 'anchor', 'matches'):
            assert np.array_equal(getattr(pairs, name), getattr(expected, name))
        assert np.allclose(pairs.similarity, expected.similarity, atol=2e-6)


@pytest.fixture(scope='module')
def leaky(world, tmp_path_factory):
    """A config whose validation set holds five training images, two of them the very files."""
    root = tmp_path_factory.mktemp('leaky') / 'wörld & <b>'
    shutil.copytree(world, root)
    folder = root / 'coco/annotations'
    train = json.loads((folder / 'instances_train.json').read_text())['images']
    content = json.loads((folder / 'instances_val.json').read_text())
    for i, image in enumerate(content['images'][:5]):
        source = train[7 * i]['file_name']
        if i >= 2:
            shutil.copy(root / 'coco/images' / source, root / f'coco/images/<i>copy {i}.jpg')
            source = f'<i>copy {i}.jpg'
        image['file_name'] = source
    (folder / 'instances_val.json').write_text(json.dumps(content))
    file = root / 'config.py'
    file.write_text(
        CONFIG.format(root=ROOT, world=root)
        + '\ntest_dataloader = dict(dataset=dict(data_root=data_root))\n'
    )
    return file, content['images'], [train[7 * i]['id'] for i in range(5)]


def test_planted_pairs_are_found_and_shown(leaky, tmp_path, capsys):
    file, images, sources = leaky
    main([str(file), '--work-dir', str(tmp_path), '--threshold', '.9999'])
    printed = capsys.readouterr().out
    assert 'val and test' in printed and 'near-duplicates' in printed
    rows = pq.read_table(tmp_path / 'leakage/pairs.parquet').to_pylist()
    first = {row['sample_id']: row for row in rows if row['rank'] == 0}
    for image, source in zip(images[:5], sources, strict=True):
        row = first[str(image['id'])]
        assert row['similarity'] > 0.9999 and row['train_image_path'] and row['matches'] >= 1
        assert str(source) in [
            other['train_sample_id'] for other in rows if other['sample_id'] == row['sample_id']
        ]
    [split] = json.loads((tmp_path / 'leakage/summary.json').read_text())['splits']
    assert split['samples'] == len(images) and split['leaked'] == len(first) >= 5
    assert split['same_file'] == 2 and split['identical'] >= 5 and split['highest'] > 0.9999
    with (tmp_path / 'leakage/pairs.csv').open(newline='', encoding='utf-8') as lines:
        assert [row['sample_id'] for row in csv.DictReader(lines)] == [
            row['sample_id'] for row in rows
        ]


def test_the_page_escapes_names_and_asks_for_nothing_else(leaky, tmp_path):
    main([str(leaky[0]), '--work-dir', str(tmp_path), '--threshold', '.9999'])
    page = (tmp_path / 'leakage/leakage.html').read_text()
    tags = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag, attrs):
            tags.append((tag, dict(attrs)))

    Tags().feed(page)
    assert not {'i', 'b', 'script'} & {tag for tag, _ in tags}
    assert '&lt;i&gt;copy' in page
    sources = [attrs['src'] for tag, attrs in tags if tag == 'img']
    assert len(sources) >= 10 and all(source.startswith('data:') for source in sources)


def test_features_of_a_pruning_run_are_used_and_its_report_gets_a_section(leaky, tmp_path):
    prune_main([str(leaky[0]), '--work-dir', str(tmp_path), '--strategy', 'clip_dedup'])
    before = {
        path: path.stat().st_mtime_ns for path in tmp_path.rglob('*') if path.name != 'report.html'
    }
    assert 'id="leakage"' not in (tmp_path / 'report.html').read_text()
    main([str(leaky[0]), '--work-dir', str(tmp_path)])
    assert 'id="leakage"' in (tmp_path / 'report.html').read_text()
    assert not (tmp_path / 'leakage/stages/train').exists()
    assert {path: path.stat().st_mtime_ns for path in before if path != tmp_path} == {
        path: time for path, time in before.items() if path != tmp_path
    }
    (tmp_path / 'leakage/summary.json').write_text('{"splits": 3}')
    from adadedup_mm.cli.report import main as report_main

    with pytest.raises(SystemExit):
        report_main([str(tmp_path)])


def test_a_second_call_computes_no_features_again(leaky, tmp_path, monkeypatch):
    main([str(leaky[0]), '--work-dir', str(tmp_path)])
    first = (tmp_path / 'leakage/pairs.csv').read_bytes()
    monkeypatch.setattr('adadedup_mm.features.baselines.PixelEmbedder.encode', None)
    main([str(leaky[0]), '--work-dir', str(tmp_path)])
    assert (tmp_path / 'leakage/pairs.csv').read_bytes() == first


def test_a_set_compared_with_itself_leaks_altogether(leaky, tmp_path, capsys):
    file = leaky[0]
    main(
        [
            str(file),
            '--work-dir',
            str(tmp_path),
            '--threshold',
            '1',
            '--cfg-options',
            'adadedup.embedder.type=RandomEmbedder',
            'val_dataloader.dataset.ann_file=annotations/instances_train.json',
            'test_dataloader=None',
        ]
    )
    assert '100.0%' in capsys.readouterr().out


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['--threshold', '0'], '--threshold is 0'),
        (['--threshold', '1.5'], '--threshold is 1.5'),
        (
            ['--cfg-options', 'val_dataloader=None', 'test_dataloader=None'],
            'neither val_dataloader nor test_dataloader',
        ),
        (
            ['--cfg-options', 'val_dataloader=5', 'test_dataloader=None'],
            "no 'val_dataloader' with a 'dataset'",
        ),
        (
            ['--cfg-options', 'val_dataloader.dataset.ann_file=gone.json'],
            'gone.json does not exist',
        ),
        (
            ['--cfg-options', 'val_dataloader.dataset.data_prefix.img=gone/'],
            'of val_dataloader.dataset',
        ),
    ],
)
def test_wrong_input_gives_one_line_and_leaves_nothing(arguments, words, leaky, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main([str(leaky[0]), '--work-dir', str(tmp_path / 'run'), *arguments])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and words in error and 'train_dataloader' not in error
    assert not (tmp_path / 'run').exists()


def test_a_name_that_no_file_can_have_is_an_unreadable_image(leaky, tmp_path):
    folder = leaky[0].parent / 'coco/annotations'
    content = json.loads((folder / 'instances_val.json').read_text())
    content['images'][0]['file_name'] = 'a\0b.jpg'
    (folder / 'null.json').write_text(json.dumps(content))
    main(
        [
            str(leaky[0]),
            '--work-dir',
            str(tmp_path),
            '--cfg-options',
            'test_dataloader=None',
            'val_dataloader.dataset.ann_file=annotations/null.json',
        ]
    )
    [split] = json.loads((tmp_path / 'leakage/summary.json').read_text())['splits']
    assert (split['unreadable'], split['same_file']) == (1, 1)


def test_images_that_are_arrays_are_refused_in_one_line(tmp_path, capsys):
    pytest.importorskip('mmpretrain')
    pytest.importorskip('sklearn')
    with pytest.raises(SystemExit) as stop:
        main(
            [
                f'{ROOT}/configs/dynamic/resnet_digits.py',
                '--work-dir',
                str(tmp_path / 'run'),
                '--cfg-options',
                'adadedup.keep_ratio=.5',
            ]
        )
    assert stop.value.code == 2 and 'train_dataloader.dataset are arrays' in capsys.readouterr().err
    assert not (tmp_path / 'run').exists()


def test_splits_of_different_cameras_are_refused_in_one_line(leaky, tmp_path, monkeypatch):
    def with_cameras(settings, name):
        pool = read(settings, name)
        count = 2 if name == 'train' else 1
        return dataclasses.replace(
            pool,
            views=('A', 'B')[:count],
            image_paths=tuple(paths * count for paths in pool.image_paths),
        )

    read = find._read_split
    monkeypatch.setattr(find, '_read_split', with_cameras)
    loaded = load_config(leaky[0], {'adadedup.views': 'all'})
    with pytest.raises(UserError, match='1 cameras to compare, train has 2'):
        find.find_leakage(loaded, resolve_options(loaded), tmp_path / 'run')


def test_a_folder_that_cannot_be_made_gives_one_line(leaky, tmp_path, capsys):
    (tmp_path / 'file').write_text('')
    with pytest.raises(SystemExit):
        main([str(leaky[0]), '--work-dir', str(tmp_path / 'file')])
    assert 'choose another --work-dir' in capsys.readouterr().err


def test_two_runs_do_not_share_a_folder(leaky, tmp_path, capsys):
    import fcntl

    (tmp_path / 'leakage').mkdir()
    with open(tmp_path / 'leakage/lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(SystemExit):
            main([str(leaky[0]), '--work-dir', str(tmp_path)])
    assert 'in use' in capsys.readouterr().err
