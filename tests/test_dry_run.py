"""What a run would do and cost, before it does."""

import re
import tempfile
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from probe_curves import cctv
from test_pipeline import config, fails, prune_main  # noqa: F401

from adadedup_mm.datasets import read_pool
from adadedup_mm.features import PixelEmbedder
from adadedup_mm.probe.statistics import summarise
from adadedup_mm.proxy.estimate import TrainingSpeed
from adadedup_mm.pruning.dry_run import dry_run
from adadedup_mm.pruning.estimate import Rates, estimate, estimate_line
from adadedup_mm.settings.load import load_config
from adadedup_mm.settings.options import FeedbackOptions, resolve_options
from adadedup_mm.stages import StageStore
from adadedup_mm.strategies.needs import needs_of
from adadedup_mm.strategies.run import Run
from adadedup_mm.workdir.probe import write_curve


@pytest.fixture
def make_run(config, tmp_path):  # noqa: F811
    """A run with these options, which has done nothing yet."""

    def make(world=1, **changes):
        loaded = load_config(config)
        options = replace(resolve_options(loaded), **changes)
        return Run(
            loaded, options, StageStore(tmp_path / 'stages', world=world), *read_pool(loaded)
        )

    return make


def test_the_table_shows_what_runs_would_do_without_writing(config, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'temporary'))
    (tmp_path / 'temporary').mkdir()
    prune_main(
        [
            str(config),
            '--work-dir',
            str(tmp_path / 'run'),
            '--strategy',
            'clip_dedup',
            '--keep-ratio',
            '.35',
            '--dry-run',
        ]
    )
    assert [path.name for path in tmp_path.rglob('*')] == ['temporary']
    printed = capsys.readouterr().out
    rows = [
        re.split(r'\s*│\s*', line)[1:-1] for line in printed.splitlines() if line.startswith('│')
    ]
    assert [row[0] for row in rows] == [
        '0.1',
        '0.2',
        '0.3',
        '0.35',
        '0.4',
        '0.5',
        '0.6',
        '0.7',
        '0.8',
        '0.9',
    ]
    assert [int(row[1]) for row in rows][3] == 17 and all(
        int(row[1]) + int(row[2]) == 48 for row in rows
    )
    assert 'nothing was written' in printed and 'estimated from a short trial' in printed
    assert f'python tools/probe.py {config}' in printed
    prune_main(
        [
            str(config),
            '--work-dir',
            str(tmp_path / 'run'),
            '--strategy',
            'clip_dedup',
            '--keep-ratio',
            '.35',
        ]
    )
    threshold = pq.read_table(tmp_path / 'run/clusters.parquet')['threshold'][0].as_py()
    assert rows[3][3] == f'{threshold:.3f}'


def test_features_of_the_work_dir_are_used(config, tmp_path, monkeypatch, capsys):  # noqa: F811
    arguments = [str(config), '--work-dir', str(tmp_path / 'run'), '--strategy', 'clip_dedup']
    prune_main(arguments)
    write_curve(tmp_path / 'run', summarise(cctv()))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}
    monkeypatch.setattr(PixelEmbedder, 'encode', None)
    prune_main([*arguments, '--dry-run'])
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')} == before
    printed = capsys.readouterr().out
    assert f'features of {tmp_path}/run were used' in printed
    # What a probe has said there comes last.
    assert f'next: python tools/prune.py {config} --keep-ratio 0.5' in printed


