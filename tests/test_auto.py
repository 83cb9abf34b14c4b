"""The strategy auto, and the probe's feedback put to the test."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from pruning_runs import fails, run, samples

from adadedup_mm.features import OfflineEmbedder
from adadedup_mm.features.alike import share_made_alike
from adadedup_mm.images import Reader
from adadedup_mm.strategies import auto as module
from adadedup_mm.workdir.manifest import read_manifest

ROOT = Path(__file__).parents[1]
CONFIG = """
_base_ = ['{root}/configs/minidrive/faster_rcnn_lite0_minidrive.py',
          'adadedup_mm::_base_/adadedup_offline.py']
adadedup = dict(keep_ratio=.4, embedder=dict(type='PixelEmbedder', _delete_=True),
                probe=dict(size=192))
data_root = '{world}/coco/'
train_dataloader = dict(dataset=dict(data_root=data_root))
"""


@pytest.fixture(scope='module')
def config(world, tmp_path_factory):
    path = tmp_path_factory.mktemp('auto') / 'config.py'
    path.write_text(CONFIG.format(root=ROOT, world=world))
    return path


@pytest.fixture(scope='module')
def finished(config, tmp_path_factory):
    return run(config, tmp_path_factory.mktemp('auto') / 'run', '--strategy', 'auto')


def test_auto_keeps_what_one_of_its_candidates_keeps_and_says_which(finished, config, tmp_path):
    [said] = [note for note in read_manifest(finished).notes if note.startswith('auto chose')]
    best = said.split()[2].rstrip(':')
    for name in ('adadedup', 'clip_dedup', 'random', 'uniform_stride'):
        assert f'{name} ' in said or best == name
    alone = run(config, tmp_path / 'alone', '--strategy', best)
    assert samples(alone).kept.equals(samples(finished).kept)


def test_auto_compares_only_the_candidates_that_are_named(config, tmp_path):
    strategy = ['--strategy', 'auto', '--cfg-options', "adadedup.strategy.candidates=['random']"]
    folder = run(config, tmp_path / 'run', *strategy)
    notes = ' '.join(read_manifest(folder).notes)
    assert 'auto chose random' in notes and 'clip_dedup' not in notes


@pytest.mark.parametrize('candidates', ["['no_such']", '[]'])
def test_wrong_candidates_are_a_users_error(config, tmp_path, capsys, candidates):
    strategy = ['--cfg-options', f'adadedup.strategy.candidates={candidates}']
    line = fails(capsys, config, tmp_path / 'run', '--strategy', 'auto', *strategy)
    assert 'candidates' in line


def test_random_would_do_where_no_loss_is_lower_by_more_than_noise():
    generator = np.random.default_rng(0)
    chance = generator.uniform(1, 2, 16)
    noisy = {'good': chance + generator.normal(-0.001, 0.5, 16)}
    assert 'would do' in ' '.join(module._notes(noisy, chance, 'good'))
    better = {'good': chance - generator.uniform(0.1, 0.2, 16)}
    assert 'would do' not in ' '.join(module._notes(better, chance, 'good'))


def test_copies_that_only_noise_hides_are_noticed(tmp_path):
    """Pairs of one picture, a copy of each with noise: alike once a filter has taken it away."""
    generator = np.random.default_rng(0)
    paths = []
    for number in range(6):
        picture = cv2.resize(generator.integers(0, 256, (6, 6, 3), np.uint8), (96, 96))
        noisy = picture.copy()
        noisy[generator.random((96, 96)) < 0.05] = 255
        for name, pixels in (('plain', picture), ('noisy', noisy)):
            path = tmp_path / f'{number}_{name}.png'
            cv2.imwrite(str(path), pixels)
            paths.append(str(path))

    apart = np.eye(12, dtype=np.float32) * 0.9 + 0.1
    features = apart / np.linalg.norm(apart, axis=1, keepdims=True)
    one_cluster = np.zeros(12, np.int32)
    filtered = OfflineEmbedder(median=5)
    share = share_made_alike(features, one_cluster, paths, filtered, Reader(), 0.97)
    assert share > 0.5
    plain = share_made_alike(features[:6], one_cluster[:6], paths[::2], filtered, Reader(), 0.97)
    assert plain == 0
