"""Benchmarks by probe, a world for each seed, and the verdict under the tables."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.config import Config

from adadedup_mm.base.errors import UserError
from adadedup_mm.benchmark import probes
from adadedup_mm.benchmark.config import load_benchmark
from adadedup_mm.benchmark.data import in_world, prepare
from adadedup_mm.benchmark.jobs import Job, make_jobs
from adadedup_mm.benchmark.overview import Overview, seconds_to_come
from adadedup_mm.benchmark.plots import replace_plots
from adadedup_mm.benchmark.results import read_results
from adadedup_mm.benchmark.tables import Results, make_tables
from adadedup_mm.benchmark.verdict import mean_difference, verdict_text
from adadedup_mm.cli.benchmark import main
from adadedup_mm.datasets import read_pool

CONFIGS = Path(__file__).parents[1] / 'configs'
BENCHMARK = """
_root = '{folder}/worlds'
_coco = _root + '/coco/'
data = dict(type='minidrive', root=_root, scenes=6, frames=2, world_per_seed=True)
models = dict(
    probe=dict(
        type='probe',
        _base_='{configs}/minidrive/faster_rcnn_lite0_minidrive.py',
        probe=dict(size=64),
    )
)
common = dict(
    train_dataloader=dict(dataset=dict(data_root=_coco)),
    val_dataloader=dict(dataset=dict(data_root=_coco)),
    val_evaluator=dict(ann_file=_coco + 'annotations/instances_val.json'),
)


def _quick(**options):
    pixels = dict(type='PixelEmbedder', _delete_=True)
    return dict(adadedup=dict(embedder=pixels, probe=dict(size=64), **options))


variants = dict(
    full=dict(),
    random=_quick(strategy='random'),
    clip_dedup=_quick(strategy='clip_dedup'),
    vlm_sse=_quick(strategy=dict(type='vlm_sse', captions='nowhere.jsonl')),
    adadedup=_quick(),
)
keep_ratios = [0.5]
seeds = [0, 1]
metric = 'coco/bbox_mAP'
"""


def run(arguments):
    """Calls the tool and returns its exit code."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code
    return 0


def written(folder, text=''):
    path = folder / 'benchmark.py'
    path.write_text(BENCHMARK.format(folder=folder, configs=CONFIGS) + text)
    return path


# --- measuring


def test_selections_are_measured_as_rows_like_those_of_trainings(tmp_path, capfd, monkeypatch):
    work = tmp_path / 'work'
    arguments = [written(tmp_path), '--work-dir', work]
    assert run(arguments) == 1
    output = capfd.readouterr()
    assert '10 selections for the probe: 1 models' in output.out
    assert (
        'probe seed 1: ' in output.err and 'FAILED probe vlm_sse 50% seed 0: error: ' in output.err
    )
    rows = {
        (row['variant'], row['keep_ratio'], row['seed']): row
        for row in read_results(work / 'results.parquet')
    }
    assert len(rows) == 10
    failed = {name[0] for name, row in rows.items() if row['status'] == 'failed'}
    assert failed == {'vlm_sse'}
    pruned = rows['clip_dedup', 0.5, 1]
    assert set(json.loads(pruned['metrics'])) == {'coco/bbox_mAP', 'coco/bbox_mAP_50'}
    assert {'features', 'clusters', 'density'} <= set(json.loads(pruned['pruning_stages']))
    assert pruned['training_seconds'] > 0 and pruned['launch'] == 'probe'
    full = rows['full', None, 0]
    assert (full['share'], full['pruning_seconds']) == (1, 0)
    assert pruned['samples'] == round(0.5 * full['samples'])
    assert 'Trainings after which' not in output.out and '**probe**: Against random' in output.out
    assert not list((work / 'probe').iterdir())

    tried = []

    def choose(job, *_):
        tried.append(job.variant)
        raise RuntimeError('again')

    monkeypatch.setattr(probes, '_choose', choose)
    assert run(arguments) == 1
    assert tried == ['vlm_sse'] * 2
    assert 'FAILED probe vlm_sse 50% seed 1: RuntimeError: again' in capfd.readouterr().err


