"""The manifest, the tables and the reasons in them: what is written, and what is read."""

import dataclasses
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from test_pipeline import config, finished, prune_main, selection  # noqa: F401

from adadedup_mm.base.errors import UserError
from adadedup_mm.base.files import sha256_value, write_json
from adadedup_mm.pool import Pool
from adadedup_mm.report import build_report
from adadedup_mm.selection import Selection
from adadedup_mm.workdir.export import export_csv
from adadedup_mm.workdir.manifest import (
    FeedbackFacts,
    break_even,
    feedback_words,
    known_manifest,
    read_manifest,
    record_training,
    write_manifest,
)
from adadedup_mm.workdir.tables import CLASSES, CLUSTERS, SAMPLES, samples_table


@pytest.fixture
def older(finished, tmp_path):  # noqa: F811
    """A finished work dir with no more in it than the first runs of version 0.1 left."""
    shutil.copytree(finished, tmp_path / 'run')
    path = tmp_path / 'run/manifest.json'
    manifest = json.loads(path.read_text().replace(str(finished), str(tmp_path / 'run')))
    for name in ('facts', 'layout', 'reader', 'feedback'):
        del manifest[name]
    for file in manifest['files']:
        del file['sha256']
    identity = json.loads((tmp_path / 'run/stages/run.json').read_text())
    del identity['records']
    manifest['key'] = sha256_value(identity)
    write_json(path, manifest)
    samples = pq.read_table(tmp_path / 'run/samples.parquet').drop_columns(['score'])
    pq.write_table(samples, tmp_path / 'run/samples.parquet')
    return tmp_path / 'run'


def test_a_work_dir_of_version_0_1_is_used_again(older, config, capsys):  # noqa: F811
    files = [path for path in older.rglob('*') if path.name != 'config.py']
    before = [path.stat().st_mtime_ns for path in files]
    prune_main([str(config), '--work-dir', str(older)])
    assert 'kept 24 of 48 samples' in capsys.readouterr().out
    assert before == [path.stat().st_mtime_ns for path in files]


def test_a_work_dir_of_version_0_1_is_shown_exported_and_updated(older, config, tmp_path):  # noqa: F811
    assert 'Kept 24 of 48' in build_report(older).read_text()
    assert export_csv(older, tmp_path / 'samples.csv') == 48
    new = tmp_path / 'new'
    prune_main([str(config), '--work-dir', str(new), '--update', str(older)])
    assert selection(new) == selection(older)
    manifest = read_manifest(new)
    assert manifest.layout == read_manifest(older).used_layout == 0.3
    assert manifest.full_samples == 48 and manifest.full_run_due == []


def test_the_labels_of_suspects_are_in_the_table():
    pool = Pool(
        sample_ids=('a', 'b', 'c'),
        image_paths=((),) * 3,
        views=('image',),
        image_sizes=np.zeros((3, 2), np.int32),
        classes=('car', 'bus'),
        offsets=np.array([0, 1, 3, 3]),
        labels=np.array([0, 1, 0], np.int32),
        boxes=np.array([[1, 2, 3, 4], [5, 6, 7.5, 8], [np.nan] * 4], np.float32),
        dataset_index=np.zeros(3, np.int32),
    )
    selection = Selection.without_features(np.ones(3, bool))
    suspect = np.array([False, True, True])
    table = samples_table(
        pool,
        selection,
        np.full(3, -1),
        np.zeros(3),
        np.zeros(3),
        suspect,
        None,
        np.full(3, -1),
    )
    bus = {'class': 'bus', 'x1': 5, 'y1': 6, 'x2': 7.5, 'y2': 8}
    assert table['suspect_objects'].to_pylist() == [None, [bus], []]


def test_a_manifest_that_is_read_and_written_stays_the_same(finished, tmp_path):  # noqa: F811
    write_manifest(tmp_path, read_manifest(finished))
    written = (tmp_path / 'manifest.json').read_bytes()
    assert written == (finished / 'manifest.json').read_bytes()
    assert 'update' not in json.loads(written) and 'outside' not in written.decode()


def test_a_manifest_holds_what_numpy_s_numbers_and_texts_say(finished, tmp_path):  # noqa: F811
    manifest = read_manifest(finished)
    manifest.layout = np.float64(0.5)
    manifest.notes = [np.str_('a note')]
    write_manifest(tmp_path, manifest)
    read = read_manifest(tmp_path)
    assert (read.layout, read.notes) == (0.5, ['a note'])


def test_a_training_changes_nothing_but_the_break_even(finished, tmp_path):  # noqa: F811
    before = json.loads((finished / 'manifest.json').read_text()) | {'of_a_later_version': [1]}
    write_json(tmp_path / 'manifest.json', before)
    record_training(tmp_path, 30.0)
    after = json.loads((tmp_path / 'manifest.json').read_text())
    assert list(after) == list(before)
    assert after.pop('break_even')['training_seconds'] == 60.0
    del before['break_even']
    assert after == before


