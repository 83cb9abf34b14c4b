"""Benchmarks: what is compared, running it, and what follows from the results."""

import csv
import fcntl
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config
from rich.console import Console
from scipy import stats

from adadedup_mm.base.errors import UserError
from adadedup_mm.benchmark.coco_folder import coco_folder
from adadedup_mm.benchmark.config import load_benchmark
from adadedup_mm.benchmark.data import prepare
from adadedup_mm.benchmark.jobs import Job, make_jobs
from adadedup_mm.benchmark.launch import Launcher, drop_broken_checkpoints
from adadedup_mm.benchmark.overview import Overview, in_words, remaining_seconds
from adadedup_mm.benchmark.plots import replace_plots
from adadedup_mm.benchmark.results import (
    SCHEMA,
    last_error,
    read_results,
    with_metric,
    write_results,
)
from adadedup_mm.benchmark.schedule import Running, run_jobs
from adadedup_mm.benchmark.statistics import (
    LEAST_SEEDS,
    mean_and_sd,
    paired,
    paired_difference,
    recovered_share,
)
from adadedup_mm.benchmark.tables import Results, latex, make_tables, write_tables
from adadedup_mm.cli.benchmark import main
from adadedup_mm.cli.prune import main as prune_main
from adadedup_mm.stages import StageStore

ROOT = Path(__file__).parents[1]
DOCS = ROOT / 'docs'

# A classifier of points that needs nothing but mmengine, so that a training takes a moment.
TOY = """
import time

import torch
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS


@DATASETS.register_module()
class Points(BaseDataset):
    def __init__(self, size=24, delay=0., **kwargs):
        self.size, self.delay = size, delay
        super().__init__(serialize_data=False, **kwargs)

    def load_data_list(self):
        return [dict(point=float(i % 7) - 3, label=int(i % 7 > 3)) for i in range(self.size)]

    def prepare_data(self, index):
        time.sleep(self.delay)
        info = self.get_data_info(index)
        return dict(inputs=torch.tensor([info['point']]), labels=info['label'])


@MODELS.register_module()
class Line(BaseModel):
    def __init__(self, broken=False):
        super().__init__()
        self.layer = torch.nn.Linear(1, 2)
        self.broken = broken

    def forward(self, inputs, labels, mode='tensor'):
        if self.broken:
            raise RuntimeError('the line is broken')
        scores = self.layer(torch.stack(inputs) if isinstance(inputs, list) else inputs)
        if mode == 'predict':
            hits = scores.argmax(1) == torch.as_tensor(labels)
            return [dict(right=right) for right in hits.tolist()]
        return dict(loss=torch.nn.functional.cross_entropy(scores, torch.as_tensor(labels)))


@METRICS.register_module()
class Right(BaseMetric):
    default_prefix = 'points'

    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        right = sum(result['right'] for result in results)
        return dict(accuracy=right / len(results), right=right)
"""
TOY_MODEL = """
custom_imports = dict(imports=['toy'])
model = dict(type='Line')
train_dataloader = dict(
    batch_size=4, dataset=dict(type='Points'), sampler=dict(type='DefaultSampler', shuffle=True))
val_dataloader = dict(
    batch_size=8, dataset=dict(type='Points'), sampler=dict(type='DefaultSampler', shuffle=False))
val_evaluator = dict(type='Right')
optim_wrapper = dict(optimizer=dict(type='SGD', lr=.1))
train_cfg = dict(by_epoch=True, max_epochs=3)
val_cfg = dict()
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1))
"""
TOY_BENCHMARK = """
models = dict(line='toy_model.py')
variants = dict(
    full=dict(),
    slow=dict(train_dataloader=dict(dataset=dict(delay=.05))),
    broken=dict(model=dict(broken=True)))
keep_ratios = [.5]
seeds = [0]
metric = 'points/accuracy'
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """The folder of a benchmark of points."""
    for name, text in (
        ('toy.py', TOY),
        ('toy_model.py', TOY_MODEL),
        ('benchmark.py', TOY_BENCHMARK),
    ):
        (tmp_path / name).write_text(text)
    monkeypatch.setenv('PYTHONPATH', f'{tmp_path}{os.pathsep}{ROOT}')
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def run(arguments):
    """Calls the tool and returns its exit code."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code
    return 0


def wait_for(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


# --- statistics

numbers = st.floats(-100, 100, allow_nan=False)
losses = st.lists(st.tuples(numbers, st.floats(0.5, 50)), min_size=LEAST_SEEDS, max_size=8)


@given(losses, st.floats(-1, 2))
def test_a_variant_that_recovers_the_same_share_in_every_seed_has_that_share_and_no_width(
    pairs, share
):
    random, lost = np.array(pairs).T
    estimate = recovered_share(random + share * lost, random, random + lost, resamples=200)
    assert np.allclose([estimate.value, estimate.low, estimate.high], share, atol=1e-6)


@given(losses, st.data())
def test_the_recovered_share_does_not_depend_on_the_metrics_unit(pairs, data):
    random, lost = np.array(pairs).T
    variant = np.array(data.draw(st.lists(numbers, min_size=len(random), max_size=len(random))))
    three = (variant, random, random + lost)
    estimate, other = (
        recovered_share(*(scale * values + 5 for values in three), resamples=200)
        for scale in (1, 100)
    )
    assert np.allclose(
        [estimate.value, estimate.low, estimate.high],
        [other.value, other.low, other.high],
        rtol=1e-6,
        atol=1e-6,
    )
    assert estimate.low <= estimate.high


def test_the_recovered_share_is_not_made_up():
    full, random = np.full(LEAST_SEEDS, 3.0), np.full(LEAST_SEEDS, 1.0)
    assert np.isnan(recovered_share(full, full, full).value)
    assert np.isnan(recovered_share(full, full, random).value)
    one = recovered_share(full[:1], random[:1], full[:1])
    assert (one.value, one.seeds) == (1, 1) and np.isnan(one.low)
    few = recovered_share(full[1:], random[1:], full[1:])
    assert few.value == 1 and np.isnan(few.low) and recovered_share(full, random, full).low == 1
    unclear = recovered_share(full, np.array([1.0, 5.0, 2.9, 2.9, 2.9]), full)
    assert np.isfinite(unclear.value) and np.isnan(unclear.low) and np.isnan(unclear.high)
    assert np.isnan(recovered_share(full[:0], full[:0], full[:0]).value)


@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=9))
def test_the_paired_difference_is_the_paired_t_interval(pairs):
    ours, theirs = np.array(pairs).T
    estimate = paired_difference(ours, theirs)
    assert np.isclose(estimate.value, np.mean(ours - theirs))
    if np.std(ours - theirs) > 1e-6:
        interval = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
        assert np.allclose([estimate.low, estimate.high], [interval.low, interval.high])


