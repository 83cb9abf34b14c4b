"""The report page: what it shows, what it survives, and that a browser draws it."""

import functools
import html
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from probe_curves import cctv

from adadedup_mm.base import words
from adadedup_mm.base.files import write_json, write_table
from adadedup_mm.cli.report import main
from adadedup_mm.probe.statistics import summarise
from adadedup_mm.report import build_report, plots
from adadedup_mm.report.examples import choose_clusters, group_by_partner
from adadedup_mm.report.pictures import MORE_ROOM, choose_sources
from adadedup_mm.report.sections import MAP_POINTS
from adadedup_mm.report.thumbnails import Thumbnail, make_thumbnail, make_thumbnails
from adadedup_mm.workdir.probe import write_curve
from adadedup_mm.workdir.tables import SAMPLES

ROOT = Path(__file__).parents[1]
CHROMIUM = next(
    filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None
)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason='needs Chromium')
HOSTILE = '<script>alert(1)</script>"\'><img src=x onerror=alert(2)>{{ 7*7 }}&amp;'


def write_images(folder: Path, count: int, prefix: str = 'frame') -> list[str]:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    paths = []
    for index in range(count):
        pixels = np.full((48, 64, 3), rng.integers(40, 200, 3), np.uint8)
        pixels[10:30, index % 40 : index % 40 + 12] = rng.integers(0, 255, 3)
        paths.append(str(folder / f'{prefix}{index:03d}.jpg'.replace('/', '_')))
        Image.fromarray(pixels).save(paths[-1])
    return paths


def write_run(
    folder: Path,
    paths: list[str],
    *,
    clusters: int = 6,
    keep_ratio: float = 0.5,
    features: bool = True,
    losses: bool = True,
    name: str = '',
    manifest: dict[str, Any] | None = None,
) -> Path:
    """A plausible work dir of one sample per path; ``name`` stands where names of users can."""
    rng = np.random.default_rng(1)
    n = len(paths)
    ids = [f'{name}{index:06d}' for index in range(n)]
    cluster = np.arange(n) % clusters
    # The first of every cluster is kept, so that each pruned sample has a partner.
    kept = np.arange(n) < max(round(keep_ratio * n), clusters)
    similarity = rng.uniform(0.8, 1, n)
    none = [None] * n
    samples = dict(
        sample_id=ids,
        image_paths=[[path] for path in paths],
        cluster=pa.array(cluster if features else np.full(n, -1), pa.int32()),
        order=pa.array(range(n), pa.int32()),
        similarity=pa.array(similarity if features else none, pa.float32()),
        partner_id=pa.array(
            [None if kept[i] or not features else ids[cluster[i]] for i in range(n)], pa.string()
        ),
        loss=pa.array(rng.gamma(2, 0.5, n) if losses else none, pa.float32()),
        kept=kept,
        reason=[('below the threshold' if keep else 'above the threshold') + name for keep in kept],
        partner_similarity=pa.array(
            np.where(kept | (not features), np.nan, similarity), pa.float32(), from_pandas=True
        ),
        label_suspect=losses & (np.arange(n) % 7 == 0),
        dataset=pa.array([0] * n, pa.int32()),
        scene=[f'{name}scene {i % 4}' for i in range(n)],
        map_x=pa.array(rng.normal(size=n) if features else none, pa.float32()),
        map_y=pa.array(rng.normal(size=n) if features else none, pa.float32()),
    )
    size, left = (
        np.bincount(cluster[chosen], minlength=clusters) for chosen in (np.arange(n), kept)
    )
    gap = (
        np.where(size > left, rng.normal(0.2, 0.2, clusters), np.nan)
        if losses
        else np.full(clusters, np.nan)
    )
    table = dict(
        cluster=pa.array(range(clusters), pa.int32()),
        size=size,
        kept_initial=left,
        kept=left,
        threshold=0.9 + 0.01 * np.arange(clusters) / clusters,
        loss_kept=gap * 0 + 1,
        loss_pruned=1 + gap,
        gap=pa.array(gap, from_pandas=True),
        gap_se=np.abs(gap) / 3,
        shift=np.zeros(clusters),
    )
    classes = {
        'class': [f'{name}car', f'{name}bus', f'{name}absent'],
        'instances': [12345, 30, 0],
        'instances_kept': [6789, 20, 0],
        'images': [n, 20, 0],
        'images_kept': [int(kept.sum()), 12, 0],
    }
    write_table(folder / 'samples.parquet', pa.table(samples))
    write_table(
        folder / 'clusters.parquet', pa.table(table) if features else pa.table(table).slice(0, 0)
    )
    write_table(folder / 'classes.parquet', pa.table(classes))
    write_json(
        folder / 'manifest.json',
        dict(
            adadedup_mm='1.2.3',
            versions={f'{name}torch': '2.1.2'},
            strategy=f'{name}adadedup',
            keep_ratio=keep_ratio,
            seed=5,
            samples=n,
            kept=int(kept.sum()),
            pruned=int((~kept).sum()),
            options={'strategy': name},
            inputs=[dict(path=f'data/{name}train.json', sha256='ab' * 32)],
            files=[
                dict(
                    input=f'data/{name}train.json',
                    output=f'annotations/{name}train.json',
                    records=n,
                    kept=int(kept.sum()),
                )
            ],
            stages={
                f'{name}features': dict(seconds=75.2, bytes=1_500_000),
                'clusters': dict(seconds=0.25, bytes=900),
            },
            seconds=80.0,
            break_even=dict(pruning_seconds=80.0, text=f'{name}Pays back after 0.4 trainings.'),
            notes=[f'{name}No duplicates found.'],
            gap_reliability=dict(split_half=0.42, signal_share=0.3, clusters=clusters),
            threshold_curve=[dict(keep_ratio=r / 10, threshold=0.6 + r / 25) for r in range(1, 11)]
            if features
            else [],
            started='2025-03-01T10:00:00+00:00',
            finished='2025-03-01T10:01:20+00:00',
        )
        | (manifest or {}),
    )
    return folder


