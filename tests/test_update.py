"""New data arrives: old decisions stay, new images are decided about."""

import hashlib
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from test_pipeline import CONFIG, ROOT, fails, prune_main, selection

from adadedup_mm.workdir.finished import OUTPUTS


def digests(folder):
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob('*')
        if path.is_file()
    }


@pytest.fixture(scope='module')
def growing(world, tmp_path_factory):
    """A copy of the world whose annotation file can hold the first so many images."""
    root = tmp_path_factory.mktemp('growing') / 'world'
    shutil.copytree(world, root)
    ann_file = root / 'coco/annotations/instances_train.json'
    content = json.loads(ann_file.read_text())
    file = root / 'config.py'
    file.write_text(
        CONFIG.format(root=ROOT, world=root) + "\nadadedup['strategy'] = 'clip_dedup'\n"
    )

    def hold(images, change=None):
        ids = {image['id'] for image in images}
        data = dict(
            content,
            images=images,
            annotations=[item for item in content['annotations'] if item['image_id'] in ids],
        )
        ann_file.write_text(json.dumps(data))
        return file

    # Every scene is among the first ones.
    return (
        hold,
        [
            content['images'][i]
            for i in np.random.default_rng(0).permutation(len(content['images']))
        ],
        root,
    )


@pytest.fixture(scope='module')
def old(growing, tmp_path_factory):
    """A finished run on the first 40 of 48 images."""
    hold, images, _ = growing
    work_dir = tmp_path_factory.mktemp('old') / 'run'
    prune_main([str(hold(images[:40])), '--work-dir', str(work_dir), '--keep-ratio', '.5'])
    return work_dir


def updated(config, old, work_dir, *arguments):
    prune_main([str(config), '--work-dir', str(work_dir), '--update', str(old), *arguments])
    return json.loads((work_dir / 'manifest.json').read_text())


def test_old_decisions_stay_and_new_images_follow_their_cluster_s_threshold(
    growing, old, tmp_path, capsys
):
    hold, images, _ = growing
    before = digests(old)
    manifest = updated(hold(images), old, tmp_path / 'new')
    assert digests(old) == before
    written = {path.name for path in (tmp_path / 'new').iterdir()}
    assert written == {*OUTPUTS, 'conflicts.parquet'}
    old_rows = {row['sample_id']: row for row in pq.read_table(old / 'samples.parquet').to_pylist()}
    rows = pq.read_table(tmp_path / 'new/samples.parquet').to_pylist()
    tau = pq.read_table(tmp_path / 'new/clusters.parquet')['threshold'].to_pylist()
    features = np.load(tmp_path / 'new/stages/features/features.npy')
    position = {row['sample_id']: i for i, row in enumerate(rows)}
    for i, row in enumerate(rows):
        if row['sample_id'] in old_rows:
            for name in ('kept', 'cluster', 'similarity', 'order', 'reason'):
                assert row[name] == old_rows[row['sample_id']][name]
            continue
        peers = [
            j
            for j, other in enumerate(rows)
            if other['kept']
            and other['cluster'] == row['cluster']
            and (other['sample_id'] in old_rows or j < i)
        ]
        assert row['kept'] == (
            max(features[i] @ features[j] for j in peers) <= tau[row['cluster']] + 1e-6
        )
        assert row['kept'] or rows[position[row['partner_id']]]['kept']
    facts = manifest['update']
    assert (facts['old'], facts['new'], facts['gone']) == (40, 8, 0)
    assert facts['new_kept'] == manifest['kept'] - 20
    written = json.loads((tmp_path / 'new/annotations/instances_train.json').read_text())['images']
    assert [str(image['id']) for image in written] == [
        row['sample_id'] for row in rows if row['kept']
    ]


def test_features_of_old_images_are_not_computed_again(growing, old, tmp_path, monkeypatch):
    hold, images, _ = growing
    counted = []
    from adadedup_mm.features import PixelEmbedder

    encode = PixelEmbedder.encode
    monkeypatch.setattr(
        PixelEmbedder,
        'encode',
        lambda self, batch: counted.append(len(batch)) or encode(self, batch),
    )
    updated(hold(images), old, tmp_path / 'new')
    assert sum(counted) == 8
    counted.clear()
    prune_main([str(hold(images)), '--work-dir', str(tmp_path / 'new'), '--resume'])
    assert not counted and sum(selection(tmp_path / 'new').values()) == 24
    fresh = tmp_path / 'fresh'
    prune_main([str(hold(images)), '--work-dir', str(fresh)])
    assert np.array_equal(
        np.load(fresh / 'stages/features/features.npy'),
        np.load(tmp_path / 'new/stages/features/features.npy'),
    )
    assert selection(fresh) == selection(tmp_path / 'new')


def test_updates_follow_each_other_and_growth_counts_from_the_last_full_run(
    growing, old, tmp_path, capsys
):
    hold, images, _ = growing
    first = updated(hold(images[:44]), old, tmp_path / 'first')
    assert first['update']['full_run_due'] == [] and first['update']['growth'] == 0.1
    assert any('No full run is due' in note for note in first['notes'])
    second = updated(hold(images), tmp_path / 'first', tmp_path / 'second')
    assert (
        second['update']['new'],
        second['update']['full_samples'],
        second['update']['growth'],
    ) == (4, 40, 0.2)
    direct = updated(hold(images), old, tmp_path / 'direct')
    assert (
        selection(tmp_path / 'second') == selection(tmp_path / 'direct')
        and direct['kept'] == second['kept']
    )