def test_a_group_is_what_has_the_same_data_and_all_have_one_judge(tmp_path):
    text = (
        'variants.update(other=dict(adadedup=dict(probe=dict(size=96))),\n'
        '    all_views=dict(val_dataloader=dict(dataset=dict(test_mode=True, indices=3))))\n'
        "models['probe']['probe'] = dict(size=80)\n"
    )
    jobs = make_jobs(load_benchmark(written(tmp_path, text)), {}, tmp_path / 'work')
    groups = probes.measured_together(jobs)
    assert sorted(len(group) for group in groups) == [1, 1, 6, 6]
    assert all(len({job.seed for job in group}) == 1 for group in groups)
    assert {job.judge.probe.size for job in jobs} == {80}
    other = make_jobs(load_benchmark(written(tmp_path)), {}, tmp_path / 'work')
    assert not {job.key for job in jobs} & {job.key for job in other}


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ("models['probe']['type'] = 'prob'", "did you mean 'probe'"),
        ("variants['infobatch'] = dict(dynamic=dict(policy='infobatch'))", 'trains nothing'),
        ("models['probe']['probe'] = dict(sise=64)", "did you mean 'size'"),
        ("models['probe']['probe'] = 64", 'adadedup.probe must be a dict'),
        ("data['seed'] = 3", 'data.seed is what world_per_seed sets'),
        ("data['world_per_seed'] = 1", 'must be True or False'),
        ("data.pop('root')", 'data.root is missing'),
        ("data['root'] = 'elsewhere'", 'no path of the training configs lies below'),
        ("data = dict(type='none', world_per_seed=True)", "is for data of type='minidrive'"),
    ],
)
def test_wrong_benchmarks_by_probe_are_refused_in_one_line(text, message, tmp_path):
    with pytest.raises(UserError) as error:
        make_jobs(load_benchmark(written(tmp_path, f'{text}\n')), {}, tmp_path / 'work')
    assert message in str(error.value) and '\n' not in str(error.value)


# --- worlds


def test_trainings_of_a_seed_are_those_of_its_world(tmp_path):
    text = f"models = dict(line='{CONFIGS}/minidrive/faster_rcnn_lite0_minidrive.py')\n"
    benchmark = load_benchmark(written(tmp_path, text))
    jobs = make_jobs(benchmark, prepare(benchmark.data, tmp_path, [1]), tmp_path / 'work')
    for job in jobs:
        world = f'{tmp_path}/worlds/{job.seed}/coco/'
        assert job.config.train_dataloader.dataset.data_root == world
        assert job.config.val_evaluator.ann_file == f'{world}annotations/instances_val.json'
        assert not job.is_probe
    assert json.loads((tmp_path / 'worlds/1/minidrive.json').read_text())['seed'] == 1
    assert not (tmp_path / 'worlds/0').exists()
    assert len(read_pool(jobs[-1].config)[0]) > 0


def test_only_paths_below_the_root_lead_into_a_world():
    data = dict(type='minidrive', root='data/w/', world_per_seed=True)
    value = dict(a=['data/w/coco/', 'data/worlds/', 3], b=('data/w', None))
    assert in_world(value, data, 7) == dict(
        a=['data/w/7/coco/', 'data/worlds/', 3], b=('data/w/7', None)
    )
    assert in_world(value, dict(type='none'), 7) is value


# --- configs


def test_paths_of_a_base_config_count_from_its_own_folder(tmp_path):
    base = os.path.relpath(CONFIGS / 'benchmarks' / 'coco_folder.py', tmp_path)
    (tmp_path / 'mine.py').write_text(f"_base_ = ['{base}']\nkeep_ratios = [.5]\n")
    (tmp_path / 'yours.py').write_text("_base_ = './mine.py'\nseeds = [7]\n")
    for name in ('mine.py', 'yours.py'):
        model = load_benchmark(tmp_path / name).models['faster_rcnn']
        assert model == str(CONFIGS / 'minidrive' / 'faster_rcnn_lite0_minidrive.py')


# --- verdict


def row(variant, ratio, seed, value, **others):
    return dict(
        model='m',
        variant=variant,
        keep_ratio=ratio,
        seed=seed,
        value=value,
        metric='mAP',
        status='failed' if value is None else 'done',
        share=ratio or 1.0,
        pruning_stages='{}',
        pruning_seconds=0.0,
        training_seconds=1.0,
        total_seconds=1.0,
        launch='none',
        compare_with='clip_dedup',
    ) | dict(others)