@pytest.fixture(scope='module')
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_images(tmp_path_factory.mktemp('data') / 'images', 60)


@pytest.fixture
def run(tmp_path: Path, paths: list[str]) -> Path:
    return write_run(tmp_path / 'run', paths)


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ''
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def read(work_dir: Path) -> tuple[str, Elements]:
    page = build_report(work_dir).read_text(encoding='utf-8')
    return page, Elements(page)


def titles(elements: Elements) -> list[str]:
    return [
        attributes['href'][1:]
        for tag, attributes in elements.found
        if tag == 'a' and attributes['href']
    ]


def test_page_shows_the_figures_of_the_tables(run: Path) -> None:
    _, elements = read(run)
    text = ' '.join(elements.text.replace('\u00a0', ' ').split())
    for figure in (
        'Kept 30 of 60 samples',
        '50.0 %',
        '1 min 20 s',
        'Pays back after 0.4 trainings.',
        'No duplicates found.',
        '2025-03-01 10:01 UTC',
        'Keeping 50.0 % means a threshold of 0.800',
        '12,345',
        '6,789',
        '55.0 %',
        'correlate at 0.42',
        '30 % of the variance',
        'above the threshold',
        '1.5 MB',
        'ab' * 32,
        'annotations/train.json',
    ):
        assert figure in text, figure
    assert titles(elements) == [
        'overview',
        'curve',
        'clusters',
        'gaps',
        'classes',
        'scenes',
        'suspects',
        'map',
        'files',
    ]
    assert sorted(file.name for file in run.iterdir()) == [
        'classes.parquet',
        'clusters.parquet',
        'manifest.json',
        'report.html',
        'samples.parquet',
    ]


def test_the_curve_of_a_probe_is_shown_with_its_verdict(run: Path) -> None:
    write_curve(run, summarise(cctv(notes=(f'a note {HOSTILE}',))))
    page, elements = read(run)
    text = ' '.join(elements.text.replace('\u00a0', ' ').split())
    assert 'chosen by clip_dedup, no loss can be measured' in text
    assert 'python tools/prune.py CONFIG --keep-ratio 0.5 --strategy clip_dedup' in text
    assert '464 images of the validation set, 34 scenes' in text
    assert HOSTILE in elements.text and HOSTILE not in page
    assert titles(elements)[:2] == ['overview', 'quality']


