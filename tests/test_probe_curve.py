"""What a probe's user gets: statistics of a curve, verdicts, tables, files and plots."""

import csv
import io
import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from probe_curves import RATIOS, along, cctv, distinct, make_curve, plain_redundancy

from adadedup_mm.base.errors import UserError
from adadedup_mm.cli import probe as cli
from adadedup_mm.cli.common import print_curve
from adadedup_mm.probe.curve import NO_DUPLICATES, NOISY_COPIES, Curve, Point
from adadedup_mm.probe.statistics import (
    Draws,
    Variance,
    difference,
    interval,
    jackknife_variance,
    loss,
    summarise,
)
from adadedup_mm.probe.tables import COLUMNS, WIDTH, curve_csv, curve_text
from adadedup_mm.probe.verdict import best_strategy, judge
from adadedup_mm.report.quality import plot_file, quality_plot
from adadedup_mm.workdir.probe import curve_path, read_curve, read_judged_curve, write_curve

NUMBERS = st.floats(0, 1)


def words_of(text: str) -> str:
    return text.replace('\u00a0', ' ')


def draws(quality: list[float], by_scene: Any) -> Draws:
    return Draws(np.array(quality), np.array(by_scene, float))


# Statistics


@given(st.lists(NUMBERS, min_size=2, max_size=30))
def test_the_jackknife_of_a_mean_is_its_usual_standard_error(values: list[float]) -> None:
    data = np.array(values)
    count = len(data)
    left_out = (data.sum() - data) / (count - 1)
    variance = jackknife_variance(left_out)
    assert variance.value == pytest.approx(data.var(ddof=1) / count, abs=1e-12)
    assert variance.degrees == count - 1


def test_fewer_than_two_blocks_give_no_interval() -> None:
    for by_scene in ([[]], [[0.5]]):
        assert not difference(draws([0.5], by_scene), draws([0.4], by_scene)).is_known


@given(st.lists(NUMBERS, min_size=2, max_size=12), st.lists(NUMBERS, min_size=1, max_size=4))
def test_what_all_selections_share_cancels_in_differences(
    scenes: list[float], qualities: list[float]
) -> None:
    by_scene = [[quality + scene for scene in scenes] for quality in qualities]
    same = difference(draws(qualities, by_scene), draws(qualities, by_scene))
    assert same.value == 0 and same.sign == 0
    # One selection moved by a constant has a difference without noise.
    moved = draws([qualities[0] + 0.25], np.array(by_scene[:1]) + 0.25)
    compared = difference(moved, draws(qualities[:1], by_scene[:1]))
    assert compared.sign == 1
    assert [compared.low, compared.high] == pytest.approx([0.25, 0.25], abs=1e-6)


@given(
    st.lists(NUMBERS, min_size=2, max_size=5),
    st.lists(NUMBERS, min_size=3, max_size=3),
    st.integers(0, 10**6),
)
def test_a_difference_turned_round_is_its_negative(
    first: list[float], second: list[float], rng_seed: int
) -> None:
    rng = np.random.default_rng(rng_seed)
    one = draws(first, rng.random((len(first), 6)))
    other = draws(second, rng.random((3, 6)))
    forth, back = difference(one, other), difference(other, one)
    assert back.value == pytest.approx(-forth.value)
    assert [back.low, back.high] == pytest.approx([-forth.high, -forth.low])
    assert forth.low <= forth.value <= forth.high


def test_the_interval_of_one_variance_is_students() -> None:
    # 2.7764 is the 97.5 % quantile of t with four degrees of freedom.
    found = interval(1.0, [Variance(4.0, 4), Variance(0.0, 1)])
    assert [found.low, found.high] == pytest.approx([1 - 2 * 2.77645, 1 + 2 * 2.77645], rel=1e-5)


