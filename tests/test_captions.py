"""Captions, their features, and the strategy that clusters by them."""

import csv
import itertools
import json

import numpy as np
import open_clip
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_work import do_pieces, do_work
from test_features_embedders import tiny_clip  # noqa: F401
from test_pipeline import config, fails, prune_main, selection  # noqa: F401

from adadedup_mm.base.errors import UserError
from adadedup_mm.captions import (
    AnnotationCaptioner,
    CaptionFile,
    caption_shards,
    make_encoder,
    text_shards,
)
from adadedup_mm.captions.text import SHARD, NgramText
from adadedup_mm.features import OpenCLIPEmbedder, PixelEmbedder
from adadedup_mm.pool import Pool
from adadedup_mm.registry import CAPTIONERS


def pool_of(objects, paths=None, size=(100, 200)):
    """A pool of images with (class, box) objects."""
    labels = [label for image in objects for label, _ in image]
    boxes = [box for image in objects for _, box in image]
    n = len(objects)
    return Pool(
        tuple(f'id{i}' for i in range(n)),
        tuple((path,) for path in paths or map('{}.jpg'.format, range(n))),
        ('image',),
        np.array([size] * n, np.int32),
        ('car', 'bus'),
        np.cumsum([0] + [len(image) for image in objects]),
        np.array(labels, np.int32),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.zeros(n, np.int32),
    )


def captions_of(captioner, pool):
    return captioner(pool, np.arange(len(pool)), [paths[0] for paths in pool.image_paths])


def test_annotations_become_sentences_with_counts_sizes_and_places():
    nowhere = (np.nan,) * 4
    pool = pool_of(
        [
            [(0, (0, 80, 20, 100)), (1, (90, 0, 190, 90)), (0, (2, 82, 22, 98))],
            [],
            [(0, nowhere)] * 30,
        ]
    )
    assert captions_of(AnnotationCaptioner(), pool) == [
        'An image with two cars, one bus. Two medium cars at the lower left, one large bus at the '
        'middle right.',
        'An image without objects.',
        'An image with dozens of cars.',
    ]


def test_boxes_outside_the_image_or_of_no_size_still_have_a_place():
    pool = pool_of([[(0, (-500, -500, -400, -400)), (0, (500, 900, 500, 900))]])
    assert captions_of(AnnotationCaptioner(), pool) == [
        'An image with two cars. One large car at the upper left, one tiny car at the lower right.'
    ]
    assert (
        'small'
        not in captions_of(AnnotationCaptioner(), pool_of([[(0, (0, 0, 9, 9))]], size=(0, 0)))[0]
    )


PATHS = ['/data/a/1.jpg', '/data/b/1.jpg', '/data/b/2.jpg']
TEXTS = ['a red car', 'two buses, "parked"', 'ein schöner Tag']


@pytest.mark.parametrize(
    'name, write',
    [
        ('ids.json', lambda: json.dumps(dict(zip(['id0', 'id1', 'id2'], TEXTS, strict=True)))),
        (
            'more.json',
            lambda: json.dumps(
                dict(zip(['a/1.jpg', 'b/1.jpg', '2.jpg', 'other.jpg'], [*TEXTS, ''], strict=True))
            ),
        ),
        (
            'list.json',
            lambda: json.dumps(
                [
                    dict(file_name=path, caption=text)
                    for path, text in zip(PATHS, TEXTS, strict=True)
                ]
            ),
        ),
        (
            'lines.jsonl',
            lambda: (
                '\n'.join(
                    json.dumps(dict(image=path[6:], text=text), ensure_ascii=False)
                    for path, text in zip(PATHS, TEXTS, strict=True)
                )
                + '\n\n'
            ),
        ),
        (
            'bom.csv',
            lambda: (
                '\ufeffsample_id,caption\nid2,ein schöner Tag\nid0,a red car\nid1,"two buses, '
                '""parked"""\n'
            ),
        ),
    ],
)
def test_captions_are_read_by_sample_id_or_file_name(name, write, tmp_path):
    (tmp_path / name).write_text(write(), encoding='utf-8')
    assert captions_of(CaptionFile(str(tmp_path / name)), pool_of([[]] * 3, PATHS)) == TEXTS