def test_the_verdict_comes_first_with_the_command_that_trains(run: Path) -> None:
    found = dict(bound=0.97, share=0.01, highest=0.98)
    edit_manifest(run, near_duplicates=found)
    page, elements = read(run)
    assert page.index('class="verdict"') < page.index('class="tiles"')
    assert 'pruning removes distinct images here' in elements.text
    assert f'python tools/train.py {run}/config.py' in elements.text


def test_without_signal_the_most_pruned_clusters_come_first_and_are_open(
    tmp_path: Path, paths: list[str]
) -> None:
    silent = dict(gap_reliability=dict(signal_share=0.0))
    folder = write_run(tmp_path / 'run', paths, manifest=silent)
    table = pq.read_table(folder / 'clusters.parquet').to_pydict()
    table['size'][4] += 7
    write_table(folder / 'clusters.parquet', pa.table(table))
    page, elements = read(folder)
    cards = re.findall(r'<details class="card"( open)?>.*?<h3>Cluster (\d+)', page, re.DOTALL)
    assert cards[0] == (' open', '4') and [bool(is_open) for is_open, _ in cards] == [
        *[True] * 3,
        *[False] * 3,
    ]
    assert 'All clusters, the most pruned first.' in ' '.join(elements.text.split())


def test_shifts_are_shown_only_where_thresholds_moved(run: Path) -> None:
    assert '+0.000' not in read(run)[0] and 'Shift' not in read(run)[1].text
    moved = [0.0125, -0.0125, 0.0, 0.0, 0.0, 0.0]
    rewrite(run / 'clusters.parquet', 'shift', moved)
    page, elements = read(run)
    assert '(+0.013)' in page and '(+0.000)' not in page and 'Shift' in elements.text


def label_suspects_with(run: Path, objects: list[dict[str, Any]]) -> None:
    """Gives every suspect these labelled boxes."""
    table = pq.read_table(run / 'samples.parquet')
    labelled = [objects if suspect else None for suspect in table['label_suspect'].to_pylist()]
    column = pa.array(labelled, SAMPLES.schema.field('suspect_objects').type)
    write_table(run / 'samples.parquet', table.append_column('suspect_objects', column))


def test_label_suspects_show_their_boxes_with_the_names_of_classes(run: Path) -> None:
    car = {'class': f'car{HOSTILE}', 'x1': 10, 'y1': 20.4, 'x2': 30, 'y2': 40}
    elsewhere = {'class': 'bus', 'x1': float('nan'), 'y1': 0, 'x2': 0, 'y2': 0}
    label_suspects_with(run, [car, elsewhere, car])
    page, elements = read(run)
    drawings = page.count('class="labels" viewBox="0 0 64 48"')
    assert drawings == 9 == page.count('d="M10 20h20v20h-20zM10 20h20v20h-20z"')
    assert elements.text.count(f'2 car{HOSTILE}, 1 bus') == 9
    assert HOSTILE not in page and 'The boxes are the labels' in page


@pytest.mark.parametrize(('objects', 'text'), [([], 'no boxes'), (None, '')])
def test_suspects_without_boxes_have_no_drawing(
    run: Path, objects: list[dict[str, Any]], text: str
) -> None:
    label_suspects_with(run, objects)
    page, _ = read(run)
    assert 'class="labels"' not in page and 'The boxes are the labels' not in page
    assert ('class="labelled">no boxes<' in page) == bool(text)


@given(sizes=st.lists(st.tuples(st.integers(1, 90), st.integers(0, 200))))
def test_large_pictures_take_no_more_room_than_they_may(sizes: list[tuple[int, int]]) -> None:
    thumbnails = [Thumbnail('s' * small, 1, 'l' * (small + more)) for small, more in sizes]
    sources = choose_sources([*thumbnails, None])
    small = sum(len(thumbnail.source) for thumbnail in thumbnails)
    shown = sum(len(source) for source in sources if source)
    assert shown - small <= MORE_ROOM * small and sources[-1] is None
    if thumbnails and len(thumbnails[0].large) - len(thumbnails[0].source) <= MORE_ROOM * small:
        assert sources[0] == thumbnails[0].large