@given(st.floats(1e-6, 1), st.floats(1e-6, 1), st.integers(1, 20), st.integers(1, 20))
def test_more_noise_or_a_higher_level_makes_a_wider_interval(
    first: float, second: float, degrees: int, more: int
) -> None:
    alone = interval(0.0, [Variance(first, degrees)])
    higher = interval(0.0, [Variance(first, degrees)], level=0.99)
    equal_degrees = interval(0.0, [Variance(first + second, degrees)])
    assert alone.high < higher.high and alone.high < equal_degrees.high
    # Satterthwaite's degrees lie between the smaller one and the sum.
    both = interval(0.0, [Variance(first, degrees), Variance(second, more)])
    total = first + second
    widest = interval(0.0, [Variance(total, min(degrees, more))])
    narrowest = interval(0.0, [Variance(total, degrees + more)])
    assert narrowest.high <= both.high * (1 + 1e-9)
    assert both.high <= widest.high * (1 + 1e-9)


@given(st.floats(0.1, 1), st.floats(0, 1), st.integers(2, 10))
def test_a_loss_is_a_share_of_the_whole_sets_quality(
    whole: float, share: float, blocks: int
) -> None:
    scenes = np.linspace(0.9, 1.1, blocks)
    found = loss(draws([share * whole], [share * whole * scenes]), draws([whole], [whole * scenes]))
    assert found.value == pytest.approx(1 - share, abs=1e-12)
    # The same share is lost in all scenes.
    assert [found.low, found.high] == pytest.approx([1 - share, 1 - share], abs=1e-6)


def test_a_whole_set_without_quality_has_no_losses() -> None:
    nothing = draws([0.0], [[0.0, 0.0, 0.0]])
    assert np.isnan(loss(nothing, nothing).value)
    only_in_one_block = draws([0.1], [[0.2, 0.0, 0.1]])
    found = loss(nothing, only_in_one_block)
    assert found.value == 1 and not found.is_known


def test_noise_alone_is_called_a_difference_as_rarely_as_said() -> None:
    """Equal strategies, with noise of scenes and of seeds, 150 times."""
    cells = curves = chosen = 0
    for number in range(150):
        summary = summarise(distinct(rng_seed=number, own_noise=0.004))
        cells += summary.of('clip_dedup')[2].minus_random.sign != 0
        curves += any(value.sign for value in summary.overall.values())
        chosen += best_strategy(summary) != 'random'
    # 5 % each would be 7.5, and chance makes 15 of them once in a hundred times.
    assert cells <= 15 and curves <= 15
    assert chosen <= curves


def test_a_single_draw_of_random_compares_with_nothing() -> None:
    summary = summarise(cctv(seeds=1))
    assert not summary.overall['clip_dedup'].is_known
    assert all(cell.minus_random.sign == 0 for cell in summary.cells)
    assert 'drawn once' in ' '.join(judge(summary).sentences)


def test_ratios_and_seeds_that_are_missing_are_left_out() -> None:
    curve = cctv()
    gone = {('clip_dedup', 0.1), ('random', 0.2)}
    fewer = [point for point in curve.points if (point.strategy, point.keep_ratio) not in gone]
    summary = summarise(replace(curve, points=tuple(fewer)))
    assert summary.cell('clip_dedup', 0.1) is None
    at_gap = summary.cell('clip_dedup', 0.2)
    assert at_gap is not None and np.isnan(at_gap.minus_random.value)
    assert summary.overall['clip_dedup'].sign == 1
    row = next(line for line in curve_text(summary).splitlines() if line.startswith('clip_dedup'))
    assert row.split()[1] == '-'
    assert judge(summary).strategy == 'clip_dedup'


# Verdicts


def verdict_on(curve: Curve, **options: Any) -> tuple[str, Any]:
    verdict = judge(summarise(curve), **options)
    assert 1 <= len(verdict.sentences) <= 3
    return words_of(' '.join(verdict.sentences)), verdict