def test_only_seeds_that_all_have_are_paired():
    values = paired({3: 1.0, 1: 2.0}, {1: 5.0, 2: 6.0, 3: 7.0})
    assert [list(array) for array in values] == [[2.0, 1.0], [5.0, 7.0]]
    assert mean_and_sd(np.array([1.0, 3.0])) == (2, np.sqrt(2))
    assert np.isnan(mean_and_sd(np.array([1.0]))[1]) and np.isnan(mean_and_sd(np.empty(0))[0])


# --- tables


def row(variant, ratio, seed, value, **others):
    return (
        dict.fromkeys(SCHEMA.names)
        | dict(
            benchmark='b',
            model='m',
            variant=variant,
            keep_ratio=ratio,
            seed=seed,
            value=value,
            metric='mAP',
            status='failed' if value is None else 'done',
            error='no luck' if value is None else None,
            samples=10,
            share=ratio or 1.0,
            metrics=json.dumps(dict(mAP=value, mAR=1.0)),
            pruning_stages=json.dumps(dict(features=2.0)),
            pruning_seconds=2.0,
            training_seconds=10.0,
            total_seconds=12.0,
            compare_with='clip_dedup',
        )
        | others
    )


ROWS = [
    *(row('full', None, seed, 0.5 + seed / 100) for seed in range(3)),
    *(row('random', 0.5, seed, 0.4 + seed / 100) for seed in range(3)),
    *(row('clip_dedup', 0.5, seed, value) for seed, value in enumerate([0.44, 0.46, None])),
    row('ours_1', 0.5, 0, 0.45),
    row('hopeless', 0.5, 0, None),
    row('infobatch', None, 0, 0.47, share=0.6),
]


def cells(rows):
    """Table name -> row name -> column name -> text."""
    tables = make_tables(Results(rows, 'm'))
    return {
        table.name: {
            line[0]: dict(zip(table.header[1:], line[1:], strict=True)) for line in table.rows
        }
        for table in tables
    }


def test_tables_show_means_deviations_failures_and_what_is_missing():
    metric = cells(ROWS)['metric']
    assert metric['full'] == {'50 %': '-', 'not set': '51.0 ± 1.0'}
    assert metric['random']['50 %'] == '41.0 ± 1.0'
    assert metric['clip_dedup']['50 %'] == '45.0 ± 1.4 (n=2, 1 failed)'
    assert metric['hopeless']['50 %'] == 'failed'
    assert metric['infobatch']['not set'] == '47.0 (n=1, 60 % used)'


def test_tables_compare_with_random_full_and_the_reference_by_seed():
    tables = cells(ROWS)
    assert tables['recovered']['clip_dedup']['50 %'] == '45 %'
    assert tables['recovered']['ours_1']['50 %'] == '50 %'
    assert set(tables['difference']) == {'random', 'ours_1'}
    assert tables['difference']['ours_1']['50 %'] == '+1.00'
    assert tables['seconds']['random'] == {'50 %': '12.0 = 2.0 + 10.0', 'not set': '-'}
    assert tables['stages']['random']['features'] == '2.0'
    assert tables['break_even']['random']['50 %'] == 'never'
    cheaper = cells(
        [dict(one, training_seconds=6.0) if one['variant'] == 'random' else one for one in ROWS]
    )
    assert cheaper['break_even']['random']['50 %'] == '0.5'


def test_a_reference_without_ratio_is_compared_at_every_ratio():
    tables = cells([dict(one, compare_with='full') for one in ROWS])
    assert tables['difference']['random'] == {'50 %': '-10.00 [-10.00, -10.00]', 'not set': '-'}
    assert tables['difference']['infobatch']['not set'] == '-3.00'


def test_metrics_that_are_no_shares_are_shown_as_they_are():
    metric = cells([dict(one, value=one['value'] and one['value'] * 100) for one in ROWS])['metric']
    assert metric['random']['50 %'] == '41.0 ± 1.0'


def test_latex_is_escaped():
    text = latex(make_tables(Results(ROWS, 'm'))[0])
    assert (
        r'ours\_1 & 45.0 (n=1) & - \\' in text
        and r'50 \% & not set \\' in text
        and r'$\pm$' in text
    )


def test_failures_are_listed_with_their_reason(tmp_path):
    assert '- m clip_dedup 0.5 seed 2: no luck' in write_tables(tmp_path, ROWS)
    lines = (tmp_path / 'summary.csv').read_text().splitlines()
    assert lines[0].startswith('model,variant,keep_ratio,metric,mean,sd,seeds,failed')
    assert 'm,hopeless,0.5,mAP,,,0,1,' in ''.join(lines)