def test_every_link_of_the_contents_leads_somewhere(run: Path) -> None:
    _, elements = read(run)
    assert set(titles(elements)) <= {attributes.get('id') for _, attributes in elements.found}


def test_pruned_samples_stand_beside_their_partner_with_the_similarity(run: Path) -> None:
    page, _ = read(run)
    table = pq.read_table(run / 'samples.parquet').to_pylist()
    groups = page.split('<div class="group">')[1:]
    pairs = 0
    for group in groups:
        shown = re.findall(r'title="(\d{6})\n', group)
        badges = re.findall(r'class="badge">([^<]*)<', group)
        for sample_id, badge in zip(shown[1:], badges[1:], strict=False):
            if badge != 'stands alone' and not badge.startswith('loss'):
                assert table[int(sample_id)]['partner_id'] == shown[0]
                assert badge == f'{table[int(sample_id)]["partner_similarity"]:.3f}'
                pairs += 1
    assert pairs >= 6


def test_page_asks_for_nothing_from_outside(run: Path) -> None:
    page, elements = read(run)
    sources = [
        value
        for _, attributes in elements.found
        for key, value in attributes.items()
        if key in ('src', 'href', 'srcset', 'data', 'action', 'poster', 'xlink:href')
    ]
    assert len(sources) > 40
    assert all(value and value.startswith(('#', 'data:')) for value in sources)
    assert 'url(' not in page and '@import' not in page
    assert "default-src 'none'" in page


def test_hostile_names_show_as_text(tmp_path: Path) -> None:
    folder = tmp_path / 'run'
    paths = write_images(tmp_path / 'images', 12, prefix=HOSTILE)
    write_run(folder, paths, clusters=2, name=HOSTILE)
    _, elements = read(folder)
    assert sum(tag == 'script' for tag, _ in elements.found) == 1
    assert not [
        key for _, attributes in elements.found for key in attributes if key.startswith('on')
    ]
    assert 'No duplicates found.' in elements.text and elements.text.count(HOSTILE) > 15


@functools.cache
def structure(name: str) -> list[tuple[str, tuple[str, ...]]]:
    with tempfile.TemporaryDirectory() as folder:
        run = write_run(Path(folder), [f'{name}{i}' for i in range(12)], clusters=2, name=name)
        return [(tag, tuple(attributes)) for tag, attributes in read(run)[1].found]


@settings(max_examples=15, deadline=None)
@given(
    name=st.text(min_size=1, max_size=12)
    | st.sampled_from(['</title>', '</style>', '<!--', '"onload="', ']]>'])
)
def test_no_name_changes_the_structure_of_the_page(name: str) -> None:
    assert structure(name) == structure('x')


def test_images_that_are_gone_or_broken_leave_a_placeholder(
    tmp_path: Path, paths: list[str]
) -> None:
    broken = tmp_path / 'broken.jpg'
    broken.write_bytes(Path(paths[0]).read_bytes()[:200])
    folder = write_run(
        tmp_path / 'run', [str(broken), *paths[1:30], *(['/nowhere/else.jpg'] * 29), '']
    )
    page, elements = read(folder)
    assert 'image not found' in page
    assert any(tag == 'img' for tag, _ in elements.found)
    none = write_run(tmp_path / 'none', ['gone.jpg'] * 20)
    assert not any(tag == 'img' for tag, _ in read(none)[1].found)


def test_strategy_without_features_leaves_sections_out_and_says_so(
    tmp_path: Path, paths: list[str]
) -> None:
    folder = write_run(
        tmp_path / 'run',
        paths,
        features=False,
        losses=False,
        manifest=dict(
            strategy='random', gap_reliability=None, break_even=None, threshold_curve=None
        ),
    )
    _, elements = read(folder)
    assert titles(elements) == ['overview', 'classes', 'scenes', 'files']
    text = ' '.join(elements.text.split())
    assert 'Not in this report: keep-ratio curve, clusters and feature map. Their' in text
    assert 'source is the losses of a proxy or probe, and this run computed none.' in text
    assert 'Kept 30 of 60 samples' in text