def test_where_copies_abound_the_smallest_harmless_ratio_is_named() -> None:
    text, verdict = verdict_on(cctv(), config='my config.py', usual='adadedup')
    assert text.startswith('At 50 %, chosen by clip_dedup, no loss can be measured')
    assert 'at 30 % it falls by' in text
    assert 'clip_dedup is better than random' in text
    assert (verdict.strategy, verdict.keep_ratio) == ('clip_dedup', 0.5)
    assert verdict.next_step == (
        "python tools/prune.py 'my config.py' --keep-ratio 0.5 --strategy clip_dedup"
    )


def test_the_command_names_no_strategy_that_the_config_has() -> None:
    options = ('--work-dir', 'a b', '--cfg-options', 'data.root=x')
    _, verdict = verdict_on(cctv(), usual='clip_dedup', options=options)
    assert shlex.split(verdict.next_step)[2:] == ['CONFIG', '--keep-ratio', '0.5', *options]


def test_without_duplicates_the_verdict_is_to_train_on_everything() -> None:
    text, verdict = verdict_on(distinct())
    assert text.startswith('Even at 70 %')
    assert 'train on all of them' in text
    assert 'No strategy beats random' in text
    assert verdict.keep_ratio is None
    assert verdict.next_step.startswith('train on all samples')
    text, _ = verdict_on(distinct(notes=(NO_DUPLICATES,)))
    assert 'hardly any sample has a near-duplicate, train on all of them' in text


def test_random_alone_is_no_reason_to_train_on_everything() -> None:
    text, verdict = verdict_on(make_curve({}, along(0.31, 0.37, 0.41, 0.46, 0.48), 0.51))
    assert text.endswith('chosen by random; no other strategy was measured.')
    assert verdict.next_step == 'python tools/probe.py CONFIG'


def test_where_any_choice_will_do_random_is_named() -> None:
    text, verdict = verdict_on(plain_redundancy(), usual='adadedup')
    assert text.startswith('At 30 % no loss can be measured')
    assert 'clip_dedup does not beat random on this data by more than noise.' in text
    assert verdict.next_step.endswith('--keep-ratio 0.3 --strategy random')


def test_fewer_samples_that_teach_more_are_called_so() -> None:
    curve = make_curve(
        dict(clip_dedup=along(0.3, 0.56, 0.56, 0.55, 0.52)),
        along(0.25, 0.4, 0.45, 0.48, 0.49),
        0.5,
    )
    text, verdict = verdict_on(curve)
    assert text.startswith('20 % of the samples, chosen by clip_dedup, teach more than all (')
    assert verdict.keep_ratio == 0.2


def test_copies_with_noise_lead_to_the_median() -> None:
    text, verdict = verdict_on(distinct(notes=(NOISY_COPIES,)), options=('--work-dir', 'w'))
    assert 'embedder.median=5' in text
    assert verdict.next_step == (
        'python tools/probe.py CONFIG --cfg-options adadedup.embedder.median=5 --work-dir w'
    )


def test_a_strategy_that_loses_less_than_random_but_loses_is_a_trade() -> None:
    curve = make_curve(
        dict(clip_dedup=along(0.2, 0.3, 0.38, 0.44, 0.47)),
        along(0.15, 0.25, 0.33, 0.40, 0.44),
        0.5,
    )
    text, verdict = verdict_on(curve)
    assert 'with random pruning: prune only where time matters more' in text
    assert verdict.keep_ratio is None and '--keep-ratio 0.7' in verdict.next_step


def test_a_validation_set_that_cannot_tell_is_called_so() -> None:
    text, verdict = verdict_on(cctv(blocks=3, scene_noise=0.1, own_noise=0.05))
    assert text.startswith('What is lost cannot be told')
    assert verdict.keep_ratio is None
    assert verdict.next_step.startswith('validate on more scenes')
    text, verdict = verdict_on(cctv(blocks=1))
    assert text.startswith('What is lost cannot be told: the validation set is too small')