@pytest.mark.parametrize(
    'name, content, words',
    [
        ('a.json', '{"id0": "x", "id2": "y"}', "no caption for 1 of 3 samples, for example 'id1'"),
        (
            'a.json',
            '{"id0": "x", "id0": "y", "id1": "z", "id2": "z"}',
            "entry 2: a second caption for 'id0'",
        ),
        ('a.json', '{"id0": "x", "a/1.jpg": "y"}', "a second caption for 'a/1.jpg'"),
        ('a.json', '{"1.jpg": "x"}', "'1.jpg' fits 2 samples; add its folder"),
        ('a.json', '{"id0": "  "}', "the caption of 'id0' is empty"),
        ('a.json', '{"id0": null}', "the caption of 'id0' is empty"),
        ('a.json', '[{"sample_id": "id0"}]', "record 1 needs 'sample_id'"),
        ('a.json', '[["id0", "x"]]', "record 1 needs 'sample_id'"),
        ('a.json', '[{"sample_id": ["id0"], "caption": "x"}]', 'names no sample'),
        ('a.json', '{"id0": ', 'not valid JSON'),
        ('a.json', '[' * 100_000, 'not valid JSON'),
        ('a.json', '3', 'must hold a dict'),
        ('a.jsonl', '{"sample_id": "id0", "caption": "x"}\nnonsense', 'line 2 is not valid JSON'),
        (
            'a.jsonl',
            '{"image": "2.jpg", "caption": "x", "caption": "y"}',
            "the key 'caption' appears twice",
        ),
        ('a.csv', 'sample,caption\nid0,x\n', "line 2 needs 'sample_id'"),
        ('a.csv', 'sample_id,caption\nid0\n', "the caption of 'id0' is empty"),
        ('a.csv', 'sample_id,caption\nid0,x\nid0,x\n', "line 3: a second caption for 'id0'"),
    ],
)
def test_wrong_captions_files_are_refused_in_one_line(name, content, words, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError) as error:
        captions_of(CaptionFile(str(tmp_path / name)), pool_of([[]] * 3, PATHS))
    assert words in str(error.value) and name in str(error.value) and '\n' not in str(error.value)


def test_files_that_are_missing_no_text_or_of_another_kind_are_refused(tmp_path):
    (tmp_path / 'a.csv').write_bytes(b'\xff\xfe\x00')
    for name, words in (
        ('missing.json', 'does not exist'),
        ('a.txt', 'must end in'),
        ('a.csv', 'cannot be read'),
    ):
        with pytest.raises(UserError, match=words):
            captions_of(CaptionFile(str(tmp_path / name)), pool_of([[]]))


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60), st.sampled_from(['a.json', 'a.jsonl', 'a.csv']))
def test_any_text_as_a_captions_file_is_read_or_refused_cleanly(tmp_path_factory, content, name):
    file = tmp_path_factory.mktemp('fuzz') / name
    file.write_text(content, encoding='utf-8', errors='surrogatepass')
    with pytest.raises(UserError):
        captions_of(CaptionFile(str(file)), pool_of([[]] * 3))


class Numbers:
    """A captioner that notes its calls."""

    batch_size = 4

    def __init__(self, answer='image {}'):
        self.answer = answer
        self.calls = []

    def __call__(self, pool, samples, paths):
        self.calls.append(samples.tolist())
        return [self.answer.format(path) for path in paths]


def test_captions_are_split_over_processes_and_resumed(tmp_path):
    pool, captioners = pool_of([[]] * 22), [Numbers(), Numbers()]
    paths = [paths[0] for paths in pool.image_paths]
    for rank, captioner in enumerate(captioners):
        do_pieces(caption_shards(captioner, pool, paths), tmp_path, range(rank, 6, 2))
    assert captioners[0].calls == [[0, 1, 2, 3], [8, 9, 10, 11], [16, 17, 18, 19]]
    again = Numbers()
    (tmp_path / 'part_000002.json').unlink()
    do_work(caption_shards(again, pool, paths), tmp_path)
    assert again.calls == [[8, 9, 10, 11]]
    assert json.loads((tmp_path / 'captions.json').read_text()) == [
        f'image {path}' for path in paths
    ]
    assert [file.name for file in tmp_path.iterdir()] == ['captions.json']


@pytest.mark.parametrize(
    'answer, words',
    [
        (['x'], '2 captions for 2 images, but returned 1'),
        ('xy', 'but returned str'),
        (None, 'but returned NoneType'),
        (['x', ' '], "returned ' ' for sample 'id1'"),
        (['x', 3], "returned 3 for sample 'id1'"),
    ],
)
def test_a_captioner_must_return_a_text_for_every_sample(answer, words, tmp_path):
    with pytest.raises(UserError, match=words):
        shards = caption_shards(lambda pool, samples, paths: answer, pool_of([[]] * 2), ['a', 'b'])
        do_work(shards, tmp_path)


