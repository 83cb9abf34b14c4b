"""Numbers at their limits, through the whole chain: features, clusters, scores, thresholds, tables,
report."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from test_datasets import annotation, config_of, make_coco

from adadedup_mm.base.errors import UserError
from adadedup_mm.features import PixelEmbedder
from adadedup_mm.pruning.prune import prune
from adadedup_mm.registry import EMBEDDERS
from adadedup_mm.settings.options import resolve_options
from adadedup_mm.vectors.map import map_2d

OFFLINE = dict(strategy='clip_dedup', keep_ratio=0.5, embedder=dict(type='PixelEmbedder'))


def run(root, dataset, **options):
    """Prunes; the rows of samples.parquet and of clusters.parquet."""
    config = config_of(dataset, adadedup=OFFLINE | options)
    prune(config, resolve_options(config), root / 'run')
    assert (root / 'run/report.html').stat().st_size > 5_000
    tables = [
        pq.read_table(root / f'run/{name}.parquet').to_pylist() for name in ('samples', 'clusters')
    ]
    kept = sum(row['kept'] for row in tables[0])
    assert json.loads((root / 'run/manifest.json').read_text())['kept'] == kept
    return tables


@pytest.mark.parametrize(
    'strategy', ['adadedup', 'clip_dedup', 'vlm_sse', 'random', 'uniform_stride', 'tfdp']
)
@pytest.mark.parametrize('ratio', [0.01, 1.0])
def test_a_single_sample_always_stays(strategy, ratio, tmp_path):
    rows, _ = run(tmp_path, make_coco(tmp_path, ids=(7,)), strategy=strategy, keep_ratio=ratio)
    assert [row['kept'] for row in rows] == [True]


def textured(path, seed=0):
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)).save(path)


def eight_copies(root):
    dataset = make_coco(root, ids=range(8))
    for i in range(8):
        textured(root / f'images/{i}.png')
    return dataset


def test_identical_images_by_the_thousand_leave_exactly_the_budget(tmp_path):
    dataset = make_coco(tmp_path, ids=range(1200), annotated=range(50))
    for i in range(1200):
        textured(tmp_path / f'images/{i}.png')
    rows, clusters = run(tmp_path, dataset, keep_ratio=0.1)
    assert sum(row['kept'] for row in rows) == 120
    assert sum(cluster['size'] for cluster in clusters) == 1200
    assert all(
        row['partner_similarity'] == pytest.approx(1, abs=1e-6) for row in rows if not row['kept']
    )


@pytest.mark.parametrize('columns', [2048, 2049])
def test_a_map_shows_what_varies(columns):
    rows = np.eye(1, columns, dtype=np.float32)
    for equal in (
        np.zeros((5, columns), np.float32),
        np.repeat(rows, 50, 0),
        rows[:, :1],
        rows[:0],
    ):
        assert np.array_equal(map_2d(equal), np.zeros((len(equal), 2)))
    two = np.eye(2, columns, dtype=np.float32)[np.arange(50) % 2]
    assert np.allclose(np.abs(map_2d(two)), [0.5**0.5, 0], atol=1e-6)


def test_clusters_of_one_go_by_index_and_all_of_them_stay_at_ratio_one(tmp_path):
    dataset = make_coco(tmp_path, ids=range(9))
    for i in range(9):
        textured(tmp_path / f'images/{i}.png', i)
    alone = dict(type='SphericalKMeans', num_clusters=9)
    rows, clusters = run(tmp_path, dataset, clusterer=alone, keep_ratio=1.0)
    assert all(row['kept'] for row in rows) and {cluster['size'] for cluster in clusters} == {1}
    rows, _ = run(tmp_path / 'half', dataset, clusterer=alone)
    assert sum(row['kept'] for row in rows) == 5


class Spoilt(PixelEmbedder):
    """Gives all images the same impossible feature, but for the first ``good`` of every batch."""

    def __init__(self, value, good=0):
        super().__init__()
        self.value, self.good = value, good

    def encode(self, images):
        features = super().encode(images)
        features[self.good :] = float(self.value)
        return features


@pytest.fixture
def spoilt():
    EMBEDDERS.register_module(module=Spoilt)
    yield
    EMBEDDERS.module_dict.pop('Spoilt')


@pytest.mark.parametrize('action', ['keep', 'drop'])
def test_features_that_are_no_numbers_count_as_unreadable(action, spoilt, tmp_path):
    rows, _ = run(
        tmp_path,
        eight_copies(tmp_path),
        on_bad_image=action,
        embedder=dict(type='Spoilt', value='nan', good=5),
    )
    assert sum(row['kept'] for row in rows) == 4
    assert [row['kept'] for row in rows if row['reason'] == 'unreadable image'] == [
        action == 'keep'
    ] * 3


@pytest.mark.parametrize('value', ['nan', 'inf'])
def test_no_finite_feature_at_all_is_an_error(value, spoilt, tmp_path):
    with pytest.raises(UserError, match='none of the 8 images'):
        run(tmp_path, make_coco(tmp_path, ids=range(8)), embedder=dict(type='Spoilt', value=value))
    assert not (tmp_path / 'run').exists()


def test_zero_features_are_never_redundant_and_the_budget_is_met(spoilt, tmp_path):
    rows, _ = run(
        tmp_path,
        eight_copies(tmp_path),
        embedder=dict(type='Spoilt', value=0.0, good=4),
        guards=dict(min_class_ratio=0.0),
    )
    assert sum(row['kept'] for row in rows) == 4
    # The four images with a direction are the same one.
    assert [row['kept'] for row in rows] == [True] + [False] * 3 + [True] * 3 + [False]


def test_ids_as_texts_large_ids_and_equal_names_in_different_folders_stay_apart(tmp_path):
    ids = ['1', 'ü/"x"', '00', 2**53, 2**53 + 1, 2**63 + 1, -1, 0]
    dataset = make_coco(tmp_path, ids=range(8))
    file = tmp_path / 'train.json'
    content = json.loads(file.read_text())
    for i, image in enumerate(content['images']):
        image['id'], image['file_name'] = ids[i], f'{i}/same.png'
        (tmp_path / f'images/{i}').mkdir()
        (tmp_path / f'images/{i}.png').rename(tmp_path / f'images/{i}/same.png')
    content['annotations'] = [annotation(i, name, 0) for i, name in enumerate(ids)]
    file.write_text(json.dumps(content))
    rows, _ = run(tmp_path, dataset)
    assert [row['sample_id'] for row in rows] == [str(name) for name in ids]
    assert len({row['image_paths'][0] for row in rows}) == 8
    written = json.loads((tmp_path / 'run/annotations/train.json').read_text())
    stays = [name for name, row in zip(ids, rows, strict=True) if row['kept']]
    assert [image['id'] for image in written['images']] == stays and len(stays) == 4
    assert [item['image_id'] for item in written['annotations']] == stays
