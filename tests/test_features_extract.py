"""The features stage: the same result however it is split, interrupted or resumed; bad images
reported."""

import json
import os
import platform
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shared_work import do_work

from adadedup_mm.base.cpu import default_workers
from adadedup_mm.base.errors import UserError
from adadedup_mm.features import PixelEmbedder, extract, feature_shards
from adadedup_mm.pool import choose_views
from adadedup_mm.stages import StageStore

N = 21


class Mean:
    """A stand-in whose features can be told apart: two numbers of the image."""

    near_duplicate, batch_size, workers = 1.0, 4, 2
    transform = PixelEmbedder(4).transform

    def encode(self, images):
        pixels = images.numpy().astype(np.float32) + 1
        rows = np.stack([pixels.mean((1, 2, 3)), pixels[:, 0].mean((1, 2))], 1)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(extract, 'SHARD', 6)


@pytest.fixture
def decoded(monkeypatch):
    """Counts how often each file is decoded."""
    counts, lock = Counter(), threading.Lock()
    decode = extract.decode

    def counting(path, transform):
        with lock:
            counts[path] += 1
        return decode(path, transform)

    monkeypatch.setattr(extract, 'decode', counting)
    return counts


@pytest.fixture
def images(tmp_path):
    """N samples of one view."""
    rng = np.random.default_rng(0)
    folder = tmp_path / 'images'
    folder.mkdir()
    for i in range(N):
        pixels = np.repeat(np.repeat(rng.integers(0, 255, (5, 6, 3), dtype=np.uint8), 8, 0), 8, 1)
        Image.fromarray(pixels).save(folder / f'{i}.jpg', quality=95)
    return [(str(folder / f'{i}.jpg'),) for i in range(N)]


def run(
    image_paths, folder, embedder=None, world=1, views=('image',), use_views='front', **options
):
    shards = feature_shards(image_paths, views, use_views, embedder or PixelEmbedder(), **options)
    do_work(shards, folder, world)
    return np.load(folder / 'features.npy'), json.loads((folder / 'bad_images.json').read_text())


def test_features_are_those_of_each_image_in_the_pools_order(images, tmp_path):
    embedder = PixelEmbedder()
    features, bad = run(images, tmp_path / 'run', embedder)
    expected = np.concatenate(
        [embedder.encode(extract.decode(path, embedder.transform)[None]) for (path,) in images]
    )
    assert features.dtype == np.float32 and not bad
    assert np.array_equal(features, expected)
    files = sorted(file.name for file in (tmp_path / 'run').iterdir())
    assert files == ['bad_images.json', 'features.npy', 'unreadable.npy']


@pytest.mark.parametrize('world', [2, 3, 7])
def test_any_number_of_processes_gives_identical_features(world, images, tmp_path, decoded):
    alone, _ = run(images, tmp_path / 'alone')
    decoded.clear()
    shared, _ = run(images, tmp_path / 'shared', world=world)
    assert np.array_equal(alone, shared)
    assert set(decoded.values()) == {1} and len(decoded) == N


@pytest.mark.parametrize('batch_size, workers', [(1, 1), (3, 3), (100, 2)])
def test_batch_size_and_workers_change_nothing(batch_size, workers, images, tmp_path):
    embedder = PixelEmbedder(workers=workers)
    embedder.batch_size = batch_size
    features, _ = run(images, tmp_path / 'run', embedder)
    assert np.array_equal(features, run(images, tmp_path / 'default')[0])


@pytest.mark.parametrize('died_at', [0, 7, 20])
def test_resumed_run_is_identical_and_decodes_only_what_is_missing(
    died_at, images, tmp_path, decoded, monkeypatch
):
    whole, _ = run(images, tmp_path / 'whole')
    decoded.clear()
    embedder = PixelEmbedder(workers=1)
    seen = []

    def dies(paths):
        seen.extend(paths)
        if len(seen) > died_at:
            raise KeyboardInterrupt

    embed = extract._embed
    with monkeypatch.context() as patch:
        patch.setattr(extract, '_embed', lambda *args: (dies(args[2]), embed(*args))[1])
        with pytest.raises(KeyboardInterrupt):
            run(images, tmp_path / 'run', embedder)
    done = {
        path
        for shard in (tmp_path / 'run').glob('shard_*.npy')
        for (path,) in images[int(shard.stem[-5:]) * 6 :][:6]
    }
    decoded.clear()
    features, _ = run(images, tmp_path / 'run')
    assert np.array_equal(features, whole)
    assert set(decoded) == {path for (path,) in images} - done