def test_ngrams_know_similar_texts_and_weigh_common_words_less():
    texts = ['an image with a red car', 'an image with a red cab', 'an image with nothing', '...']
    rows = NgramText(texts)(texts)
    assert rows.dtype == np.float32 and np.allclose(
        np.linalg.norm(rows, axis=1), [1, 1, 1, 0], atol=1e-6
    )
    assert rows[0] @ rows[1] > rows[0] @ rows[2] + 0.1
    assert np.array_equal(NgramText(texts)(texts[1:3]), rows[1:3])


def test_clip_texts_are_open_clips_own(tiny_clip):  # noqa: F811
    folder, model = tiny_clip
    model.eval()
    embedder = OpenCLIPEmbedder('tiny', str(folder / 'weights.pt'), precision='bf16')
    encoder = make_encoder('auto', embedder, [])
    encoder._network = (
        encoder._network[0],
        lambda texts: torch.tensor([[ord(c) % 31 for c in t] for t in texts]),
    )
    texts = [f'{i:08b}' for i in range(100)]
    with torch.inference_mode():
        expected = model.encode_text(encoder._network[1](texts), normalize=True).numpy()
    assert np.abs(encoder(texts) - expected).max() < 1e-5
    assert encoder.key['weights'] == embedder.key['weights'] and 'precision' not in encoder.key


@pytest.fixture(scope='module')
def clip_weights(tiny_clip, tmp_path_factory):  # noqa: F811
    """Weights of the architecture ``tiny77``, a small CLIP with the usual tokens."""
    folder = tmp_path_factory.mktemp('clip77')
    settings = json.loads((tiny_clip[0] / 'tiny.json').read_text())
    settings['text_cfg'] |= dict(vocab_size=49408, context_length=77)
    (folder / 'tiny77.json').write_text(json.dumps(settings))
    open_clip.add_model_config(folder / 'tiny77.json')
    torch.manual_seed(0)
    torch.save(open_clip.create_model('tiny77').state_dict(), folder / 'weights.pt')
    return str(folder / 'weights.pt')


def test_real_tokens_reach_the_text_side(clip_weights):
    rows = make_encoder('clip', OpenCLIPEmbedder('tiny77', clip_weights), [])(
        ['a car', 'a bus' * 99]
    )
    assert np.allclose(np.linalg.norm(rows, axis=1), 1) and rows[0] @ rows[1] < 0.9999


def test_weights_without_a_text_side_say_what_to_use(tiny_clip, tmp_path):  # noqa: F811
    _, model = tiny_clip
    visual = {key: value for key, value in model.state_dict().items() if key.startswith('visual.')}
    torch.save(visual, tmp_path / 'visual.pt')
    with pytest.raises(UserError, match='no text side.*ngrams'):
        make_encoder('auto', OpenCLIPEmbedder('tiny', str(tmp_path / 'visual.pt')), ['x'])(['x'])
    with pytest.raises(UserError, match='PixelEmbedder has no text side'):
        make_encoder('clip', PixelEmbedder(), ['x'])


def test_text_features_do_not_depend_on_the_number_of_processes(tmp_path):
    texts = [f'image {i} of {i % 7} cars' for i in range(2 * SHARD + 10)]
    rows = np.arange(len(texts))[::-1].copy()
    results = []
    for world in (1, 3):
        folder = tmp_path / str(world)
        do_work(text_shards(texts, rows, NgramText(texts)), folder, world)
        results.append(np.load(folder / 'text.npy'))
    assert np.array_equal(*results) and np.array_equal(results[0], NgramText(texts)(texts)[::-1])
    assert [file.name for file in (tmp_path / '3').iterdir()] == ['text.npy']


# The strategy


def vlm_sse(config, work_dir, *options):  # noqa: F811
    prune_main(
        [
            str(config),
            '--work-dir',
            str(work_dir),
            '--strategy',
            'vlm_sse',
            '--cfg-options',
            'adadedup.guards.min_class_ratio=0',
            *options,
        ]
    )
    return json.loads((work_dir / 'manifest.json').read_text())


@pytest.fixture(scope='module')
def with_strategy(config):  # noqa: F811
    """Writes a config with these arguments of the strategy."""

    def write(path, **arguments):
        path.write_text(
            f"_base_ = '{config}'\nadadedup = dict(strategy=dict(type='vlm_sse', _delete_=True, "
            f'**{arguments!r}))'
        )
        return path

    return write