def test_another_result_of_the_evaluations_can_be_compared():
    assert {one['value'] for one in with_metric(ROWS, 'mAR')} == {1.0}
    with pytest.raises(UserError, match='the results have mAP, mAR'):
        with_metric(ROWS, 'mAPs')


def test_tables_and_plots_of_an_earlier_config_go(tmp_path):
    write_tables(tmp_path / 'tables', ROWS)
    replace_plots(tmp_path / 'plots', [Results(ROWS, 'm')])
    assert {path.name for path in (tmp_path / 'plots').iterdir()} == {
        'm_by_seconds.png',
        'm_by_share.png',
    }
    # All at one share: nothing to draw against it.
    others = [dict(one, model='n') for one in ROWS if one['variant'] in ('full', 'random')]
    write_tables(tmp_path / 'tables', others)
    replace_plots(tmp_path / 'plots', [Results(others, 'n')])
    assert {path.name for path in (tmp_path / 'plots').iterdir()} == {'n_by_seconds.png'}
    assert {path.name[0] for path in (tmp_path / 'tables').glob('*.tex')} == {'n'}


@pytest.mark.parametrize(
    'stored', sorted((DOCS / 'results').glob('*.parquet')), ids=lambda path: path.stem
)
def test_the_page_of_results_is_made_again_from_what_is_stored_beside_it(stored, tmp_path, capsys):
    shutil.copy(stored, tmp_path / 'results.parquet')
    assert run([tmp_path]) == 0
    page = (DOCS / 'RESULTS.md').read_text(encoding='utf-8')
    section = page.split(f'<!-- {stored.stem} -->')[1].split(f'<!-- end of {stored.stem} -->')[0]
    assert (tmp_path / 'tables' / 'tables.md').read_text() in section
    output = capsys.readouterr().out
    assert all(row['model'] in output for row in read_results(stored))
    pictures = re.findall(r'!\[.*?\]\((.*?)\)', section)
    assert sorted(Path(name).name.removeprefix(f'{stored.stem}_') for name in pictures) == sorted(
        path.name for path in (tmp_path / 'plots').iterdir()
    )
    assert all((DOCS / name).read_bytes().startswith(b'\x89PNG') for name in pictures)


@pytest.mark.parametrize(
    'stored', sorted((DOCS / 'results').glob('*_rates.csv')), ids=lambda path: path.stem
)
def test_the_rates_on_the_page_are_those_stored_beside_it(stored, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    from keep_rates import COLUMNS, tables

    with stored.open(encoding='utf-8', newline='') as file:
        header, *rates = csv.reader(file)
    assert tuple(header) == COLUMNS
    page = (DOCS / 'RESULTS.md').read_text(encoding='utf-8')
    assert page.split(f'<!-- {stored.stem} -->')[1].split(f'<!-- end of {stored.stem} -->')[
        0
    ].strip() == (tables(rates).strip())
    kept = [('v', '.5', seed, 'class', 'car', '4', seed) for seed in '13']
    assert tables(kept).endswith('| v | 50% |\n')


def test_a_folder_without_results_is_refused_in_one_line(tmp_path, capsys):
    assert run([tmp_path]) == 2
    write_results(tmp_path / 'results.parquet', ROWS)
    assert read_results(tmp_path / 'results.parquet') == ROWS
    assert 'results.parquet cannot be read' in capsys.readouterr().err


# --- configs and jobs


@pytest.mark.parametrize(
    'path', sorted((ROOT / 'configs' / 'benchmarks').glob('*.py')), ids=lambda path: path.stem
)
def test_every_config_gives_trainings(path, tmp_path):
    benchmark = load_benchmark(path, dict(seeds=[3]))
    jobs = make_jobs(benchmark, {}, tmp_path)
    assert len({job.folder for job in jobs}) == len(jobs)
    for job in jobs:
        config = job.config
        told = config.adadedup if 'adadedup' in config else config.get('dynamic', {})
        assert told.get('keep_ratio') == job.keep_ratio
        assert config.randomness.seed == job.seed == config.get('adadedup', {}).get('seed', 3) == 3
        assert config.custom_hooks[-1]['type'] == 'adadedup_mm.benchmark.BenchmarkHook'
    assert all(job.keep_ratio is None for job in jobs if job.variant == 'full')


def jobs_of(folder, text, **overrides):
    (folder / 'other.py').write_text(TOY_BENCHMARK + text)
    return make_jobs(load_benchmark(folder / 'other.py', overrides), {}, folder / 'work')


def test_a_job_of_the_same_config_has_the_same_key_wherever_it_works(toy):
    benchmark = load_benchmark(toy / 'benchmark.py')
    keys = [[job.key for job in make_jobs(benchmark, {}, toy / name)] for name in ('a', 'b')]
    assert keys[0] == keys[1] and len(set(keys[0])) == 3
    longer = jobs_of(toy, 'common = dict(train_cfg=dict(max_epochs=5))')
    assert not set(keys[0]) & {job.key for job in longer}
    assert longer[0].config.train_cfg.max_epochs == 5


def test_variants_merge_their_bases_in_order(toy):
    (toy / 'base.py').write_text(
        'train_cfg = dict(max_epochs=7)\noptim_wrapper = dict(optimizer=dict(lr=.5))'
    )
    jobs = jobs_of(toy, "variants = dict(one=dict(_base_='base.py', train_cfg=dict(max_epochs=9)))")
    assert (jobs[0].config.train_cfg.max_epochs, jobs[0].config.optim_wrapper.optimizer.lr) == (
        9,
        0.5,
    )
    assert jobs[0].config.train_cfg.val_interval > 9


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('keep_ratio = .5', "did you mean 'keep_ratios'"),
        ('keep_ratios = [0.]', 'above 0'),
        ('keep_ratios = []', 'keep_ratios is empty'),
        ('seeds = [-1]', 'whole numbers'),
        ('variants = dict(one=3)', 'variants.one is 3'),
        ('variants = dict(one=dict(dynamic=5))', 'variants.one.dynamic is 5'),
        ('variants = dict(one=dict(adadedupp=dict()))', "did you mean 'adadedup'"),
        (
            'variants = dict(one=dict(adadedup=dict(keep_ratio=.9)))',
            'which keep_ratios of the benchmark sets',
        ),
        ('metric = 5', 'metric is 5'),
        ('compare_with = None', 'compare_with is None'),
        ('compare_with = "ful"', "did you mean 'full'"),
        ('gpu_hours = dict(line="x")', "gpu_hours.line is 'x'"),
        ('gpu_hours = dict(lines=1)', "did you mean 'line'"),
        ('variants = {"a/b": dict()}', "'a/b' names files"),
        ('variants = {"a" * 101: dict()}', 'at most 100 bytes'),
        ('models = dict(line="nowhere.py")', 'nowhere.py'),
        (
            'models = dict(line=dict(_base_="toy_model.py", adadedup=dict()))\nvariants = '
            'dict(x=dict())',
            'prunes by itself',
        ),
        (
            'variants = dict(one=dict(train_cfg=dict(max_epochs=dict(a=1))))',
            'variants.one: TypeError',
        ),
        ('variants = dict(one=dict(train_cfg=None))', 'no config that trains'),
        ('common = dict(train_cfg=5)', 'train_cfg is 5'),
        ('common = dict(default_hooks=5)', 'default_hooks is 5'),
        ('common = dict(default_hooks=dict(checkpoint=5))', 'default_hooks.checkpoint is 5'),
        ('common = dict(custom_hooks=5)', 'custom_hooks is 5'),
        ('common = dict(randomness=5)', 'randomness is 5'),
        (
            'variants = dict(one=dict(adadedup=dict(strategy="adadedupe")))',
            "did you mean 'adadedup'",
        ),
        ('variants = dict(one=dict(adadedup=dict(kep_ratio=.5)))', 'keep_ratio'),
    ],
)
def test_wrong_configs_are_refused_in_one_line(text, message, toy):
    with pytest.raises(UserError) as error:
        jobs_of(toy, text)
    assert message in str(error.value) and '\n' not in str(error.value)


