"""Damaged files of every kind that we read: a ``UserError`` in one line or a correct result, and
nothing else.

``FUZZ=50`` tries fifty times as many files, other ones every time (``make fuzz``).
"""

import contextlib
import copy
import functools
import json
import math
import os
import pickle
import shutil
import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_datasets import config_of, make_coco, make_data_list, make_voc

from adadedup_mm.base.errors import UserError
from adadedup_mm.benchmark.results import RESULTS, read_results
from adadedup_mm.captions import CaptionFile
from adadedup_mm.cli.benchmark import _report
from adadedup_mm.datasets import pruned_config, read_pool, write_pruned
from adadedup_mm.pool import Pool
from adadedup_mm.pruning.prune import prune
from adadedup_mm.report import build_report
from adadedup_mm.settings.options import resolve_options
from adadedup_mm.workdir.export import export_csv, export_fiftyone

TIMES = int(os.environ.get('FUZZ', '1'))
# What a single file may take at most, in seconds.
PATIENCE = 60


def tries(count):
    """The ordinary run tries the same files every time; the full one looks for new ones."""
    return settings(
        max_examples=count * TIMES,
        deadline=None,
        derandomize=TIMES == 1,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def nested(depth):
    return functools.reduce(lambda inner, _: [inner], range(depth), 0)


VALUES = st.sampled_from(
    [
        None,
        True,
        False,
        -1,
        0,
        1,
        2,
        7,
        2**31,
        2**53 + 1,
        2**63,
        2**64,
        -(2**63),
        10**30,
        10**400,
        0.5,
        -1.5,
        1e308,
        5e-324,
        math.nan,
        math.inf,
        -math.inf,
        '',
        ' ',
        '0',
        '1',
        '1.0',
        'nan',
        'a',
        '../../escaped',
        '/escaped',
        '..',
        '.',
        'a/b',
        'a\nb',
        'a\0b',
        '\ud800',
        '\u202e\U0001f697',
        'ü' * 300,
        '{}',
        '%s',
        '<script>',
        [],
        {},
        [[]],
        [None],
        {'id': 1},
        [1, 2],
        [math.nan] * 4,
        [1e308] * 4,
        ['a'],
        {'type': 'a'},
        {'': None},
        nested(200),
    ]
)
PLACES = st.integers(0, 2**32)
EDITS = st.lists(
    st.tuples(
        st.sampled_from(['set', 'delete', 'repeat', 'rename', 'text', 'number', 'wrap', 'swap']),
        PLACES,
        PLACES,
        VALUES,
    ),
    min_size=1,
    max_size=3,
)
PIECES = st.sampled_from(
    [
        b'',
        b'\0',
        b'\xff',
        b'\xef\xbb\xbf',
        b'"',
        b'{',
        b'}',
        b'[',
        b']',
        b',',
        b':',
        b'\\',
        b'\n',
        b'NaN',
        b'-Infinity',
        b'1e999',
        b'9' * 5000,
        b'-',
        b'null',
        b'"\\ud800"',
        b'[' * 3000,
        b'../',
    ]
)
CUTS = st.lists(
    st.tuples(
        st.sampled_from(['insert', 'replace', 'flip', 'delete', 'repeat', 'truncate']),
        PLACES,
        st.integers(1, 40),
        PIECES,
    ),
    min_size=1,
    max_size=3,
)


def edited(tree, edits):
    """A copy of nested dicts and lists with some of its values changed."""
    root = [copy.deepcopy(tree)]
    for action, place, other, value in edits:
        nodes = list(_nodes(root))
        parent, key = nodes[place % len(nodes)]
        if action == 'set':
            parent[key] = copy.deepcopy(value)
        elif action == 'text':
            parent[key] = str(parent[key])
        elif action == 'number':
            with contextlib.suppress(TypeError, ValueError):
                parent[key] = float(str(parent[key]))
        elif action == 'wrap':
            parent[key] = [parent[key]]
        elif action == 'swap':
            parent[key] = copy.deepcopy(nodes[other % len(nodes)][0][nodes[other % len(nodes)][1]])
        elif parent is not root and action == 'delete':
            del parent[key]
        elif isinstance(parent, list) and action == 'repeat':
            parent.insert(key, copy.deepcopy(parent[key]))
        elif isinstance(parent, dict) and action in ('rename', 'repeat'):
            parent[str(value)] = parent[key] if action == 'repeat' else parent.pop(key)
    return root[0]


def _nodes(node):
    for key in range(len(node)) if isinstance(node, list) else list(node):
        yield node, key
        if isinstance(node[key], (list, dict)):
            yield from _nodes(node[key])


def cut(data, cuts):
    """The bytes with some of them changed."""
    for action, place, length, piece in cuts:
        start = place % (len(data) + 1)
        end = start + length
        flipped = bytes(byte ^ 1 << place % 8 for byte in data[start : start + 1])
        data = (
            data[:start]
            + dict(
                insert=piece + data[start:],
                replace=piece + data[end:],
                flip=flipped + data[start + 1 :],
                delete=data[end:],
                repeat=data[start:end] + data[start:],
                truncate=b'',
            )[action]
        )
    return data


@contextlib.contextmanager
def clean():
    """Inside, a ``UserError`` of one line is fine; anything else, or more than ``PATIENCE``
    seconds, is not."""

    def give_up(*_):
        raise TimeoutError(f'no answer after {PATIENCE} seconds')

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(PATIENCE)
    try:
        yield
    except UserError as error:
        assert str(error).strip() and '\n' not in str(error)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def snapshot(folder):
    """Every file below a folder with its content; links are not followed."""
    return {
        path.relative_to(folder): path.is_file() and path.read_bytes() for path in folder.rglob('*')
    }


class Data:
    """A folder with a dataset, whose files are damaged one at a time; the work dir is beside it."""

    def __init__(self, root, make):
        self.root = root / 'in' / 'data'
        self.work_dir = root / 'in' / 'work'
        self.config = make(self.root)
        self.watched = root

    def attempt(self, name, content, check=None):
        """Reads and writes with the file's content replaced; what is written must be what was asked
        for."""
        file = self.root / name
        saved = file.read_bytes()
        file.write_bytes(content)
        before = snapshot(self.watched)
        try:
            with clean():
                (check or self.check)()
            shutil.rmtree(self.work_dir, ignore_errors=True)
            assert snapshot(self.watched) == before
        finally:
            file.write_bytes(saved)

    def check(self):
        annotations = self.work_dir / 'annotations'
        pool, sources = read_pool(self.config)
        kept = np.arange(len(pool)) % 2 == 0
        write_pruned(sources, kept, annotations)
        again, _ = read_pool(pruned_config(self.config, sources, annotations))
        chosen = [name for name, stays in zip(pool.sample_ids, kept, strict=True) if stays]
        # Positions are no names: files without ids call their samples by their place or path.
        assert len(again) == len(chosen) and again.classes == pool.classes
        assert list(again.sample_ids) == chosen
        assert [again.image_paths[i] for i in range(len(again))] == [
            path for path, stays in zip(pool.image_paths, kept, strict=True) if stays
        ]


def json_bytes(tree):
    return json.dumps(tree).encode('utf-8', 'surrogatepass')


@pytest.fixture(scope='module')
def coco(tmp_path_factory):
    return Data(
        tmp_path_factory.mktemp('coco'),
        lambda root: config_of(make_coco(root, ids=(3, 1, 2**53 + 1, 5), scene='ä')),
    )


@tries(120)
@given(EDITS)
def test_coco_json_of_another_structure(coco, edits):
    tree = json.loads((coco.root / 'train.json').read_bytes())
    coco.attempt('train.json', json_bytes(edited(tree, edits)))


@tries(20)
@given(EDITS)
def test_whole_run_on_coco_json_of_another_structure(coco, edits):
    def check():
        config = copy.deepcopy(coco.config)
        config.adadedup = OPTIONS
        prune(config, resolve_options(config), coco.work_dir)
        rows = pq.read_table(coco.work_dir / 'samples.parquet').to_pylist()
        written = json.loads((coco.work_dir / 'annotations/train.json').read_bytes())
        assert [str(image['id']) for image in written['images']] == [
            row['sample_id'] for row in rows if row['kept']
        ]

    tree = json.loads((coco.root / 'train.json').read_bytes())
    coco.attempt('train.json', json_bytes(edited(tree, edits)), check)


@tries(80)
@given(CUTS)
def test_coco_json_of_other_bytes(coco, cuts):
    coco.attempt('train.json', cut((coco.root / 'train.json').read_bytes(), cuts))


@pytest.fixture(scope='module')
def data_list(tmp_path_factory):
    return Data(tmp_path_factory.mktemp('data_list'), lambda root: config_of(make_data_list(root)))


@tries(100)
@given(EDITS)
def test_data_list_of_another_structure(data_list, edits):
    tree = json.loads((data_list.root / 'list.json').read_bytes())
    data_list.attempt('list.json', json_bytes(edited(tree, edits)))


@tries(60)
@given(CUTS)
def test_data_list_of_other_bytes(data_list, cuts):
    data_list.attempt('list.json', cut((data_list.root / 'list.json').read_bytes(), cuts))


@pytest.fixture(scope='module')
def voc(tmp_path_factory):
    return Data(tmp_path_factory.mktemp('voc'), lambda root: config_of(make_voc(root)))


@tries(120)
@given(CUTS, st.sampled_from(['ImageSets/Main/trainval.txt', 'Annotations/000007.xml']))
def test_image_sets_and_their_xml_of_other_bytes(voc, cuts, name):
    voc.attempt(name, cut((voc.root / name).read_bytes(), cuts))


@pytest.fixture(scope='module')
def infos(tmp_path_factory):
    test_infos = pytest.importorskip('test_infos')
    return Data(
        tmp_path_factory.mktemp('infos'), lambda root: test_infos.make_nuscenes(root, count=3)
    )


@pytest.fixture(scope='module')
def temporal(tmp_path_factory):
    test_infos = pytest.importorskip('test_infos')
    return Data(tmp_path_factory.mktemp('temporal'), test_infos.make_temporal)


@tries(70)
@given(EDITS)
def test_infos_of_another_structure(infos, edits):
    tree = pickle.loads((infos.root / 'infos.pkl').read_bytes())
    infos.attempt('infos.pkl', pickle.dumps(edited(tree, edits), 4))


@tries(70)
@given(EDITS)
def test_temporal_infos_of_another_structure(temporal, edits):
    tree = pickle.loads((temporal.root / 'temporal.pkl').read_bytes())
    temporal.attempt('temporal.pkl', pickle.dumps(edited(tree, edits), 4))


@tries(60)
@given(CUTS)
def test_infos_of_other_bytes(infos, cuts):
    infos.attempt('infos.pkl', cut((infos.root / 'infos.pkl').read_bytes(), cuts))


_RECORDS = [
    dict(sample_id='3', caption='a red car'),
    dict(file_name='1.png', text='ünter'),
    dict(image='images/5.png', caption='night'),
]
CAPTIONS = {
    'a.json': _RECORDS,
    'b.json': {'3': 'a red car', '1.png': 'ünter', 'images/5.png': 'night'},
    'c.jsonl': _RECORDS,
    'd.csv': 'sample_id,caption\n3,"a, red\ncar"\n1.png,ünter\nimages/5.png,night\n',
}


@tries(80)
@given(st.sampled_from(['a.json', 'b.json', 'c.jsonl']), EDITS)
def test_captions_of_another_structure(tmp_path, name, edits):
    captions = edited(CAPTIONS[name], edits)
    lines = captions if name == 'c.jsonl' and isinstance(captions, list) else [captions]
    read_captions(tmp_path / name, b'\n'.join(map(json_bytes, lines)))


@tries(80)
@given(st.sampled_from(['a.json', 'b.json', 'c.jsonl', 'd.csv']), CUTS)
def test_captions_of_other_bytes(tmp_path, name, cuts):
    content = (
        CAPTIONS[name].encode()
        if name == 'd.csv'
        else b'\n'.join(map(json_bytes, CAPTIONS[name] if name == 'c.jsonl' else [CAPTIONS[name]]))
    )
    read_captions(tmp_path / name, cut(content, cuts))


def read_captions(file, content):
    file.write_bytes(content)
    paths = ['x/images/3.png', 'x/images/1.png', 'x/images/5.png']
    pool = Pool(
        ('3', '1', '5'),
        tuple((path,) for path in paths),
        ('image',),
        np.full((3, 2), 10, np.int32),
        (),
        np.zeros(4, np.int64),
        np.zeros(0, np.int32),
        np.zeros((0, 4), np.float32),
        np.zeros(3, np.int32),
    )
    with clean():
        texts = CaptionFile(str(file))(pool, np.arange(3), paths)
        assert len(texts) == 3 and all(isinstance(text, str) and text.strip() for text in texts)


# The adadedup dict, and the dataset's

OPTIONS = dict(
    keep_ratio=0.5,
    strategy=dict(type='clip_dedup'),
    seed=0,
    views='front',
    on_bad_image='keep',
    embedder=dict(type='PixelEmbedder'),
    clusterer=dict(type='SphericalKMeans', num_clusters=2),
    density=dict(type='KCenter'),
    proxy=dict(
        config='adadedup_mm::proxy/faster_rcnn_r18_small.py',
        checkpoint=None,
        epochs=1,
        max_loss_samples=None,
        held_out=0.0,
    ),
    feedback=dict(
        layout=0.3,
        signal='probe',
        gap='paired',
        beta=0.5,
        alpha_plus=1.0,
        alpha_minus=1.0,
        shrink=True,
        initial_ratio=None,
    ),
    guards=dict(min_class_ratio=0.5),
    group_by=None,
    min_gap=0,
    temporal='relink',
    trust_pickles=False,
    work_dir=None,
    shared_stages=None,
)


@tries(30)
@given(EDITS)
def test_options(coco, edits):
    options = edited(OPTIONS, edits)
    before = snapshot(coco.watched)
    with clean():
        config = copy.deepcopy(coco.config)
        config.adadedup = options
        resolved = resolve_options(config)
        cheap = (
            resolved.strategy_name == 'clip_dedup' and resolved.embedder['type'] == 'PixelEmbedder'
        )
        if cheap and resolved.shared_stages is None:
            prune(config, resolved, coco.work_dir)
            count = pq.read_metadata(coco.work_dir / 'samples.parquet').num_rows
            assert (
                count == 4
                and json.loads((coco.work_dir / 'manifest.json').read_text())['kept'] >= 1
            )
    shutil.rmtree(coco.work_dir, ignore_errors=True)
    assert snapshot(coco.watched) == before


@tries(80)
@given(EDITS)
def test_dataset_settings(coco, edits):
    settings_of = dict(dataset=coco.config.train_dataloader.dataset.to_dict())
    settings_of['dataset'].pop('pipeline')
    with clean():
        config = config_of(None)
        config.train_dataloader = edited(settings_of, edits)
        pool, _ = read_pool(config)
        assert 1 <= len(pool) <= 8


# What a run leaves


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A finished run of ten of twelve images, and the config for all."""
    root = tmp_path_factory.mktemp('finished')
    small = config_of(make_coco(root / 'data', ids=range(10)), adadedup=OPTIONS)
    prune(small, resolve_options(small), root / 'run')
    return root / 'run', config_of(
        make_coco(root / 'data', ids=range(12), name='all.json'), adadedup=OPTIONS
    )


def damaged_table(path, edits):
    """The parquet file with other columns and values."""
    columns = edited(pq.read_table(path).to_pydict(), edits)
    columns = (
        {name: values for name, values in columns.items() if isinstance(values, list)}
        if isinstance(columns, dict)
        else {}
    )
    length = min(map(len, columns.values()), default=0)
    pq.write_table(
        pa.table({_text(name): _column(values[:length]) for name, values in columns.items()}), path
    )


def _column(values):
    try:
        array = pa.array(values)
        # Parquet has no empty structs.
        assert not pa.types.is_struct(array.type)
        return array
    except (pa.ArrowException, UnicodeEncodeError, OverflowError, TypeError, AssertionError):
        return pa.array([_text(value) for value in values])


def _text(value):
    """One that parquet can hold."""
    return str(value).encode('utf-8', 'replace').decode()


def damage(file, edits, cuts):
    """Changes the structure of a json, npy or parquet file; or the bytes of any."""
    if cuts is not None or file.suffix == '.npy':
        file.write_bytes(cut(file.read_bytes(), cuts or []))
    elif file.suffix == '.json':
        file.write_bytes(json_bytes(edited(json.loads(file.read_bytes()), edits)))
    else:
        damaged_table(file, edits)


RECORDS = ['manifest.json', 'samples.parquet', 'clusters.parquet', 'classes.parquet']


@contextlib.contextmanager
def broken(finished, tmp_path, name, edits, cuts):
    """A copy of the run with one broken file; what is written beside it must be below ``out``."""
    folder = tmp_path / 'case'
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(finished, folder / 'run')
    damage(folder / 'run' / name, edits, cuts)
    before = snapshot(tmp_path)
    with clean():
        yield folder / 'run', folder / 'out'
    shutil.rmtree(folder / 'out', ignore_errors=True)
    (folder / 'run' / 'report.html').write_bytes((finished / 'report.html').read_bytes())
    assert snapshot(tmp_path) == before


@tries(15)
@given(st.sampled_from(RECORDS), EDITS, st.none() | CUTS)
def test_report_of_a_damaged_run(finished, tmp_path, name, edits, cuts):
    with broken(finished[0], tmp_path, name, edits, cuts) as (run, _):
        build_report(run)


@tries(50)
@given(
    st.sampled_from(['manifest.json', 'samples.parquet']),
    st.sampled_from([export_csv, export_fiftyone]),
    EDITS,
    st.none() | CUTS,
)
def test_export_of_a_damaged_run(finished, tmp_path, name, export, edits, cuts):
    with broken(finished[0], tmp_path, name, edits, cuts) as (run, out):
        export(run, out / 'samples')
        assert pq.read_metadata(run / 'samples.parquet').num_rows >= 0


@tries(20)
@given(
    st.sampled_from(
        [
            *RECORDS,
            *(
                f'stages/features/{name}'
                for name in ('features.npy', 'unreadable.npy', 'stamps.npy', 'origin.json')
            ),
        ]
    ),
    EDITS,
    st.none() | CUTS,
)
def test_update_of_a_damaged_run(finished, tmp_path, name, edits, cuts):
    with broken(finished[0], tmp_path, name, edits, cuts) as (run, out):
        prune(finished[1], resolve_options(finished[1]), out, update_of=run)
        assert pq.read_metadata(out / 'samples.parquet').num_rows == 12


@tries(20)
@given(
    st.sampled_from(
        [
            'manifest.json',
            'stages/run.json',
            'stages/features/done.json',
            'stages/density/done.json',
        ]
    ),
    EDITS,
    st.none() | CUTS,
)
def test_resuming_a_run_whose_records_are_damaged(finished, tmp_path, name, edits, cuts):
    shutil.copytree(finished[0], tmp_path / 'run', dirs_exist_ok=True)
    damage(tmp_path / 'run' / name, edits, cuts)
    config = copy.deepcopy(finished[1])
    config.train_dataloader.dataset.ann_file = 'train.json'
    with clean():
        prune(config, resolve_options(config), tmp_path / 'run', resume=True)
        assert pq.read_table(tmp_path / 'run' / 'samples.parquet') == pq.read_table(
            finished[0] / 'samples.parquet'
        )


@pytest.mark.parametrize(
    'name',
    [
        'features/features.npy',
        'features/unreadable.npy',
        'clusters/clusters.npy',
        'density/similarity.npy',
    ],
)
def test_resuming_an_interrupted_run_with_half_an_array(tmp_path, name):
    run, config = (
        tmp_path / 'run',
        config_of(make_coco(tmp_path / 'data', ids=range(10)), adadedup=OPTIONS),
    )
    prune(config, resolve_options(config), run)
    before = (run / 'samples.parquet').read_bytes()
    (run / 'manifest.json').unlink()
    array = run / 'stages' / name
    array.write_bytes(array.read_bytes()[: array.stat().st_size // 2])
    with pytest.raises(
        UserError, match=f'{array.name} is damaged .* remove the folder .*{array.parent.name}'
    ):
        prune(config, resolve_options(config), run, resume=True)
    shutil.rmtree(array.parent)
    prune(config, resolve_options(config), run, resume=True)
    assert (run / 'samples.parquet').read_bytes() == before


BENCHMARK = Path(__file__).parents[1] / 'docs/results/minidrive.parquet'


@tries(15)
@given(EDITS, st.none() | CUTS, st.none() | st.sampled_from(['coco/bbox_mAP', 'a']))
def test_results_of_a_benchmark(tmp_path, edits, cuts, metric):
    folder = tmp_path / 'in' / 'benchmark'
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    table = pq.read_table(BENCHMARK)
    pq.write_table(table.slice(0, 12), folder / RESULTS)
    damage(folder / RESULTS, edits, cuts)
    with clean():
        _report(folder, read_results(folder / RESULTS), metric)
        assert (folder / 'tables' / 'tables.md').stat().st_size
    assert [path.name for path in tmp_path.iterdir()] == ['in'] and os.listdir(tmp_path / 'in') == [
        'benchmark'
    ]
    assert {path.parent.name for path in folder.rglob('*') if path.is_file()} <= {
        'benchmark',
        'tables',
        'plots',
    }