def test_the_pay_back_is_told_with_and_without_a_proxy_that_changed_nothing(finished, tmp_path):  # noqa: F811
    text = break_even(713, 0.8, idle_seconds=689).text
    assert 'longer than 59.4 minutes on all samples (2.0 without feedback' in text
    assert 'without' not in break_even(713, 0.8).text
    assert 'nothing is saved' in break_even(713, 1.0, idle_seconds=689).text

    manifest = read_manifest(finished)
    manifest.seconds = 100.0
    manifest.feedback = FeedbackFacts(decisions_changed=0, seconds=90.0)
    write_manifest(tmp_path, manifest)
    record_training(tmp_path, 50.0)
    text = read_manifest(tmp_path).break_even.text
    assert text.startswith('Pays back after 2.00 trainings (0.20 without feedback')


def test_what_the_proxy_changed_is_told_beside_its_cost(finished):  # noqa: F811
    manifest = read_manifest(finished)
    manifest.seconds = 713.0
    manifest.feedback = FeedbackFacts(decisions_changed=0, seconds=691.0)
    assert feedback_words(manifest) == (
        'the proxy changed 0 of 48 decisions and took 691 of 713 s: '
        'adadedup.feedback.beta=0 does without it'
    )
    manifest.feedback.decisions_changed = 3
    assert feedback_words(manifest) == (
        'the proxy kept 3 samples in place of 3 others and took 691 of 713 s'
    )
    assert manifest.idle_seconds == 0


@pytest.mark.parametrize('content', ['', '[]', '{"samples": 3}', '\ud800'])
def test_a_damaged_manifest_is_none_or_one_line(content, tmp_path):
    (tmp_path / 'manifest.json').write_bytes(content.encode(errors='surrogatepass'))
    assert known_manifest(tmp_path) is None
    with pytest.raises(UserError, match=r'manifest\.json cannot be read .*tools/prune\.py') as bad:
        read_manifest(tmp_path)
    assert '\n' not in str(bad.value)
    assert known_manifest(tmp_path / 'nowhere') is None


def test_tables_are_read_as_they_were_written(finished):  # noqa: F811
    for table in (SAMPLES, CLUSTERS, CLASSES):
        written = pq.read_table(table.path(finished))
        assert written.schema.equals(table.schema)
        assert table.read(finished).to_pylist() == written.to_pylist()
        assert table.optional <= set(table.schema.names)


def test_a_reader_may_need_columns_that_others_do_not(older):
    SAMPLES.read(older, needed=['order'])
    with pytest.raises(UserError, match=r'samples\.parquet lacks the column score'):
        SAMPLES.read(older, needed=['order', 'score'])


# Reasons


def density_selection(kept):
    n = len(kept)
    order = np.arange(n, dtype=np.int32)
    clusters = np.zeros(n, np.int32)
    return Selection(np.array(kept), clusters, order, np.zeros(n, np.float32), np.array([0.5]))


def test_reasons_of_a_strategy_are_its_threshold_or_its_choice():
    scored = density_selection([True, True, False])
    scored.explain('clip_dedup')
    assert scored.reason.tolist() == [
        'first of its cluster',
        'below the threshold',
        'above the threshold',
    ]
    plain = Selection.without_features(np.array([True, False]))
    plain.explain('random')
    assert plain.reason.tolist() == ['chosen by random', 'not chosen by random']


def test_a_strategy_may_set_kept_until_a_rule_changes_it():
    selection = Selection.without_features(np.array([True, False]))
    selection.kept = ~selection.kept
    selection.explain('mine')
    assert selection.reason.tolist() == ['not chosen by mine', 'chosen by mine']


def test_samples_that_change_get_the_reason_of_the_last_change():
    selection = density_selection([True, True, False, False])
    selection.change(np.array([False, True, True, False]), 'class floor', 'made room')
    selection.change(np.array([True, False, True, False]), 'kept with it', 'pruned with it')
    selection.explain('clip_dedup')
    assert selection.kept.tolist() == [True, False, True, False]
    assert selection.reason.tolist() == [
        'kept with it',
        'pruned with it',
        'class floor',
        'above the threshold',
    ]


def test_a_strategy_may_give_reasons_of_its_own():
    kept = np.array([True, False])
    selection = Selection.without_features(kept)
    selection.reason[0] = 'a favourite'
    selection = dataclasses.replace(selection, layout=0.5)
    selection.explain('mine')
    assert selection.reason.tolist() == ['a favourite', 'not chosen by mine']