def test_a_missing_key_is_named(toy):
    (toy / 'other.py').write_text('models = dict(line="toy_model.py")')
    with pytest.raises(UserError, match="has no 'variants'"):
        load_benchmark(toy / 'other.py')


# --- data


def coco(folder, images, keys=None, name='annotations/labels.json', **content):
    (folder / 'pictures').mkdir(parents=True, exist_ok=True)
    (folder / 'pictures' / '0.jpg').touch()
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    records = [
        dict(
            id=i, file_name=f'{i}.jpg', **({key: values[i] for key, values in (keys or {}).items()})
        )
        for i in range(images)
    ]
    boxes = [dict(id=i, image_id=i, category_id=1) for i in range(images)]
    path.write_text(
        json.dumps(
            dict(images=records, annotations=boxes, categories=[dict(id=1, name='car')]) | content
        )
    )


def ids(path):
    content = json.loads(Path(path).read_text())
    assert [item['image_id'] for item in content['annotations']] == [
        image['id'] for image in content['images']
    ]
    return [image['id'] for image in content['images']]


def test_without_a_validation_file_the_end_of_every_scene_becomes_one(tmp_path):
    coco(tmp_path / 'data', 10, dict(video=['a', 'b'] * 5))
    settings = coco_folder(tmp_path / 'work', str(tmp_path / 'data'))
    assert ids(settings['val_evaluator']['ann_file']) == [8, 9]
    assert ids(settings['train_dataloader']['dataset']['ann_file']) == list(range(8))
    assert settings['train_dataloader']['dataset']['data_prefix'] == dict(img='pictures/')
    assert settings['num_classes'] == 1
    coco(tmp_path / 'data', 10)
    settings = coco_folder(tmp_path / 'work', str(tmp_path / 'data'), val_share=0.3)
    assert ids(settings['val_dataloader']['dataset']['ann_file']) == [7, 8, 9]


