"""The table of speed and memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / 'benchmarks'))

import figures  # noqa: E402
import sections  # noqa: E402
import speed  # noqa: E402

from adadedup_mm.base.errors import UserError  # noqa: E402

FASTER = figures.Figure('reading', 'json', 3.14159, 3)


@pytest.mark.parametrize(
    'value, target, at_most, met',
    [
        (3.0, 3.0, False, True),
        (2.9, 3.0, False, False),
        (0.1, 0.1, True, True),
        (0.11, 0.1, True, False),
        (0.09, 0.1, True, True),
        (float('nan'), 1.0, True, False),
        (float('nan'), 1.0, False, False),
        (5.0, None, False, None),
    ],
)
def test_a_figure_meets_its_target_or_not(value, target, at_most, met):
    assert figures.Figure('', '', value, target, at_most).met is met


def test_the_table_says_what_was_asked_and_whether_it_is_met():
    lines = figures.table(
        [
            FASTER,
            figures.Figure('memory', 'whole process', 250.0, 200, at_most=True, form='{:.0f} MB'),
            figures.Figure('scaling', 'one process', 0.9),
        ]
    ).splitlines()
    assert len({line.count('|') for line in lines}) == 1
    assert lines[2:] == [
        '| reading | json | 3.14 x | ≥ 3.00 x | yes |',
        '| memory | whole process | 250 MB | ≤ 200 MB | **no** |',
        '| scaling | one process | 0.90 x | - | - |',
    ]


def test_figures_come_back_from_their_file(tmp_path):
    figures.save([FASTER, FASTER], tmp_path / 'figures')
    assert figures.load(tmp_path / 'figures') == [FASTER, FASTER]


def test_a_page_takes_over_the_parts_that_were_not_measured_again(tmp_path):
    page = tmp_path / 'SPEED.md'
    page.write_text('before\n<!-- speed -->\nold\n<!-- end of speed -->\nafter\n')
    slow = figures.Figure('clusters', 'faiss', 2.0, 1.1, at_most=True)
    speed.write(page, dict(rewrite=[FASTER], kmeans=[slow]))
    speed.write(page, dict(kmeans=[figures.Figure('clusters', 'faiss', 1.0, 1.1, at_most=True)]))
    text = page.read_text()
    assert text.startswith('before\n<!-- speed -->\n| figure |')
    assert text.endswith('.\n<!-- end of speed -->\nafter\n') and 'old' not in text
    assert '2 of 2 targets are met.' in text
    assert text.index('| clusters | faiss | 1.00 x | ≤ 1.10 x | yes |') < text.index('| reading |')
    with pytest.raises(UserError, match='no section'):
        sections.fill_section(page, 'other', '')


def test_every_part_is_a_script_and_the_page_has_a_place_for_the_table():
    assert all((ROOT / f'benchmarks/{part}.py').is_file() for part in speed.PARTS)
    assert all(sections.split_page(ROOT / 'docs/SPEED.md', 'speed'))


def test_one_command_measures_a_part_and_prints_the_table():
    done = subprocess.run(
        [sys.executable, ROOT / 'benchmarks/speed.py', '--quick', '--only', 'kmeans'],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT)),
    )
    lines = done.stdout.splitlines()
    assert lines[0].startswith('| figure |') and lines[-1].endswith('of 3 targets are met.')
    assert [line.split('|')[2].strip() for line in lines[2:5]] == ['faiss.Kmeans'] * 3
    assert 'SphericalKMeans' in done.stderr


def test_a_part_that_fails_does_not_hide_the_others(monkeypatch, capsys):
    monkeypatch.setattr(speed, 'run_part', lambda part, *_: None if part == 'density' else [FASTER])
    monkeypatch.setattr(sys, 'argv', ['speed.py', '--only', 'density', 'rewrite'])
    with pytest.raises(SystemExit, match='density'):
        speed.main()
    assert '| reading |' in capsys.readouterr().out


def test_results_on_a_page_are_of_full_size(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['speed.py', '--quick', '--write', 'docs/SPEED.md'])
    with pytest.raises(SystemExit):
        speed.main()
    assert 'leave out --quick' in capsys.readouterr().err