def test_strategies_without_features_have_no_thresholds(config, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(PixelEmbedder, 'encode', None)
    loaded = load_config(config)
    result = dry_run(loaded, resolve_options(loaded, strategy='random'), tmp_path)
    assert {(row.threshold, row.near_duplicates) for row in result.rows} == {(None, None)}
    assert [row.kept for row in result.rows] == [5, 10, 14, 19, 24, 29, 34, 38, 43]


def test_strategies_that_do_not_go_by_density_show_no_thresholds_of_it(config, tmp_path):  # noqa: F811
    loaded = load_config(config)
    loaded.adadedup.strategy = dict(type='random', per='cluster')
    result = dry_run(loaded, resolve_options(loaded), tmp_path)
    assert {(row.threshold, row.near_duplicates) for row in result.rows} == {(None, None)}
    assert result.rows[0].cost.features > 0


def test_more_kept_means_a_higher_threshold_and_closer_duplicates(config, tmp_path):  # noqa: F811
    loaded = load_config(config)
    rows = dry_run(loaded, resolve_options(loaded, strategy='clip_dedup'), tmp_path).rows
    thresholds = [row.threshold for row in rows if row.threshold is not None]
    shares = [row.near_duplicates for row in rows]
    assert thresholds == sorted(thresholds) and shares == sorted(shares)


def test_no_threshold_is_shown_where_no_more_samples_stay_than_there_are_clusters(config, tmp_path):  # noqa: F811
    loaded = load_config(config)
    loaded.adadedup.clusterer = dict(type='SphericalKMeans', num_clusters=10)
    result = dry_run(loaded, resolve_options(loaded, strategy='clip_dedup'), tmp_path)
    shown = [row.threshold is not None and row.threshold > -1 for row in result.rows]
    assert shown == [False, False] + [True] * 7
    assert result.notes[-1].endswith('there are clusters, 10')


def test_a_dry_run_counts_the_proxy_where_something_goes(config, tmp_path, monkeypatch):  # noqa: F811
    speed = TrainingSpeed(seconds_per_image=1.0, parameters=1)
    monkeypatch.setattr('adadedup_mm.pruning.estimate.time_training', lambda *given: speed)
    loaded = load_config(config)
    rows = dry_run(loaded, resolve_options(loaded, keep_ratio=1.0), tmp_path).rows
    assert [row.cost.proxy for row in rows[::9]] == [pytest.approx(5 + 48 / 3), 0.0]


def test_dry_runs_are_for_one_process_and_whole_runs(config, tmp_path, capsys):  # noqa: F811
    assert '--dry-run' in fails([config, '--dry-run', '--update', tmp_path], capsys)
    assert '--dry-run' in fails([config, '--dry-run', '--resume'], capsys)


def test_a_run_says_first_what_it_will_take(config, tmp_path, capsys):  # noqa: F811
    def lines(*arguments):
        prune_main([str(config), '--work-dir', str(tmp_path / 'run'), *arguments])
        return [
            text
            for text in capsys.readouterr().out.splitlines()
            if text.startswith('estimate for 48 samples')
        ]

    [text] = lines('--strategy', 'clip_dedup')
    assert re.search(r'features [\d.]+ s.* clusters [\d.]+ s.*B of memory, .*B on disk', text)
    assert lines('--strategy', 'clip_dedup') == []
    [text] = lines('--strategy', 'random', '--resume')
    assert 'features' not in text


def test_the_proxy_is_probed_where_a_run_is_long_enough(make_run, config, monkeypatch):  # noqa: F811
    run = make_run()
    run = make_run(proxy=replace(run.options.proxy, config=str(config)))
    assert ' and the proxy, ' in estimate_line(run)
    monkeypatch.setattr('adadedup_mm.pruning.estimate.MEASURE_FROM', 1)
    text = estimate_line(run)
    assert 'and the proxy' not in text and re.search(
        r'features [^,]+, clusters [^,]+, proxy [\d.]+ ', text
    )


def test_no_proxy_is_announced_where_the_feedback_is_off(make_run, monkeypatch):
    monkeypatch.setattr('adadedup_mm.pruning.estimate.MEASURE_FROM', 1)
    run = make_run(feedback=FeedbackOptions(beta=0))
    assert 'proxy' not in estimate_line(run)


@pytest.mark.parametrize('without', ['feedback', 'pruning', 'labels'])
def test_a_proxy_that_will_not_be_asked_is_not_needed(without, make_run):
    run = make_run(feedback=FeedbackOptions(beta=0 if without == 'feedback' else 0.5))
    if without == 'labels':
        run.pool.labelled[:] = False
    work = needs_of(run, 1.0 if without == 'pruning' else 0.5)
    assert (work.by_density, work.trained, work.scored) == (True, 0, 0)


@pytest.mark.parametrize(
    'strategy, features, trained, scored',
    [
        ('uniform_stride', False, 0, 0),
        ('random', False, 0, 0),
        (dict(type='random', per='cluster'), True, 0, 0),
        ('clip_dedup', True, 0, 0),
        ('vlm_sse', True, 0, 0),
        ('adadedup', True, 24, 48),
        (dict(type='el2n', runs=2, epochs=5), False, 480, 96),
        (dict(type='forgetting', runs=1, epochs=3), False, 144, 144),
    ],
)
def test_the_needs_of_each_strategy(strategy, features, trained, scored, make_run):
    work = needs_of(make_run(strategy=strategy), 0.5)
    assert (work.features, work.trained, work.scored) == (features, trained, scored)


def test_a_given_checkpoint_saves_the_training(make_run, tmp_path):
    (tmp_path / 'given.pth').touch()
    run = make_run()
    given = make_run(
        proxy=replace(
            run.options.proxy, checkpoint=str(tmp_path / 'given.pth'), max_loss_samples=10
        )
    )
    assert (needs_of(given, 0.5).trained, needs_of(given, 0.5).scored) == (0, 10)


def test_estimates_follow_the_rates(make_run):
    run = make_run()
    rates = Rates(
        image=0.1, dim=100, product=1e9, proxy=TrainingSpeed(seconds_per_image=0.5, parameters=1000)
    )
    cost = estimate(run, needs_of(run, 0.5), rates, 0.5)
    assert cost.features == pytest.approx(4.8) and cost.proxy == pytest.approx(0.5 * (24 + 48 / 3))
    assert cost.seconds == pytest.approx(cost.features + cost.clusters + cost.proxy)
    ann_file = Path(run.sources[0].ann_file)
    assert cost.disk == 48 * 400 + 48 * 4 * (100 + 257) + 16_000 + round(
        0.5 * ann_file.stat().st_size
    )
    two = make_run(world=2)
    assert estimate(two, needs_of(two, 0.5), rates, 0.5).features == pytest.approx(2.4)


def test_the_disk_holds_the_features_once_more_where_label_layouts_are_joined_with_them(make_run):
    rates = Rates(image=0.0, dim=512, product=1e9, proxy=None)
    costs = []
    for layout in (0.3, 0.0):
        run = make_run(strategy='adadedup', feedback=FeedbackOptions(layout=layout))
        costs.append(estimate(run, needs_of(run, 0.5), rates, 0.5))
    n = len(run.pool)
    assert costs[0].disk - costs[1].disk == 4 * n * 257
    assert costs[0].memory == pytest.approx(costs[1].memory, rel=0.01)