def rows_of(gains, seeds=6, ratios=(0.3, 0.5)):
    """Variants that gain what is said over random, which differs a lot from seed to seed."""
    generator = np.random.default_rng(0)
    rows = []
    for seed in range(seeds):
        level = 0.2 + 0.1 * generator.random()
        rows.append(row('full', None, seed, level + 0.1))
        for variant, gain in gains.items():
            for ratio in ratios:
                noise = 0.002 * generator.normal()
                rows.append(row(variant, ratio, seed, level + gain + noise))
    return rows


def test_the_verdict_names_what_differs_by_more_than_noise():
    gains = dict(random=0, clip_dedup=0.03, ours=0.06, bad=-0.04, like_random=0)
    text = verdict_text([Results(rows_of(gains), 'm')])
    against_random, against_density = text.split('Against clip_dedup')
    assert 'ours +6.' in against_random and 'clip_dedup +' in against_random
    assert (
        '; bad \u22124' in against_random and 'like_random the same but for noise' in against_random
    )
    assert against_density.index('ours +') < against_density.index('better')
    assert 'full' not in text and 'points of mAP' in text and '6 seeds' in text


def test_of_many_variants_without_a_difference_none_is_named():
    gains = dict.fromkeys(['random', *(f'v{number}' for number in range(20))], 0)
    text = verdict_text([Results(rows_of(gains), 'm')])
    assert 'nothing differs by more than noise (v0, v1, ' in text


def test_a_single_seed_gets_a_caution_and_no_comparison():
    rows = rows_of(dict(random=0, clip_dedup=0.3), seeds=1)
    assert 'there is one seed' in verdict_text([Results(rows, 'm')])
    assert 'Against' not in verdict_text([Results(rows, 'm')])
    measured = [dict(one, launch='probe') for one in rows]
    assert 'another world' in verdict_text([Results(measured, 'm')])
    assert 'pruning + measuring' in ' '.join(
        table.title for table in make_tables(Results(measured, 'm'))
    )


def test_seeds_in_which_a_ratio_has_failed_are_left_out_of_the_mean():
    rows = rows_of(dict(random=0, ours=0.1), seeds=3)
    rows = [
        dict(one, value=None, status='failed')
        if (one['variant'], one['seed'], one['keep_ratio']) == ('ours', 1, 0.3)
        else one
        for one in rows
    ]
    assert mean_difference(Results(rows, 'm'), 'ours', 'random').seeds == 2


def test_a_plot_that_would_show_nothing_is_named(tmp_path):
    one = Results(rows_of(dict(random=0, ours=0.1), ratios=(0.5,)), 'm')
    assert replace_plots(tmp_path, [one]) == ['m_by_share.png']
    assert replace_plots(tmp_path, [Results(rows_of(dict(random=0, ours=0.1)), 'm')]) == []


# --- what is shown meanwhile


def test_the_time_to_come_is_read_from_the_log():
    assert seconds_to_come('Epoch(train) eta: 0:01:40  time\nEpoch(train) eta: 0:01:30  time') == 90
    assert seconds_to_come('eta: 1 day, 2:00:01') == 86400 + 7201
    assert seconds_to_come('loading') is None


def test_the_whole_time_is_told_by_the_first_training_before_it_ends(tmp_path, capsys):
    jobs = [Job('m', f'v{i}', None, 0, Config(), {}, f'{i:064}', tmp_path) for i in range(3)]
    jobs[0].folder.mkdir(parents=True)
    overview = Overview(jobs, [], 1)
    running = [SimpleNamespace(job=jobs[0], started=0.0)]
    overview.tick(running)
    (jobs[0].folder / 'log.txt').write_text('eta: 0:10:00 time: 0.1\n')
    for _ in range(2):
        overview.shown = -10.0
        overview.tick(running)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and 'by what m v0 seed 0 says of itself' in lines[0]


def test_the_log_shows_metrics_as_the_tables_do(tmp_path, capsys):
    job = Job('m', 'v', None, 0, Config(), {}, '0' * 64, tmp_path)
    overview = Overview([job], [], 1)
    overview.finished(job, row('v', None, 0, 0.002, job_seconds=1.0))
    overview.finished(job, row('v', None, 0, 12.0, job_seconds=1.0))
    first, second = capsys.readouterr().err.splitlines()
    assert 'mAP 0.2 % (' in first and 'mAP 12 (' in second