def test_where_chance_of_the_draws_is_the_doubt_more_of_them_are_asked_for() -> None:
    flat = along(0.4, 0.45, 0.48, 0.49, 0.5)
    curve = make_curve({}, flat, 0.5, spread=0.3, scene_noise=0.001, own_noise=0.001)
    text, verdict = verdict_on(curve)
    assert text.startswith('What is lost cannot be told from noise')
    assert verdict.next_step == 'python tools/probe.py CONFIG --seeds 10'


def test_worse_than_random_is_said() -> None:
    curve = make_curve(
        dict(clip_dedup=along(0.05, 0.1, 0.15, 0.2, 0.22)),
        along(0.131, 0.190, 0.229, 0.252, 0.262),
        0.273,
    )
    text, verdict = verdict_on(curve)
    assert (
        'clip_dedup does not beat random on this data by more than noise; clip_dedup is even worse'
        in text
    )
    assert verdict.strategy == 'random'


def test_of_two_better_strategies_the_one_that_loses_nothing_is_named() -> None:
    curve = make_curve(
        dict(
            clip_dedup=along(0.30, 0.38, 0.42, 0.46, 0.48),
            adadedup=along(0.2, 0.3, 0.38, 0.45, 0.5),
        ),
        along(0.15, 0.25, 0.33, 0.40, 0.44),
        0.5,
    )
    text, verdict = verdict_on(curve)
    assert verdict.strategy == 'adadedup' and verdict.keep_ratio == 0.7
    assert 'so is clip_dedup' in text


def test_the_whole_set_alone_is_a_curve_too() -> None:
    text, _ = verdict_on(make_curve({}, {}, 0.5))
    assert text.startswith('What is lost cannot be told')
    summary = summarise(make_curve({}, {}, 0.5))
    assert 'all samples: ' in curve_text(summary)
    ElementTree.fromstring(plot_file(summary))


@given(
    st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=4),
    NUMBERS,
    st.integers(0, 4),
    st.integers(1, 3),
)
def test_every_curve_has_a_verdict_a_table_and_a_plot(
    levels: list[tuple[float, float, float]], whole: float, blocks: int, seeds: int
) -> None:
    ratios = (0.05, 0.125, 1 / 3)
    strategies = {f's{n}': along(*row, ratios=ratios) for n, row in enumerate(levels)}
    random = along(*levels[0], ratios=ratios)
    curve = make_curve(strategies, random, whole, blocks=blocks, seeds=seeds)
    summary = summarise(curve)
    verdict = judge(summary)
    assert verdict.next_step and all(verdict.sentences)
    assert 'nan' not in ' '.join(verdict.sentences)
    text = curve_text(summary)
    assert 'nan' not in text
    assert all(len(line) <= WIDTH for line in text.splitlines())
    ElementTree.fromstring(plot_file(summary))
    assert 'nan' not in curve_csv(summary)


# Tables and files


def test_the_table_has_random_with_its_spread_and_marks_what_is_beyond_noise() -> None:
    lines = words_of(curve_text(summarise(cctv()))).splitlines()
    assert lines[2].split() == ['kept', '10', '%', '20', '%', '30', '%', '50', '%', '70', '%']
    assert lines[3].startswith('random') and lines[3].count('±') == len(RATIOS)
    marked = next(line for line in lines if line.startswith('clip_dedup'))
    assert marked.endswith('+')
    assert any(line.startswith('all samples: 2') for line in lines)
    assert len({len(line) for line in lines[3:6]}) <= 3


def test_a_table_with_many_ratios_goes_on_below() -> None:
    ratios = tuple(round(0.05 * step, 2) for step in range(1, 19))
    levels = along(*np.linspace(0.3, 0.5, 18), ratios=ratios)
    text = curve_text(summarise(make_curve(dict(clip_dedup=levels), levels, 0.5)))
    assert all(len(line) <= WIDTH for line in text.splitlines())
    assert text.count('clip_dedup') > 1 and words_of(text).count('90 %') == 1