def test_strategy_without_losses_shows_clusters_without_gaps(
    tmp_path: Path, paths: list[str]
) -> None:
    _, elements = read(write_run(tmp_path / 'run', paths, losses=False))
    assert titles(elements) == [
        'overview',
        'curve',
        'clusters',
        'classes',
        'scenes',
        'map',
        'files',
    ]
    assert 'the most pruned first' in elements.text


def test_ratio_below_the_curve_is_not_given_a_threshold(tmp_path: Path, paths: list[str]) -> None:
    page, elements = read(
        write_run(
            tmp_path / 'run',
            paths,
            keep_ratio=0.1,
            manifest=dict(
                threshold_curve=[
                    dict(keep_ratio=0.05, threshold=-1.0),
                    dict(keep_ratio=0.1, threshold=float('nan')),
                    dict(keep_ratio=0.2, threshold=0.7),
                    dict(keep_ratio=1.0, threshold=0.99),
                ]
            ),
        )
    )
    assert 'Keep-ratio curve' in elements.text and '0.990' in elements.text
    assert 'means a threshold of' not in elements.text and 'class="mark"' not in page


def test_nothing_pruned(tmp_path: Path, paths: list[str]) -> None:
    _, elements = read(write_run(tmp_path / 'run', paths, keep_ratio=1.0))
    assert 'Kept 60 of 60 samples' in elements.text
    assert 'No cluster lost a sample' in elements.text


def test_large_run_shows_a_bounded_choice(tmp_path: Path, paths: list[str]) -> None:
    page, elements = read(write_run(tmp_path / 'run', paths * 200, clusters=344))
    assert sum(tag == 'img' for tag, _ in elements.found) < 400
    assert '16 of 344 clusters' in elements.text
    assert f'{MAP_POINTS:,} of 12,000 samples' in elements.text
    assert len(page) < 3_000_000


def test_same_tables_give_the_same_page(run: Path) -> None:
    assert read(run)[0] == read(run)[0]


def test_columns_beyond_the_contract_may_be_absent(run: Path) -> None:
    table = pq.read_table(run / 'samples.parquet')
    more = ['map_x', 'map_y', 'scene', 'label_suspect', 'partner_similarity']
    write_table(run / 'samples.parquet', table.drop_columns(more))
    _, elements = read(run)
    assert titles(elements) == [
        'overview',
        'curve',
        'clusters',
        'gaps',
        'classes',
        'suspects',
        'files',
    ]
    assert 'None found' in elements.text


def rewrite(path: Path, column: str, values: list[Any] | None = None) -> None:
    table = pq.read_table(path).drop_columns([column])
    write_table(path, table if values is None else table.append_column(column, pa.array(values)))


def edit_manifest(run: Path, **changes: Any) -> None:
    manifest = json.loads((run / 'manifest.json').read_text())
    write_json(
        run / 'manifest.json',
        {key: value for key, value in (manifest | changes).items() if value is not ...},
    )


def broken_name(path: Path) -> None:
    pq.write_table(pa.table(dict(zzzz=[1])), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b'zzzz', b'zzz\xf4'))