def test_finished_stage_is_left_alone(images, tmp_path, decoded):
    features, bad = run(images, tmp_path / 'run')
    (tmp_path / 'run' / 'shard_00000.npy').write_bytes(
        b'left by a run that was killed between the two steps'
    )
    decoded.clear()
    again, bad_again = run(images, tmp_path / 'run')
    assert np.array_equal(features, again) and bad == bad_again and not decoded
    assert not list((tmp_path / 'run').glob('shard_*'))


def test_repeated_images_are_decoded_once(images, tmp_path, decoded):
    features, _ = run([*images, *images[::-1], images[3]], tmp_path / 'run')
    assert np.array_equal(features[:N], features[N : 2 * N][::-1])
    assert np.array_equal(features[-1], features[3])
    assert set(decoded.values()) == {1}


def test_views_together_average_their_cosines(images, tmp_path):
    frames = [sum(images[i : i + 3], ()) for i in range(0, N, 3)]
    views = ('CAM_FRONT_LEFT', 'CAM_FRONT', 'CAM_BACK')
    single = {
        view: run(frames, tmp_path / view, views=views, use_views=[view])[0] for view in views
    }
    everything, _ = run(frames, tmp_path / 'all', views=views, use_views='all')
    front, _ = run(frames, tmp_path / 'front', views=views, use_views='front')
    assert np.array_equal(front, single['CAM_FRONT'])
    assert np.allclose(
        everything @ everything.T, sum(z @ z.T for z in single.values()) / 3, atol=1e-6
    )


@pytest.mark.parametrize(
    'views, use_views, expected',
    [
        (('CAM_FRONT_RIGHT', 'CAM_FRONT', 'CAM_BACK'), 'front', [1]),
        (('image_0', 'image_1'), 'front', [0]),
        (('SIDE_LEFT', 'FRONT'), 'front', [1]),
        (('CAM2',), 'front', [0]),
        (('a', 'b', 'c'), 'all', [0, 1, 2]),
        (('a', 'b', 'c'), ['c', 'a'], [2, 0]),
        (('a', 'b'), ['b', 'b'], [1]),
    ],
)
def test_views_are_chosen_by_name(views, use_views, expected):
    assert choose_views(views, use_views) == expected


@pytest.mark.parametrize(
    'use_views, message',
    [(['rear'], "names 'rear', but the dataset has 'a', 'b'"), ([], 'names no camera')],
)
def test_unknown_views_are_refused(use_views, message):
    with pytest.raises(UserError, match=message):
        choose_views(('a', 'b'), use_views)


@pytest.fixture
def damaged(images):
    """The images with three bad ones: truncated, missing, text."""
    truncated, text = Path(images[2][0]), Path(images[9][0])
    truncated.write_bytes(truncated.read_bytes()[:200])
    text.write_bytes(b'text')
    return [*images[:5], ('/missing/image.jpg',), *images[6:]]


@pytest.mark.parametrize('on_bad_image', ['keep', 'drop'])
def test_bad_images_get_zero_rows_and_leave_the_others_alone(
    on_bad_image, damaged, images, tmp_path
):
    features, bad = run(damaged, tmp_path / 'run', on_bad_image=on_bad_image)
    assert [entry['sample'] for entry in bad] == [2, 5, 9]
    assert bad[1] == dict(sample=5, path='/missing/image.jpg', reason='No such file or directory')
    unreadable = np.load(tmp_path / 'run' / 'unreadable.npy')
    assert unreadable.dtype == bool and np.flatnonzero(unreadable).tolist() == [2, 5, 9]
    assert not features[unreadable].any()
    good = [image for image, is_bad in zip(images, unreadable, strict=True) if not is_bad]
    assert np.array_equal(features[~unreadable], run(good, tmp_path / 'good')[0])


def test_sample_with_one_bad_view_is_bad(damaged, tmp_path):
    frames = [sum(damaged[i : i + 3], ()) for i in range(0, N, 3)]
    features, bad = run(frames, tmp_path / 'run', views=('a', 'b', 'c'), use_views='all')
    assert [entry['sample'] for entry in bad] == [0, 1, 3]
    assert not features[[0, 1, 3]].any() and features[2].any()