def test_the_csv_has_a_line_for_each_selection() -> None:
    curve = cctv()
    rows = list(csv.DictReader(io.StringIO(curve_csv(summarise(curve)))))
    assert len(rows) == len(curve.points) and tuple(rows[0]) == COLUMNS
    assert float(rows[0]['quality']) == pytest.approx(curve.points[0].quality, rel=1e-5)
    means = [float(row['quality']) for row in rows[:3]]
    assert float(rows[0]['mean']) == pytest.approx(np.mean(means), rel=1e-4)
    assert rows[0]['minus_random'] == ''
    assert rows[-1]['strategy'] == 'whole' and float(rows[-1]['loss']) == 0


def test_a_written_curve_is_read_back_as_it_was(tmp_path: Path) -> None:
    assert read_curve(tmp_path) is None and read_judged_curve(tmp_path) is None
    curve = cctv(notes=('a note',))
    write_curve(tmp_path, summarise(curve))
    assert read_curve(tmp_path) == curve
    assert sorted(file.name for file in tmp_path.iterdir()) == ['probe.csv', 'probe.json']
    judged = read_judged_curve(tmp_path)
    assert judged is not None and judged[1] == judge(summarise(curve))


@pytest.mark.parametrize(
    ('place', 'value', 'message'),
    [
        (('points', 0, 'quality'), 1.5, 'outside'),
        (('points', 0, 'quality'), None, 'float'),
        (('points', 0, 'quality'), 10**400, 'cannot be read'),
        (('points', 0, 'by_scene'), [0.1], 'different numbers'),
        (('points', 0, 'keep_ratio'), 0, 'keep ratio'),
        (('points', 0, 'samples'), 0, 'samples'),
        (('points', 0, 'seed'), 1, 'twice'),
        (('samples',), 10**400, 'out of range'),
        (('seconds',), float('inf'), 'out of range'),
        (('points',), [], 'whole set'),
        (('measure',), 3, 'str'),
    ],
)
def test_a_damaged_curve_is_one_clear_line(
    tmp_path: Path, place: tuple[Any, ...], value: Any, message: str
) -> None:
    write_curve(tmp_path, summarise(cctv()))
    path = curve_path(tmp_path)
    content = json.loads(path.read_text())
    part = content
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message) as error:
        read_curve(tmp_path)
    assert 'tools/probe.py again' in str(error.value)


@pytest.mark.parametrize('content', [b'', b'[' * 100_000, b'\xff', b'{}', b'NaN'])
def test_a_file_that_is_no_curve_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    curve_path(tmp_path).write_bytes(content)
    with pytest.raises(UserError, match='cannot be read'):
        read_curve(tmp_path)


# The plot


def test_the_plot_shows_every_strategy_and_fills_what_is_beyond_noise() -> None:
    hostile = '<script>"&'
    curve = cctv()
    points = [
        replace(point, strategy=hostile) if point.strategy == 'uniform_stride' else point
        for point in curve.points
    ]
    summary = summarise(replace(curve, points=tuple(points)))
    root = ElementTree.fromstring(quality_plot(summary))
    texts = [element.text or '' for element in root.iter()]
    assert hostile in texts and 'clip_dedup' in texts
    lines = [element for element in root.iter() if 'series' in element.get('class', '')]
    assert len(lines) == 2 * 2  # each in the plot and in the legend
    filled = [element for element in root.iter() if 'filled' in element.get('class', '')]
    signs = [cell.minus_random.sign != 0 for cell in summary.cells]
    assert len(filled) == sum(signs) + 2


# The command


class Measured(SimpleNamespace):
    """What the tool asked to be measured."""


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    asked = Measured(calls=[])

    def measure_curve(*arguments: Any) -> Curve:
        asked.calls.append(arguments)
        return cctv(notes=('a note on the data',))

    monkeypatch.setattr(cli, '_measure', measure_curve)
    return asked


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / 'training.py'
    path.write_text(f'work_dir = {str(tmp_path / "work")!r}\nadadedup = dict(keep_ratio=0.8)\n')
    return path