BAD = {
    'no folder': (lambda run: shutil.rmtree(run), 'is not a folder'),
    'no samples': (lambda run: (run / 'samples.parquet').unlink(), 'samples.parquet is missing'),
    'no clusters': (lambda run: (run / 'clusters.parquet').unlink(), 'clusters.parquet is missing'),
    'no classes': (lambda run: (run / 'classes.parquet').unlink(), 'classes.parquet is missing'),
    'no manifest': (lambda run: (run / 'manifest.json').unlink(), 'manifest.json is missing'),
    'empty parquet': (
        lambda run: (run / 'samples.parquet').write_bytes(b''),
        'samples.parquet cannot be read',
    ),
    'not parquet': (
        lambda run: (run / 'clusters.parquet').write_text('a,b\n1,2\n'),
        'clusters.parquet cannot be read',
    ),
    'cut parquet': (
        lambda run: os.truncate(run / 'samples.parquet', 3000),
        'samples.parquet cannot be read',
    ),
    'no text': (lambda run: broken_name(run / 'classes.parquet'), 'classes.parquet cannot be read'),
    'a folder': (
        lambda run: ((run / 'manifest.json').unlink(), (run / 'manifest.json').mkdir()),
        'manifest.json',
    ),
    'no column': (
        lambda run: rewrite(run / 'samples.parquet', 'kept'),
        'samples.parquet lacks the column kept',
    ),
    'wrong type': (
        lambda run: rewrite(run / 'samples.parquet', 'cluster', ['a'] * 60),
        'the column cluster',
    ),
    'twice': (
        lambda run: write_table(
            run / 'classes.parquet',
            pa.table(
                [['a'], ['b'], [1], [1], [1], [1]],
                ['class', 'class', 'instances', 'instances_kept', 'images', 'images_kept'],
            ),
        ),
        'classes.parquet cannot be read',
    ),
    'not JSON': (
        lambda run: (run / 'manifest.json').write_text('{"samples": '),
        'manifest.json cannot be read',
    ),
    'no key': (lambda run: edit_manifest(run, strategy=...), 'strategy'),
    'wrong value': (lambda run: edit_manifest(run, samples='many'), '$.samples'),
    'no duration': (lambda run: edit_manifest(run, seconds=float('nan')), '$.seconds'),
    'endless stage': (
        lambda run: edit_manifest(run, stages=dict(a=dict(seconds=float('inf'), bytes=1))),
        '.seconds',
    ),
    'too many bytes': (
        lambda run: edit_manifest(run, stages=dict(a=dict(seconds=1, bytes=10**400))),
        '.bytes',
    ),
    'other run': (lambda run: edit_manifest(run, kept=31, pruned=29), 'of different runs'),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_work_dir_gives_one_clear_line(
    run: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, message = BAD[case]
    damage(run)
    with pytest.raises(SystemExit) as ended:
        main([str(run)])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert message in error and str(run) in error
    assert error.count('\n') == 1 and error.startswith('error: ')
    assert not (run / 'report.html').exists()


def test_tool_makes_the_page_again(run: Path) -> None:
    first = build_report(run).read_bytes()
    (run / 'report.html').write_text('old')
    environment = os.environ | {
        'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    }
    done = subprocess.run(
        [sys.executable, ROOT / 'tools' / 'report.py', run],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert done.stdout.strip() == str(run / 'report.html')
    assert (run / 'report.html').read_bytes() == first


@pytest.mark.parametrize(
    ('value', 'text'),
    [
        (0, '0.00 s'),
        (0.346, '0.35 s'),
        (4.21, '4.2 s'),
        (38.4, '38 s'),
        (59.6, '1 min'),
        (80, '1 min 20 s'),
        (3599.7, '1 h'),
        (7500, '2 h 5 min'),
        (86395, '1 d'),
        (273600, '3 d 4 h'),
    ],
)
def test_durations(value: float, text: str) -> None:
    assert words.duration(value).replace('\u00a0', ' ') == text


def test_numbers() -> None:
    shown = [
        words.count(1234567),
        words.share(0.1234),
        words.share(None),
        words.number(-0.0001, 3, sign=True),
        words.number(-1.5, 1),
        words.number(float('nan')),
        words.number(float('-inf')),
        words.size(999),
        words.size(1500),
        words.size(18.44e6),
        words.size(3.2e15),
    ]
    assert [text.replace('\u00a0', ' ') for text in shown] == [
        '1,234,567',
        '12.3 %',
        '\u2013',
        '+0.000',
        '\u22121.5',
        '\u2013',
        '\u2212\u221e',
        '999 B',
        '1.5 kB',
        '18.4 MB',
        '3200 TB',
    ]


@given(low=st.floats(-1e6, 1e6), width=st.floats(1e-3, 1e6))
def test_ticks_are_round_and_inside(low: float, width: float) -> None:
    ticks = plots.nice_ticks(low, low + width)
    step = np.diff(ticks)
    assert 2 <= len(ticks) <= 8
    assert ticks[0] >= low - 1e-5 * width and ticks[-1] <= low + width * (1 + 1e-5)
    factor = step[0] / 10 ** np.floor(np.log10(step[0] * 1.0001))
    assert np.isclose(factor, (1, 2, 5), rtol=1e-3).any()


@given(data=st.data(), clusters=st.integers(0, 60))
def test_chosen_clusters_are_the_extremes_in_order(data: st.DataObject, clusters: int) -> None:
    value = st.floats(-2, 2) | st.just(float('nan'))
    gap = np.array(data.draw(st.lists(value, min_size=clusters, max_size=clusters)), float)
    pruned = np.array(
        data.draw(st.lists(st.integers(0, 9), min_size=clusters, max_size=clusters)), int
    )
    size = pruned + 1
    gap[pruned == 0] = np.nan
    chosen = list(choose_clusters(gap, size, size - pruned, high=3, low=2, most=2))
    candidates = np.flatnonzero(pruned > 0)
    assert len(chosen) == min(7, len(candidates)) and set(chosen) <= set(candidates.tolist())
    known = gap[chosen][np.isfinite(gap[chosen])]
    assert (np.diff(known) <= 0).all() and np.isfinite(gap[chosen][: len(known)]).all()
    if np.isfinite(gap).any():
        assert known[0] == np.nanmax(gap)
        assert len(chosen) < 7 or np.isfinite(gap).sum() <= 3 or known[-1] == np.nanmin(gap)


def test_groups_cover_all_pruned_samples_once() -> None:
    rng = np.random.default_rng(2)
    partner = rng.integers(-1, 5, 40)
    rows = np.arange(10, 40)
    similarity = rng.uniform(size=40)
    groups = group_by_partner(rows, partner, similarity)
    assert sum(group.total for group in groups) == len(rows)
    assert groups[-1].partner == -1
    totals = [group.total for group in groups[:-1]]
    assert totals == sorted(totals, reverse=True)
    for group in groups:
        members = rows[partner[rows] == group.partner]
        assert group.pruned == members[np.argsort(similarity[members])][:3].tolist()
    assert [len(group.pruned) for group in group_by_partner(rows, partner % 2, similarity)] == [
        7,
        7,
    ]


def test_map_draws_every_point_once() -> None:
    rng = np.random.default_rng(3)
    kept = rng.random(500) < 0.7
    drawn = plots.map_plot(rng.normal(size=500), rng.normal(size=500), kept)
    assert drawn.count('M') == 500
    assert [path.count('M') for path in re.findall('class="map-kept" d="([^"]*)"', drawn)] == [
        kept.sum()
    ]
    assert 'nan' not in plots.map_plot(np.zeros(3), np.zeros(3), kept[:3])


def test_thumbnails_are_the_same_for_any_number_of_threads(paths: list[str]) -> None:
    assert make_thumbnails(paths, workers=1) == make_thumbnails(paths, workers=4)


def test_thumbnail_keeps_the_shape_and_refuses_what_is_no_image(tmp_path: Path) -> None:
    Image.new('I;16', (640, 320), 900).save(tmp_path / 'deep.png')
    made = make_thumbnail(str(tmp_path / 'deep.png'))
    assert made is not None and made[1] == 2
    (tmp_path / 'text.jpg').write_text('no image')
    (tmp_path / 'script.jpg').write_text('%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n')
    os.mkfifo(tmp_path / 'pipe.jpg')
    for name in ('text.jpg', 'script.jpg', 'pipe.jpg', 'gone.jpg', ''):
        assert make_thumbnail(str(tmp_path / name)) is None


def test_the_large_picture_is_larger_only_where_the_image_is(tmp_path: Path) -> None:
    Image.effect_noise((640, 320), 80).save(tmp_path / 'large.png')
    Image.effect_noise((250, 250), 80).save(tmp_path / 'small.png')
    large = make_thumbnail(str(tmp_path / 'large.png'))
    small = make_thumbnail(str(tmp_path / 'small.png'))
    assert large is not None and len(large.large) > len(large.source)
    assert small is not None and small.large == small.source


def chromium(tmp_path: Path, page: Path, *flags: str) -> tuple[str, list[str]]:
    """What Chromium prints, and the console's messages."""
    command = [
        str(CHROMIUM),
        '--headless',
        '--no-sandbox',
        '--disable-gpu',
        '--disable-quic',
        '--no-first-run',
        '--disable-sync',
        '--disable-background-networking',
        '--disable-component-update',
        '--hide-scrollbars',
        '--enable-logging=stderr',
        '--v=0',
        '--virtual-time-budget=5000',
        f'--user-data-dir={tmp_path / "profile"}',
        *flags,
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if 'CONSOLE' in line]


def framed(tmp_path: Path, page: Path, width: int, script: str) -> Path:
    """A page with the report in a frame of this width: headless windows have a least width."""
    content = html.escape(page.read_text(encoding='utf-8'))
    wrapper = tmp_path / f'frame{width}.html'
    style = f'border:0;width:{width}px;height:1000px'
    wrapper.write_text(
        f'<!doctype html><meta charset="utf-8"><body style="margin:0"><iframe style="{style}" '
        f'srcdoc="{content}"></iframe><pre id="result"></pre><script>{script}</script>',
        'utf-8',
    )
    return wrapper


MEASURE = """
document.querySelector('iframe').addEventListener('load', event => {
  const page = event.target.contentDocument, box = event.target.contentWindow;
  for (const details of page.querySelectorAll('details')) details.open = true;
  const first = () => page.querySelector('#classes tbody tr').cells[0].textContent;
  const before = first();
  page.querySelectorAll('#classes th button')[1].click();
  page.querySelectorAll('#classes th button')[1].click();
  const images = [...page.images], viewer = page.querySelector('#viewer');
  const frames = page.querySelectorAll('.group button.frame');
  frames[0].click();
  const enlarged = () => viewer.open && viewer.querySelector('img').src;
  const sources = [enlarged()];
  viewer.dispatchEvent(new box.KeyboardEvent('keydown', {key: 'ArrowRight'}));
  sources.push(enlarged());
  const large = viewer.querySelector('.stage').getBoundingClientRect().width;
  viewer.querySelector('.close').click();
  const table = page.querySelector('#clusters .scroll');
  table.scrollLeft = 60;
  const left = element => element.getBoundingClientRect().left;
  document.querySelector('#result').textContent = 'RESULT' + JSON.stringify({
    turned: sources.every((source, place) => source === frames[place].querySelector('img').src),
    closed: !viewer.open, grown: large / frames[0].getBoundingClientRect().width,
    stuck: left(table.querySelector('tbody td')) - left(table),
    scroll: page.documentElement.scrollWidth, inner: box.innerWidth, before, after: first(),
    images: images.length,
    drawn: images.filter(image => image.naturalWidth > 0).length,
    plots: [...page.querySelectorAll('svg.plot')].map(
      plot => plot.getBoundingClientRect().height)}) + 'END';
});
"""


@needs_browser
@pytest.mark.parametrize('width', [1280, 390])
def test_page_draws_in_a_browser(tmp_path: Path, run: Path, width: int) -> None:
    wrapper, shot = framed(tmp_path, build_report(run), width, MEASURE), tmp_path / 'shot.png'
    output, console = chromium(
        tmp_path, wrapper, '--dump-dom', f'--screenshot={shot}', '--window-size=1280,1000'
    )
    assert not console
    result = json.loads(html.unescape(output.split('id="result">RESULT')[1].split('END')[0]))
    assert result['inner'] == width and result['scroll'] <= width
    assert result['images'] == result['drawn'] > 30
    assert result['turned'] and result['closed'] and result['grown'] > 1.5
    assert 0 <= result['stuck'] <= 2
    assert len(result['plots']) == 3 and min(result['plots']) > 100
    assert (result['before'], result['after']) == ('car', 'absent')  # sorted by instances, up
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert('RGB'))[:, :width]
    assert (
        pixels.reshape(-1, 3).std(0).min() > 8
        and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100
    )


@needs_browser
def test_a_script_that_got_into_the_page_is_blocked_and_noticed(tmp_path: Path, run: Path) -> None:
    page = build_report(run)
    content = page.read_text(encoding='utf-8')
    page.write_text(
        content.replace('<main>', '<main><script>document.title = "taken"</script>'), 'utf-8'
    )
    output, console = chromium(tmp_path, page, '--dump-dom')
    assert '<title>taken' not in output
    assert len(console) == 1