def test_refused_bad_images_are_listed_and_looked_at_again(damaged, tmp_path, decoded):
    with pytest.raises(
        UserError,
        match=r'^3 of 21 images cannot be read: .*2\.jpg \(Truncated.*missing/image\.jpg '
        r'\(No such file or directory\); .*9\.jpg \(not an image',
    ) as error:
        run(damaged, tmp_path / 'run', on_bad_image='error')
    assert '\n' not in str(error.value)
    for sample in (2, 9):
        Image.fromarray(np.full((20, 20, 3), 99, np.uint8)).save(damaged[sample][0])
    decoded.clear()
    repaired = [*damaged[:5], damaged[4], *damaged[6:]]
    assert not run(repaired, tmp_path / 'run', on_bad_image='error')[1]
    assert {damaged[2][0], damaged[9][0]} <= set(decoded)


def test_reasons_without_a_shard_are_forgotten(images, tmp_path):
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'shard_00001.json').write_text(
        '{"7": "a hiccup of the disk, before the run was killed"}'
    )
    assert not run(images, tmp_path / 'run')[1]


def test_only_five_bad_images_are_listed(images, tmp_path):
    paths = [*images, *((f'/missing/{i}.jpg',) for i in range(8))]
    with pytest.raises(UserError, match=r'8 of 29 .*first: .*0\.jpg.*4\.jpg') as error:
        run(paths, tmp_path / 'run', on_bad_image='error')
    assert '5.jpg' not in str(error.value)


def test_no_readable_image_at_all_is_an_error_under_any_option(images, tmp_path):
    with pytest.raises(
        UserError, match=r"none of the 21 images can be read: check the dataset's data_root"
    ):
        run([(f'/wrong{path}',) for (path,) in images], tmp_path / 'run', on_bad_image='keep')


def test_features_that_are_not_finite_make_an_image_bad(images, tmp_path):
    class Broken(Mean):
        def encode(self, images):
            features = super().encode(images)
            features[0, 1] = np.inf
            return features

    features, bad = run(images, tmp_path / 'run', Broken())
    assert [entry['sample'] for entry in bad] == [0, 4, 6, 10, 12, 16, 18]
    assert {entry['reason'] for entry in bad} == {'the network gives no finite features'}
    assert np.isfinite(features).all() and not features[0].any()


def test_paths_that_are_no_text_are_reported(images, tmp_path):
    _, bad = run([*images, ('\udcff.jpg',), ('\ud800.jpg',)], tmp_path / 'run')
    assert [entry['path'] for entry in bad] == ['\\udcff.jpg', '\\ud800.jpg']


def test_stage_waits_for_the_shards_of_other_processes(images, tmp_path):
    alone, _ = run(images, tmp_path / 'alone')
    results = {}

    def process(rank):
        store = StageStore(tmp_path / 'stages', rank, 2, poll=0.01)
        shards = feature_shards(images, ('image',), 'front', PixelEmbedder(workers=1))
        folder = store.run('features', 'key', shards)
        results[rank] = np.load(folder / 'features.npy')

    processes = [threading.Thread(target=process, args=(rank,)) for rank in (0, 1)]
    processes[0].start()
    processes[1].start()
    for thread in processes:
        thread.join(30)
    assert np.array_equal(results[0], alone) and np.array_equal(results[1], alone)


def test_threads_of_torch_are_as_before_afterwards(images, tmp_path):
    before = torch.get_num_threads()
    run(images, tmp_path / 'run')
    assert torch.get_num_threads() == before


PAGES = """if True:
    import resource
    import torch
    from adadedup_mm.base.cpu import keep_freed_pages
    with keep_freed_pages():
        pass
    # The first ones move malloc's threshold.
    for _ in range(50):
        torch.empty(1 << 20).fill_(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        torch.empty(1 << 20).fill_(1)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 50)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='glibc keeps memory')
def test_a_training_afterwards_does_not_ask_the_system_for_every_tensor():
    def faults(**environment):
        done = subprocess.run(
            [sys.executable, '-c', PAGES],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, **environment},
        )
        return int(done.stdout)

    assert faults() < 200  # of a tensor's 1024 pages
    # What the user says counts.
    assert faults(MALLOC_MMAP_THRESHOLD_='65536') > 900


@pytest.mark.parametrize(
    'processes, workers', [('4', 4), ('64', 1), ('0', 16), ('', 16), ('x', 16), ('-2', 16)]
)
def test_the_processes_of_a_machine_share_its_cores(processes, workers, monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda process: range(16))
    monkeypatch.setenv('LOCAL_WORLD_SIZE', processes)
    assert default_workers() == workers


def test_an_error_of_the_embedder_is_not_swallowed(images, tmp_path):
    class Failing(Mean):
        def encode(self, images):
            raise MemoryError('too large')

    with pytest.raises(MemoryError):
        run(images, tmp_path / 'run', Failing())
