"""What a run decided, for other programs."""

import csv
import json
import shlex
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_pipeline import config, prune_main  # noqa: F401

from adadedup_mm.cli.export import main


@pytest.fixture(scope='module')
def finished(config, tmp_path_factory):  # noqa: F811
    """A finished run without a proxy; do not write into it, but for the export."""
    work_dir = tmp_path_factory.mktemp('export') / 'run'
    prune_main([str(config), '--work-dir', str(work_dir), '--strategy', 'clip_dedup'])
    return work_dir


def work_dir_of(folder, rows):
    """A work dir as far as the export reads it."""
    columns = dict(
        sample_id='a',
        image_paths=['x/1.jpg'],
        cluster=0,
        partner_id=None,
        loss=None,
        kept=True,
        reason='r',
    )
    names = list(columns | dict.fromkeys(name for row in rows for name in row))
    table = {name: [(columns | row).get(name) for row in rows] for name in names}
    pq.write_table(pa.table(table), folder / 'samples.parquet')
    (folder / 'manifest.json').write_text('{}')
    return folder


def test_csv_says_of_every_sample_what_the_table_says(finished):
    main([str(finished)])
    rows = list(csv.DictReader((finished / 'export/samples.csv').open(newline='')))
    table = pq.read_table(finished / 'samples.parquet').to_pylist()
    assert len(rows) == len(table)
    for row, expected in zip(rows, table, strict=True):
        assert (
            row['sample_id'] == expected['sample_id']
            and row['kept'] == str(expected['kept']).lower()
        )
        assert (
            row['tags'] == ('kept' if expected['kept'] else 'pruned')
            and row['reason'] == expected['reason']
        )
        assert row['partner_id'] == (expected['partner_id'] or '') and row['loss'] == ''
        assert row['image_path'] == expected['image_paths'][0] and json.loads(
            row['image_paths']
        ) == [row['image_path']]
        assert (
            not row['partner_similarity']
            or abs(float(row['partner_similarity']) - expected['partner_similarity']) < 1e-6
        )


def test_csv_survives_names_with_commas_quotes_and_lines(tmp_path):
    name = 'a, "b"\nschön;=1.jpg'
    work_dir = work_dir_of(
        tmp_path, [dict(sample_id=name, image_paths=[name, 'c'], label_suspect=True)]
    )
    main([str(work_dir), '--out', str(tmp_path / 'deep/er.csv')])
    [row] = csv.DictReader((tmp_path / 'deep/er.csv').open(newline='', encoding='utf-8'))
    assert (row['sample_id'], json.loads(row['image_paths']), row['tags']) == (
        name,
        [name, 'c'],
        'kept;label_suspect',
    )


def test_samples_without_a_cluster_have_an_empty_one(tmp_path):
    main([str(work_dir_of(tmp_path, [dict(cluster=-1), dict(cluster=None), dict(cluster=0)]))])
    rows = list(csv.DictReader((tmp_path / 'export/samples.csv').open(newline='')))
    assert [row['cluster'] for row in rows] == ['', '', '0']


def test_the_command_for_fiftyone_quotes_its_folder(tmp_path, capsys):
    folder = tmp_path / "it's $HOME"
    main([str(work_dir_of(tmp_path, [{}])), '--to', 'fiftyone', '--out', str(folder)])
    command = capsys.readouterr().out.partition('open it with: ')[2]
    assert str(folder) in shlex.split(command)


def test_fiftyone_gets_a_sample_for_each_image_with_absolute_paths(tmp_path):
    work_dir = work_dir_of(
        tmp_path,
        [
            dict(sample_id='a', image_paths=['1.jpg', '2.jpg'], loss=0.5, cluster=-1),
            dict(
                sample_id='b',
                kept=False,
                partner_id='a',
                partner_similarity=0.75,
                cluster=2,
                scene='s',
            ),
        ],
    )
    main([str(work_dir), '--to', 'fiftyone'])
    first, second, pruned = json.loads((tmp_path / 'export/fiftyone/samples.json').read_text())[
        'samples'
    ]
    assert first == dict(
        filepath=str(Path('1.jpg').absolute()),
        tags=['kept'],
        view=0,
        pruning_id='a',
        loss=0.5,
        reason='r',
    )
    assert second['view'] == 1 and second['filepath'].endswith('/2.jpg')
    assert pruned['tags'] == ['pruned'] and (pruned['partner'], pruned['partner_similarity']) == (
        'a',
        0.75,
    )
    assert (pruned['cluster'], pruned['scene']) == (2, 's') and 'loss' not in pruned


def test_fiftyone_itself_reads_the_export(finished):
    pytest.importorskip('fiftyone')
    from fiftyone.utils.data.importers import FiftyOneDatasetImporter

    main([str(finished), '--to', 'fiftyone'])
    importer = FiftyOneDatasetImporter(str(finished / 'export/fiftyone'))
    assert importer._is_legacy_format_data()
    with importer._to_legacy_importer() as reader:
        samples = list(reader)
    assert len(samples) == 48 and {sample.media_type for sample in samples} == {'image'}
    assert sum('pruned' in sample.tags for sample in samples) == 24
    assert all(
        Path(sample.filepath).is_file() and isinstance(sample.cluster, int) for sample in samples
    )


@pytest.mark.parametrize(
    'break_it, words',
    [
        (lambda folder: (folder / 'manifest.json').unlink(), 'name the work dir of a finished'),
        (lambda folder: (folder / 'samples.parquet').write_bytes(b'PAR1'), 'cannot be read'),
        (lambda folder: (folder / 'export').write_text(''), 'choose another --out'),
    ],
)
@pytest.mark.parametrize('to', ['csv', 'fiftyone'])
def test_wrong_input_gives_one_line(break_it, words, to, tmp_path, capsys):
    break_it(work_dir_of(tmp_path, [{}]))
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path), '--to', to])
    assert stop.value.code == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.rglob('*.tmp')) and not (tmp_path / 'export').is_dir()