def test_vlm_sse_meets_the_budget_and_every_pruned_sample_resembles_a_kept_one(config, tmp_path):  # noqa: F811
    manifest = vlm_sse(config, tmp_path / 'run')
    samples = pq.read_table(tmp_path / 'run/samples.parquet').to_pylist()
    assert manifest['kept'] == 24 == sum(row['kept'] for row in samples)
    stages = {'captions', 'text', 'clusters', 'features', 'greedy', 'neighbours', 'conflicts'}
    assert set(manifest['stages']) == stages
    [note] = [note for note in manifest['notes'] if note.startswith('Captions')]
    assert 'annotations' in note and 'hashed n-grams' in note
    tau = pq.read_table(tmp_path / 'run/clusters.parquet')['threshold'].to_pylist()
    assert len(tau) <= len(samples) // 10 and len(set(tau)) == 1
    kept = {row['sample_id']: row['cluster'] for row in samples if row['kept']}
    for row in samples:
        if not row['kept']:
            assert kept[row['partner_id']] == row['cluster'] and row['partner_similarity'] > tau[0]
    vlm_sse(config, tmp_path / 'again')
    assert selection(tmp_path / 'run') == selection(tmp_path / 'again')


def test_vlm_sse_takes_the_text_side_of_the_embedder(config, clip_weights, tmp_path):  # noqa: F811
    file = tmp_path / 'c.py'
    file.write_text(
        f"_base_ = '{config}'\nadadedup = dict(embedder=dict(type='OpenCLIPEmbedder', "
        "model='tiny77', "
        f"pretrained='{clip_weights}', _delete_=True))"
    )
    manifest = vlm_sse(file, tmp_path / 'run')
    assert any('Text features: the text side of tiny77.' in note for note in manifest['notes'])
    assert np.load(tmp_path / 'run/stages/text/text.npy').shape == (48, 24)


def test_captions_of_a_file_make_the_clusters(world, config, with_strategy, tmp_path, capsys):  # noqa: F811
    images = json.loads((world / 'coco/annotations/instances_train.json').read_text())['images']
    words = ['a sunny road', 'heavy rain tonight', 'parked lorry', 'empty crossing']
    with (tmp_path / 'captions.csv').open('w', newline='') as file:
        csv.writer(file).writerows(
            [
                ['sample_id', 'caption'],
                *([image['id'], words[i % 4]] for i, image in enumerate(images)),
            ]
        )
    file = tmp_path / 'captions.csv'
    manifest = vlm_sse(
        with_strategy(tmp_path / 'c.py', captions=str(file), num_clusters=4), tmp_path / 'run'
    )
    clusters = pq.read_table(tmp_path / 'run/samples.parquet')['cluster'].to_pylist()
    assert clusters == [i % 4 for i in range(len(images))]
    assert str(file) in [entry['path'] for entry in manifest['inputs']]
    file.write_text('sample_id,caption\n')
    line = fails([tmp_path / 'c.py', '--work-dir', tmp_path / 'other'], capsys)
    assert 'no caption for 48 of 48' in line and not (tmp_path / 'other').exists()


def test_a_users_captioner_is_called_once_for_each_image(with_strategy, tmp_path, monkeypatch):
    made = []

    def build(**options):
        made.append(Numbers(**options))
        return made[-1]

    monkeypatch.setitem(CAPTIONERS.module_dict, 'Numbers', build)
    file = with_strategy(tmp_path / 'c.py', captions=dict(type='Numbers', answer='seen {}'))
    manifest = vlm_sse(file, tmp_path / 'run')
    assert list(itertools.chain(*made[0].calls)) == list(range(48))
    assert any('made by Numbers' in note for note in manifest['notes'])
    prune_main([str(file), '--work-dir', str(tmp_path / 'run'), '--keep-ratio', '.4', '--resume'])
    assert made[1].calls == []


@pytest.mark.parametrize(
    'arguments, words',
    [
        (dict(captions='missing.json'), 'missing.json does not exist'),
        (dict(text='bert'), "'bert'"),
        (dict(captions=dict(type='NoCaptioner')), 'NoCaptioner'),
        (dict(captions=dict(file='a.json')), "with a 'type'"),
        (dict(captions=3), "with a 'type'"),
        (dict(num_clusters=0), 'num_clusters is 0'),
        (dict(epsilon=0.1), 'epsilon'),
    ],
)
def test_wrong_arguments_of_the_strategy_are_refused(
    arguments, words, with_strategy, tmp_path, capsys
):
    file = with_strategy(tmp_path / 'c.py', **arguments)
    assert words in fails([file, '--work-dir', tmp_path / 'run'], capsys)
    # Captions that were made already stay for another try.
    assert (tmp_path / 'run').exists() == ('text' in arguments)