def test_the_tool_measures_prints_and_writes(
    config: Path, tmp_path: Path, measured: Measured, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main([str(config)])
    (_, options, work_dir, strategies, ratios, seeds) = measured.calls[0]
    assert options.strategy_name == 'adadedup' and work_dir == tmp_path / 'work'
    assert strategies == ['random', 'uniform_stride', 'clip_dedup', 'adadedup']
    assert ratios == [0.1, 0.2, 0.3, 0.5, 0.7] and seeds == 3
    output = words_of(capsys.readouterr().out)
    assert 'random' in output and 'note: a note on the data' in output
    assert f'next: python tools/prune.py {config} --keep-ratio 0.5 --strategy clip_dedup' in output
    assert all(len(line) <= WIDTH for line in output.splitlines() if str(tmp_path) not in line)
    written = {file.name for file in work_dir.iterdir()}
    assert written == {'probe', 'probe.csv', 'probe.json', 'probe.svg'}
    assert read_curve(work_dir) is not None


def test_the_next_command_works_on_the_same_data_in_the_same_place(
    config: Path, tmp_path: Path, measured: Measured, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ['--work-dir', str(tmp_path / 'a b'), '--cfg-options', 'adadedup.seed=3', 'x.y=[1,2]']
    cli.main([str(config), '--keep-ratios', '1', '.5', '.25', '.5', *flags])
    assert measured.calls[0][4] == [0.25, 0.5]
    output = capsys.readouterr().out
    line = next(line for line in output.splitlines() if line.startswith('next: '))
    assert shlex.split(line)[-5:-1] == flags[:-1] and shlex.split(line)[-1] == 'x.y=[1, 2]'


def test_random_and_the_whole_set_may_be_named(config: Path, measured: Measured) -> None:
    cli.main([str(config), '--strategies', 'clip_dedup', 'whole', 'random', 'clip_dedup'])
    assert measured.calls[0][3] == ['random', 'clip_dedup']


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--keep-ratios', '0'], '--keep-ratios is 0.0'),
        (['--keep-ratios', '50'], '--keep-ratios is 50.0'),
        (['--keep-ratios', 'nan'], '--keep-ratios is nan'),
        (['--keep-ratios', '1'], 'name a ratio below 1'),
        (['--seeds', '0'], '--seeds is 0'),
        (['--strategies', 'clip_dedupe'], "did you mean 'clip_dedup'"),
        (['--cfg-options', 'adadedup.strateg=1'], 'strateg'),
    ],
)
def test_wrong_arguments_are_one_clear_line(
    config: Path,
    measured: Measured,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    message: str,
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([str(config), *flags])
    error = capsys.readouterr().err
    assert end.value.code == 2 and not measured.calls
    assert error.startswith('error: ') and message in error and error.count('\n') == 1


def test_curves_are_judged_without_the_detection_stack() -> None:
    program = (
        'import sys, adadedup_mm.probe.verdict, adadedup_mm.probe.tables; '
        "sys.exit(any(name in sys.modules for name in ('mmcv', 'mmdet', 'mmdet3d')))"
    )
    subprocess.run([sys.executable, '-c', program], check=True)


def test_a_selection_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match='whole set has the keep ratio 1'):
        Point('whole', 0.5, 0, 10, 0.5, (0.5,))


def test_the_example_of_the_docs_is_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    summary = summarise(cctv())
    verdict = judge(summary, 'my_config.py', ['--work-dir', 'pruned'], usual='adadedup')
    print_curve(summary, verdict)
    printed = words_of(capsys.readouterr().out).strip()
    page = Path(__file__).parents[1] / 'docs' / 'PROBE.md'
    assert printed in page.read_text(encoding='utf-8')