def test_a_share_of_small_scenes_comes_together(tmp_path):
    coco(tmp_path / 'data', 20, dict(video=[i // 2 for i in range(20)]))
    settings = coco_folder(tmp_path / 'work', str(tmp_path / 'data'))
    assert len(ids(settings['val_evaluator']['ann_file'])) == 4


@pytest.mark.parametrize(
    ('names', 'is_split'),
    [
        (['instances_trainval.json'], True),
        (['validation/a.json'], True),
        (['train.json', 'interval.json'], True),
        (['train.json', 'valid.json'], False),
        (['training/a.json', 'validation/a.json'], False),
    ],
)
def test_train_and_val_are_words_of_a_path(names, is_split, tmp_path):
    for name in names:
        coco(tmp_path / 'data', 10, name=name)
    settings = coco_folder(tmp_path / 'work', str(tmp_path / 'data'))
    found = [
        settings['train_dataloader']['dataset']['ann_file'],
        settings['val_evaluator']['ann_file'],
    ]
    if is_split:
        assert found == [
            str(tmp_path / f'work/data/instances_{name}.json') for name in ('train', 'val')
        ]
    else:
        assert found == [str(tmp_path / 'data' / name) for name in names]


def test_train_and_val_files_are_found_by_name(tmp_path):
    for name in ('train', 'val'):
        coco(tmp_path, 4, name=f'instances_{name}2017.json')
    settings = coco_folder(tmp_path / 'work', str(tmp_path))
    assert settings['train_dataloader']['dataset']['ann_file'].endswith('instances_train2017.json')
    assert settings['val_evaluator']['ann_file'].endswith('instances_val2017.json')
    coco(tmp_path, 4, name='captions_val2017.json')
    assert coco_folder(tmp_path / 'work', str(tmp_path)) == settings
    coco(tmp_path, 4, name='instances_val_2.json')
    with pytest.raises(UserError, match='data.val=FILE'):
        coco_folder(tmp_path / 'work', str(tmp_path))


@pytest.mark.parametrize(
    ('data', 'message'),
    [
        (dict(type='coco_folder'), 'data.root=FOLDER'),
        (dict(type='coco_folder', root='nowhere'), 'is no folder'),
        (dict(type='coco_folder', root='empty'), 'holds no COCO'),
        (dict(type='coco_folder', root='small'), 'too few'),
        (dict(type='coco_folder', root='small', val='x.json'), 'x.json cannot be read'),
        (dict(type='coco_folder', root='small', val='annotations/labels.json'), 'are both'),
        (dict(type='coco_folder', root='small', images='.'), 'has no 0.jpg'),
        (dict(type='coco_folder', root='nameless'), "a record of 'categories' has no 'name'"),
        (dict(type='coco_folder', root='broken'), 'cannot be read as COCO'),
        (dict(type='coco_folder', root='no_objects'), 'has no images, annotations or categories'),
        (dict(type='coco_folder', root='small', roots=1), "unexpected keyword argument 'roots'"),
        (
            dict(type='files', paths=['empty', 'missing.zip'], text='fetch it'),
            'missing.zip is missing: fetch it',
        ),
        (dict(type='cocofolder'), "did you mean 'coco_folder'"),
    ],
)
def test_what_is_missing_in_the_data_is_said_in_one_line(data, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    coco(tmp_path / 'small', 2)
    coco(tmp_path / 'no_objects', 2, annotations=[])
    coco(tmp_path / 'nameless', 2, categories=[dict(id=1)])
    Path('empty').mkdir()
    Path('broken').mkdir()
    Path('broken', 'a.json').write_text('{')
    with pytest.raises(UserError) as error:
        prepare(data, tmp_path / 'work')
    assert message in str(error.value) and '\n' not in str(error.value)


def test_minidrive_is_made_once(world, tmp_path):
    before = world.stat().st_mtime_ns
    assert prepare(dict(type='minidrive', root=str(world), scenes=12, frames=6), tmp_path) == {}
    assert world.stat().st_mtime_ns == before


# --- running


def fake_jobs(count, folder=Path('nowhere')):
    return [Job('m', f'v{i}', None, 0, Config(), {}, f'{i:064}', folder) for i in range(count)]


def test_jobs_run_side_by_side_each_in_a_slot_of_its_own():
    busy, ended, most = {}, [], []
    times = [0.3, 0.05, 0.05, 0.3, 0.05]
    jobs = fake_jobs(5)

    def start(job, slot):
        assert slot not in busy
        busy[slot] = job
        most.append(len(busy))
        return subprocess.Popen(
            ['sh', '-c', f'sleep {times[jobs.index(job)]}; exit {jobs.index(job)}']
        )

    def finish(job, code, seconds):
        del busy[next(slot for slot, one in busy.items() if one is job)]
        ended.append((job.variant, code))
        assert seconds >= times[jobs.index(job)]

    run_jobs(jobs, start, finish, 2, SimpleNamespace(tick=lambda running: None), poll=0.01)
    assert sorted(ended) == [(f'v{i}', i) for i in range(5)] and max(most) == 2


def test_running_jobs_are_ended_when_anything_goes_wrong():
    processes = []

    def start(job, slot):
        processes.append(subprocess.Popen(['sleep', '60']))
        return processes[-1]

    def tick(running):
        if len(running) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs(fake_jobs(3), start, lambda *_: None, 2, SimpleNamespace(tick=tick), poll=0.01)
    assert [process.returncode for process in processes] == [-signal.SIGTERM] * 2


def test_every_slot_has_gpus_and_a_port_of_its_own(monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '2,3,5,7')
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    alone = Launcher(side_by_side=4)
    assert [alone.environment(slot)['CUDA_VISIBLE_DEVICES'] for slot in range(4)] == [
        '2',
        '3',
        '5',
        '7',
    ]
    pairs = Launcher('pytorch', 2, 2)
    assert [pairs.environment(slot)['CUDA_VISIBLE_DEVICES'] for slot in range(2)] == ['2,3', '5,7']
    assert len({pairs.environment(slot)['PORT'] for slot in range(2)}) == 2
    with pytest.raises(UserError, match='needs 6 GPUs, but 4 are visible'):
        Launcher('pytorch', 2, 3).check()


@pytest.mark.parametrize(
    ('launcher', 'message'),
    [
        (Launcher(side_by_side=0), 'at least 1'),
        (Launcher('slurm'), '--partition'),
        (Launcher('slurm', partition='gpu'), 'srun'),
    ],
)
def test_impossible_launchers_are_refused(launcher, message, monkeypatch, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(UserError, match=message):
        launcher.check()


@pytest.mark.parametrize('port', ['', 'abc', '-1'])
def test_a_port_that_is_no_number_is_refused(port, monkeypatch):
    monkeypatch.setenv('PORT', port)
    with pytest.raises(UserError, match=f"PORT is '{port}'"):
        Launcher().check()


def test_slurm_gets_a_job_step_for_each_training(tmp_path, monkeypatch):
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/sh\necho "$@"\nexit 3\n')
    srun.chmod(0o755)
    monkeypatch.setenv('PATH', f'{tmp_path}{os.pathsep}{os.environ["PATH"]}')
    launcher = Launcher('slurm', 4, 1, 'big')
    launcher.check()
    job = fake_jobs(1, tmp_path)[0]
    assert launcher.start(job, 0).wait() == 3
    line = (job.folder / 'log.txt').read_text()
    assert '--partition big' in line and '--ntasks 4' in line and f'--work-dir {job.folder}' in line
    assert (
        '--launcher slurm --resume' in line
        and str(tmp_path / 'configs' / f'{job.folder.name}.py') in line
    )


def test_an_incomplete_checkpoint_is_not_resumed(tmp_path):
    import torch

    torch.save(dict(a=1), tmp_path / 'epoch_1.pth')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_1.pth'))
    drop_broken_checkpoints(tmp_path)
    assert (tmp_path / 'epoch_1.pth').exists()
    (tmp_path / 'epoch_1.pth').write_bytes((tmp_path / 'epoch_1.pth').read_bytes()[:-30])
    drop_broken_checkpoints(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_error_is_the_line_that_says_why(tmp_path):
    log = tmp_path / 'log.txt'
    assert last_error(log, 1) == 'it wrote nothing'
    log.write_text(
        'Epoch 1\r 10%\r 20%\nTraceback:\n  File\nValueError: no boxes\nroot cause:\n'
        'torch.distributed.elastic.multiprocessing.errors.ChildFailedError:\n=====\n'
    )
    assert last_error(log, 1) == 'ValueError: no boxes'
    log.write_text('warming up\nerror: the file is missing\n')
    assert last_error(log, 2) == 'error: the file is missing'
    log.write_text('Epoch 1\n')
    assert last_error(log, -9) == 'ended by SIGKILL; its last line: Epoch 1'
    assert last_error(log, 0).startswith('it ended without a result')


def test_the_time_left_follows_the_pace():
    assert remaining_seconds([], 3.0, 2) is None
    assert remaining_seconds([(1.0, 10.0), (0.5, 5.0)], 3.0, 2) == 15
    assert [in_words(seconds) for seconds in (5, 89, 600, 7260)] == [
        '5 s',
        '89 s',
        '10 min',
        '2 h 01 min',
    ]


def test_the_overview_counts_and_shows_the_end_of_each_log(tmp_path, capsys):
    jobs = fake_jobs(5, tmp_path)
    jobs[0].folder.mkdir(parents=True)
    (jobs[0].folder / 'log.txt').write_text('Epoch 1\nEpoch 2\r 10%\r 20%\n\n')
    rows = [
        row(job.variant, None, 0, value, key=job.key, job_seconds=60.0)
        for job, value in zip(jobs[3:], (0.5, None), strict=True)
    ]
    overview = Overview(jobs, rows[:1], 2)
    overview.finished(jobs[4], rows[1])
    picture = overview.picture([Running(jobs[0], None, time.monotonic() - 200)])
    console = Console(file=io.StringIO(), width=150)
    console.print(picture)
    lines = console.file.getvalue().splitlines()
    assert lines[0] == '1 done, 1 failed, 1 running, 2 to come; about 2 min left'
    assert lines[1].split('  ')[:3] == ['m v0 seed 0', '3 min', '20%']
    assert '[2/5] FAILED m v4 seed 0: no luck (60 s; about 2 min left)' in capsys.readouterr().err


def test_failed_trainings_are_shown_and_tried_again_and_finished_ones_are_not(toy, capfd):
    work = toy / 'work'
    arguments = [toy / 'benchmark.py', '--work-dir', work, '--jobs', '2']
    assert run(arguments) == 1
    output = capfd.readouterr()
    assert 'FAILED line broken seed 0: RuntimeError: the line is broken' in output.err
    assert '- line broken seed 0: RuntimeError: the line is broken' in output.out
    rows = {row['variant']: row for row in read_results(work / 'results.parquet')}
    assert {name: row['status'] for name, row in rows.items()} == dict(
        full='done', slow='done', broken='failed'
    )
    full = rows['full']
    assert full['value'] == json.loads(full['metrics'])['points/accuracy']
    assert (full['samples'], full['share'], full['pruning_seconds']) == (24, 1.0, 0.0)
    # 3 epochs of 24 samples at 0.05 s each.
    assert 3.6 <= rows['slow']['training_seconds'] <= rows['slow']['job_seconds']
    assert not list(work.rglob('*.pth')) and not list(work.rglob('*.tmp'))
    before = {
        path: path.stat().st_mtime_ns
        for path in (work / 'jobs').rglob('*')
        if 'broken' not in str(path)
    }
    assert run(arguments) == 1
    assert '[3/3] FAILED line broken' in capfd.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_metric_that_the_evaluation_does_not_give_stops_at_once(toy, capfd):
    work = toy / 'work'
    for wrong in (['--cfg-options', 'metric=mAP'], ['--metric', 'mAP']):
        assert run([toy / 'benchmark.py', '--work-dir', work, *wrong]) == 2
        assert "no 'mAP', but points/accuracy" in capfd.readouterr().err
        assert [path.parent.name.split('-')[1] for path in work.glob('jobs/*/result.json')] == [
            'full'
        ]
    # The training before is not lost, and keeps what is said of it.
    assert run([toy / 'benchmark.py', '--work-dir', work, '--jobs', '2']) == 1
    launches = {row['variant']: row['launch'] for row in read_results(work / 'results.parquet')}
    assert launches == dict(
        full='none, 1 side by side', slow='none, 2 side by side', broken='none, 2 side by side'
    )


def test_variants_of_equal_settings_have_rows_of_their_own(toy):
    (toy / 'other.py').write_text(
        TOY_BENCHMARK + 'variants = dict(full=dict(), same=dict(), other=dict())'
    )
    jobs = make_jobs(load_benchmark(toy / 'other.py'), {}, toy / 'work')
    assert len({job.key for job in jobs}) == 1
    assert run([toy / 'other.py', '--work-dir', toy / 'work', '--jobs', '3']) == 0
    rows = read_results(toy / 'work' / 'results.parquet')
    assert [row['variant'] for row in rows] == ['full', 'same', 'other'] and len(
        {row['value'] for row in rows}
    ) == 1


def test_wrong_input_leaves_no_work_dir(toy, capsys):
    (toy / 'other.py').write_text(TOY_BENCHMARK + "common = dict(load_from='ckpts/nowhere.pth')")
    assert run([toy / 'other.py', '--work-dir', toy / 'work']) == 2
    assert 'ckpts/nowhere.pth is missing, which line starts from' in capsys.readouterr().err
    assert not (toy / 'work').exists()
    assert run([toy / 'benchmark.py', '--work-dir', toy / 'toy.py']) == 2
    assert 'cannot be written' in capsys.readouterr().err


def test_a_killed_benchmark_leaves_nothing_running_and_goes_on_where_it_was(toy):
    (toy / 'other.py').write_text(
        TOY_BENCHMARK
        + 'variants = dict(slow=dict(train_dataloader=dict(dataset=dict(delay=.1))))\n'
    )
    work = toy / 'work'
    arguments = [str(toy / 'other.py'), '--work-dir', str(work)]
    benchmark = subprocess.Popen([sys.executable, str(ROOT / 'tools' / 'benchmark.py'), *arguments])
    wait_for(lambda: list(work.glob('jobs/*/last_checkpoint')))
    training = int(
        Path(f'/proc/{benchmark.pid}/task/{benchmark.pid}/children').read_text().split()[0]
    )
    benchmark.kill()
    benchmark.wait()
    wait_for(
        lambda: (
            not Path(f'/proc/{training}').exists()
            or Path(f'/proc/{training}/stat').read_text().rsplit(')', 1)[1].split()[0] == 'Z'
        )
    )
    assert not (work / 'results.parquet').exists()
    assert run(arguments) == 0
    assert 'resumed epoch' in next(work.glob('jobs/*/log.txt')).read_text()
    rows = read_results(work / 'results.parquet')
    # Those of the first epoch are in the checkpoint: 3 epochs of 24 samples at 0.1 s each.
    assert [row['status'] for row in rows] == ['done'] and rows[0]['training_seconds'] >= 7.2


def test_a_work_dir_serves_one_benchmark_at_a_time(toy, capsys):
    work = toy / 'work'
    work.mkdir()
    with (work / 'lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run([toy / 'benchmark.py', '--work-dir', work]) == 2
    assert 'in use by another benchmark' in capsys.readouterr().err


def test_a_result_that_was_not_noted_any_more_is_read_from_what_the_training_left(toy, capfd):
    job = jobs_of(toy, 'variants = dict(full=dict())\n')[0]
    job.folder.mkdir(parents=True)
    left = dict(
        seconds=7.0,
        metrics={'points/accuracy': 0.5, 'points/right': 12.0},
        samples=24,
        device='CPU',
    )
    (job.folder / 'training.json').write_text(json.dumps(left))
    for metric, value in left['metrics'].items():
        assert (
            run([toy / 'other.py', '--work-dir', job.work_dir, '--cfg-options', f'metric={metric}'])
            == 0
        )
        rows = read_results(job.work_dir / 'results.parquet')
        assert (rows[0]['value'], rows[0]['training_seconds'], rows[0]['status']) == (
            value,
            7.0,
            'done',
        )
    assert not (job.folder / 'log.txt').exists()


def test_results_of_earlier_calls_are_those_of_the_config_before_anything_is_trained(
    toy, monkeypatch
):
    job, _ = jobs_of(
        toy, 'variants = dict(full=dict(), other=dict(randomness=dict(deterministic=True)))\n'
    )
    job.folder.mkdir(parents=True)
    (job.folder / 'training.json').write_text(
        json.dumps(dict(seconds=7.0, metrics={'points/accuracy': 0.5}, samples=24, device='CPU'))
    )

    def stop(*_):
        raise UserError('stopped')

    monkeypatch.setattr('adadedup_mm.cli.benchmark.run_jobs', stop)
    assert run([toy / 'other.py', '--work-dir', job.work_dir]) == 2
    assert [row['variant'] for row in read_results(job.work_dir / 'results.parquet')] == ['full']


# --- pruning

SMALL = """
_base_ = '{root}/configs/minidrive/faster_rcnn_minidrive.py'
model = dict(backbone=dict(base_channels=4), neck=dict(in_channels=[4, 8, 16, 32], out_channels=16),
             rpn_head=dict(in_channels=16, feat_channels=16),
             roi_head=dict(bbox_roi_extractor=dict(out_channels=16),
                           bbox_head=dict(in_channels=16, fc_out_channels=16)))
data_root = '{world}/coco/'
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
train_cfg = dict(max_epochs=1)
"""
PRUNING = """
models = dict(faster_rcnn='model.py')
_pixels = dict(type='PixelEmbedder', _delete_=True)
variants = dict(clip_dedup=dict(adadedup=dict(strategy='clip_dedup', embedder=_pixels)))
keep_ratios = [.5]
seeds = [1]
metric = 'coco/bbox_mAP'
"""


def test_a_pruned_training_reports_what_was_kept_and_what_it_cost(world, tmp_path):
    (tmp_path / 'model.py').write_text(SMALL.format(root=ROOT, world=world))
    (tmp_path / 'benchmark.py').write_text(PRUNING)
    assert run([tmp_path / 'benchmark.py', '--work-dir', tmp_path / 'work']) == 0
    result = read_results(tmp_path / 'work' / 'results.parquet')[0]
    stages = json.loads(result['pruning_stages'])
    assert list(stages) == ['features', 'clusters', 'density', 'neighbours', 'conflicts']
    assert result['pruning_seconds'] == pytest.approx(sum(stages.values()), abs=0.01)
    assert result['total_seconds'] == pytest.approx(
        result['pruning_seconds'] + result['training_seconds'], abs=0.01
    )
    assert (result['share'], result['keep_ratio'], result['seed']) == (0.5, 0.5, 1)
    settings = json.loads(result['settings'])['adadedup']
    assert (settings['strategy'], settings['seed'], settings['keep_ratio']) == (
        'clip_dedup',
        1,
        0.5,
    )
    assert settings['feedback']['gap']
    assert 'mmdet' in json.loads(result['versions'])


def test_equal_stages_of_several_runs_are_computed_once_at_full_cost(world, tmp_path):
    (tmp_path / 'model.py').write_text(SMALL.format(root=ROOT, world=world))
    (tmp_path / 'config.py').write_text(
        "_base_ = ['./model.py', 'adadedup_mm::_base_/adadedup_offline.py']\n"
        "adadedup = dict(strategy='clip_dedup', embedder=dict(type='PixelEmbedder', _delete_=True))"
    )

    def prune(name, *options):
        prune_main(
            [
                str(tmp_path / 'config.py'),
                '--work-dir',
                str(tmp_path / name),
                '--cfg-options',
                *options,
            ]
        )
        return json.loads((tmp_path / name / 'manifest.json').read_text())

    shared = f'adadedup.shared_stages={tmp_path / "shared"}'
    first = prune('first', shared)
    for name, options, same in (
        (
            'ratio',
            ['adadedup.keep_ratio=.3'],
            ['features', 'clusters', 'density', 'neighbours', 'conflicts'],
        ),
        ('seed', ['adadedup.seed=1'], ['features']),
    ):
        other = prune(name, shared, *options)
        for stage in first['stages']:
            files = [
                (tmp_path / run / 'stages' / stage / 'done.json').stat().st_ino
                for run in ('first', name)
            ]
            assert (files[0] == files[1]) == (stage in same)
            assert stage not in same or other['stages'][stage] == first['stages'][stage]
    alone = prune('alone', 'adadedup.keep_ratio=.3')
    samples = [
        (tmp_path / run / 'annotations' / 'instances_train.json').read_bytes()
        for run in ('ratio', 'alone')
    ]
    assert samples[0] == samples[1] and alone['kept'] == round(48 * 0.3)


def test_a_run_waits_for_another_one_that_computes_the_same_stage(tmp_path):
    def compute(folder):
        with (tmp_path / 'computed').open('a') as file:
            file.write('x')
        time.sleep(0.5)
        (folder / 'result').write_text('y')

    children = []
    for name in 'abc':
        children.append(os.fork())
        if not children[-1]:
            folder = StageStore(tmp_path / name, shared=tmp_path / 'shared').run(
                'stage', 'key', compute
            )
            os._exit(0 if (folder / 'result').read_text() == 'y' else 1)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert (tmp_path / 'computed').read_text() == 'x'
    records = [StageStore(tmp_path / name).record('stage') for name in 'abc']
    assert records[0] == records[1] == records[2] and records[0]['seconds'] >= 0.5


def test_a_stage_whose_computation_was_killed_is_computed_by_the_next_run(tmp_path):
    def compute(folder):
        (folder / 'result').write_text('y')

    child = os.fork()
    if not child:
        StageStore(tmp_path / 'a', shared=tmp_path / 'shared').run(
            'stage', 'key', lambda folder: os.kill(os.getpid(), signal.SIGKILL)
        )
    os.waitpid(child, 0)
    folder = StageStore(tmp_path / 'b', shared=tmp_path / 'shared').run('stage', 'key', compute)
    assert (folder / 'result').read_text() == 'y'
    StageStore(tmp_path / 'a', shared=tmp_path / 'shared').run('stage', 'key', pytest.fail)
    assert (tmp_path / 'a' / 'stage' / 'result').read_text() == 'y'


@pytest.mark.parametrize('moment', ['link', 'rename'])
def test_a_run_killed_while_it_hands_a_stage_on_does_so_when_it_resumes(
    moment, tmp_path, monkeypatch
):
    def compute(folder):
        (folder / 'result').write_text('y')

    child = os.fork()
    if not child:
        owner = os if moment == 'link' else Path
        monkeypatch.setattr(owner, moment, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        StageStore(tmp_path / 'a', shared=tmp_path / 'shared').run('stage', 'key', compute)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    StageStore(tmp_path / 'a', shared=tmp_path / 'shared').run('stage', 'key', pytest.fail)
    StageStore(tmp_path / 'b', shared=tmp_path / 'shared').run('stage', 'key', pytest.fail)
    assert (tmp_path / 'b' / 'stage' / 'result').read_text() == 'y'
    assert {path.name for path in (tmp_path / 'shared').iterdir()} == {
        'stage-key',
        'stage-key.lock',
    }