def test_updates_go_on_with_the_strategy_of_the_full_run_whatever_the_config_says(
    growing, old, tmp_path
):
    hold, images, root = growing
    other = root / 'other.py'
    other.write_text(hold(images[:44]).read_text() + "\nadadedup['strategy'] = 'adadedup'\n")
    first = updated(other, old, tmp_path / 'first')
    assert (first['strategy'], first['layout']) == ('clip_dedup', 0)
    hold(images)
    second = updated(other, tmp_path / 'first', tmp_path / 'second')
    assert second['strategy'] == 'clip_dedup'
    updated(root / 'config.py', old, tmp_path / 'direct')
    assert selection(tmp_path / 'second') == selection(tmp_path / 'direct')


def test_samples_of_the_same_image_keep_their_own_decisions(growing, tmp_path):
    hold, images, _ = growing
    prune_main([str(hold(images[:30])), '--work-dir', str(tmp_path / 'old')])
    twins = [dict(image, id=image['id'] + 10_000) for image in images[:30]]
    updated(hold(twins + images[:30]), tmp_path / 'old', tmp_path / 'new')
    before, now = selection(tmp_path / 'old'), selection(tmp_path / 'new')
    assert {name: now[name] for name in before} == before


def test_rules_for_scenes_do_not_revise_old_decisions_and_the_run_says_so(growing, old, tmp_path):
    hold, images, _ = growing
    plain = updated(hold(images), old, tmp_path / 'plain')
    ruled = updated(hold(images), old, tmp_path / 'ruled', '--cfg-options', 'adadedup.min_gap=1')
    assert selection(tmp_path / 'ruled') == selection(tmp_path / 'plain')
    assert set(ruled['notes']) - set(plain['notes']) == {
        'group_by and min_gap are left aside: an update does not revise older decisions.'
    }


def test_vanished_moved_and_changed_images(growing, old, tmp_path):
    hold, images, root = growing
    source = root / 'coco/images' / images[3]['file_name']
    content = source.read_bytes()
    try:
        source.write_bytes((root / 'coco/images' / images[45]['file_name']).read_bytes())
        facts = updated(hold(images[2:41]), old, tmp_path / 'new')['update']
    finally:
        source.write_bytes(content)
    assert (facts['old'], facts['new'], facts['gone']) == (37, 2, 3)


def test_nothing_new_changes_nothing(growing, tmp_path_factory, tmp_path):
    hold, images, _ = growing
    work_dir = tmp_path / 'run'
    prune_main([str(hold(images[:30])), '--work-dir', str(work_dir)])
    manifest = updated(hold(images[:30]), work_dir, tmp_path / 'new')
    assert selection(work_dir) == selection(tmp_path / 'new') and manifest['update']['new'] == 0


def test_a_full_run_is_due_for_growth_strange_images_and_new_classes(growing, tmp_path, capsys):
    from PIL import Image

    hold, images, root = growing
    hold(images)
    content = json.loads((root / 'coco/annotations/instances_train.json').read_text())
    holders = {
        category['id']: {
            item['image_id']
            for item in content['annotations']
            if item['category_id'] == category['id']
        }
        for category in content['categories']
    }
    rare = min((ids for ids in holders.values() if len(ids) >= 4), key=len)
    first = [image for image in images if image['id'] not in rare]
    assert len(first) >= 10
    new = [image for image in images if image['id'] in rare][:4]
    saved = {}
    for i, image in enumerate(new):
        path = root / 'coco/images' / image['file_name']
        saved[path] = path.read_bytes()
        noise = np.random.default_rng(i).integers(
            0, 255, (image['height'], image['width'], 3), dtype=np.uint8
        )
        Image.fromarray(np.kron(noise[::45, ::45], np.ones((45, 45, 1), np.uint8))).save(
            path, 'PNG'
        )
    try:
        prune_main([str(hold(first)), '--work-dir', str(tmp_path / 'old')])
        capsys.readouterr()
        due = updated(hold(first + new), tmp_path / 'old', tmp_path / 'new')['update'][
            'full_run_due'
        ]
    finally:
        for path, content in saved.items():
            path.write_bytes(content)
    assert any('far from all clusters' in text for text in due)
    assert any('new classes' in text for text in due)
    assert (len(new) > 0.25 * len(first)) == any('has grown' in text for text in due)
    assert 'a full run is due' in capsys.readouterr().out


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['--update', 'missing'], 'holds no finished run'),
        (['--update', '{work_dir}'], 'is the work dir itself'),
        (['--update', '{old}', '--strategy', 'random'], 'leave --strategy'),
        (['--update', '{random}'], 'has no thresholds'),
        (['--update', '{cleared}'], 'no features that can be used again'),
        (['--update', '{old}', '--cfg-options', 'adadedup.embedder.size=8'], 'another embedder'),
        (
            [
                '--update',
                '{old}',
                '--cfg-options',
                'train_dataloader.dataset.ann_file=annotations/instances_val.json',
            ],
            'none of the',
        ),
    ],
)
def test_wrong_input_gives_one_line(arguments, words, growing, old, tmp_path, capsys):
    hold, images, _ = growing
    config = hold(images[:40])
    places = dict(
        old=old, random=tmp_path / 'random', cleared=tmp_path / 'cleared', work_dir=tmp_path / 'run'
    )
    if '{random}' in arguments:
        prune_main([str(config), '--work-dir', str(places['random']), '--strategy', 'random'])
    if '{cleared}' in arguments:
        shutil.copytree(old, places['cleared'])
        shutil.rmtree(places['cleared'] / 'stages')
    line = fails(
        [config, '--work-dir', tmp_path / 'run', *(text.format(**places) for text in arguments)],
        capsys,
    )
    assert words in line and not (tmp_path / 'run').exists()
