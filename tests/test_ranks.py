"""Several processes: who does what, and that results do not show how many there were."""

import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_work import do_pieces, do_work
from test_density import smooth_features, some_clusters
from test_faults import digests, make_config, start_child

from adadedup_mm.base.errors import UserError
from adadedup_mm.cli import common
from adadedup_mm.clusters import SphericalKMeans
from adadedup_mm.datasets import read_pool
from adadedup_mm.density import kcenter_scores, nearest_kept, semdedup_scores, split
from adadedup_mm.density.split import balanced, cluster_work, density_work
from adadedup_mm.pruning.prune import prune
from adadedup_mm.registry import DENSITIES
from adadedup_mm.settings.load import load_config
from adadedup_mm.settings.options import resolve_options
from adadedup_mm.stages import Shards, StageStore
from adadedup_mm.strategies.run import Run
from adadedup_mm.vectors.nearest import BLOCK, nearest_centroid

ROOT = Path(__file__).parents[1]
costs = st.lists(st.integers(0, 10**12), max_size=40).map(lambda values: np.array(values, np.int64))


def loads(costs, parts, part):
    return np.bincount(part, costs, parts)


@given(costs, st.integers(1, 9))
def test_every_job_has_one_part_and_no_part_could_give_its_last_job_to_another(costs, parts):
    part = balanced(costs, parts)
    assert len(part) == len(costs) and ((part >= 0) & (part < parts)).all()
    load = loads(costs, parts, part)
    for number in range(parts):
        mine = costs[part == number]
        assert not len(mine) or load[number] - mine.min() <= load.min()


@settings(deadline=None)
@given(st.lists(st.integers(0, 100), min_size=1, max_size=7).map(np.array), st.integers(1, 3))
def test_the_dearest_part_is_within_a_third_of_the_best_deal(costs, parts):
    best = min(
        loads(costs, parts, np.array(deal)).max()
        for deal in itertools.product(range(parts), repeat=len(costs))
    )
    assert loads(costs, parts, balanced(costs, parts)).max() <= 4 / 3 * best


@given(costs, st.integers(1, 9), st.randoms(use_true_random=False))
def test_loads_do_not_depend_on_the_order_of_the_jobs(costs, parts, random):
    shuffled = np.array(random.sample(costs.tolist(), len(costs)), np.int64)
    np.testing.assert_array_equal(
        loads(costs, parts, balanced(costs, parts)),
        loads(shuffled, parts, balanced(shuffled, parts)),
    )


@pytest.mark.parametrize(
    'score',
    [
        kcenter_scores,
        *(
            lambda *arguments, order=order, **more: semdedup_scores(*arguments, order, 5, **more)
            for order in ('hard', 'easy', 'random')
        ),
    ],
    ids=['kcenter', 'hard', 'easy', 'random'],
)
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.sampled_from([3, 16, 67]), st.sets(st.integers(0, 20), max_size=21))
def test_scores_of_a_cluster_are_the_same_bits_whoever_else_is_looked_at(score, seed, d, chosen):
    features = smooth_features(seed, 2000, d)
    features[seed::150] = 0
    # One large cluster, many small ones.
    assignment = np.minimum(some_clusters(seed, 2000, 40), 20).astype(np.int32)
    whole = score(features, assignment)
    part = score(features, assignment, clusters=np.array(sorted(chosen), np.int64))
    members = np.isin(assignment, list(chosen))
    for one, other in zip(whole, part, strict=True):
        np.testing.assert_array_equal(one[members], other[members])


def test_pieces_of_an_assignment_to_centroids_are_the_whole():
    features = smooth_features(0, 5000, 19)
    features[7::900] = 0
    members = np.arange(5000)[::-1]
    for centroids in (smooth_features(1, 40, 19), np.empty((0, 19), np.float32)):
        whole = nearest_centroid(features, members, centroids)
        for size in (BLOCK, 3 * BLOCK):
            pieces = [
                nearest_centroid(features, members[start : start + size], centroids)
                for start in range(0, 5000, size)
            ]
            np.testing.assert_array_equal(np.concatenate(pieces), whole)


def counting(pieces, calls):
    """Work of which every piece is the square of its number, and that notes who did what."""
    files = [f'part_{piece}.npy' for piece in range(pieces)]

    def compute(folder, chosen, done):
        for piece in chosen:
            calls.append(piece)
            np.save(folder / files[piece], piece**2)
            done(1)

    def lead(folder, share):
        share()
        if not (folder / 'sum.npy').exists():
            np.save(folder / 'sum.npy', sum(np.load(folder / file) for file in files))

    return Shards(files, [1] * pieces, compute, lead, 'sum.npy')


def test_each_piece_is_computed_once_and_not_at_all_when_there_is_a_result(tmp_path):
    calls = []
    shards = counting(7, calls)
    do_pieces(shards, tmp_path / 'work', [2, 3])
    do_work(shards, tmp_path / 'work', world=3)
    assert sorted(calls) == list(range(7))
    do_work(shards, tmp_path / 'work', world=2)
    assert sorted(calls) == list(range(7)) and np.load(tmp_path / 'work/sum.npy') == 91
    assert [file.name for file in (tmp_path / 'work').iterdir()] == ['sum.npy']


@settings(deadline=None)
@given(st.integers(0, 20), st.integers(1, 5), st.sets(st.integers(0, 20)), st.integers(1, 5))
def test_any_number_of_processes_goes_on_where_another_number_stopped(count, world, done, before):
    calls = []
    shards = counting(count, calls)
    with tempfile.TemporaryDirectory() as folder:
        do_pieces(shards, Path(folder), [piece for piece in done if piece < count])
        for rank in range(1, before):
            do_pieces(shards, Path(folder), range(rank, count, before))
        do_work(shards, Path(folder), world)
        assert np.load(Path(folder) / 'sum.npy') == sum(piece**2 for piece in range(count))
    assert sorted(calls) == list(range(count))


def in_processes(world, action):
    """Calls ``action(rank)`` in a process for each rank; their exit statuses. One that fails ends
    the others."""
    running = {start_child(lambda rank=rank: action(rank)): rank for rank in range(world)}
    ends = [None] * world
    while running:
        for child, rank in list(running.items()):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                ends[rank] = status
                del running[child]
                if status:
                    for other in running:
                        os.kill(other, signal.SIGKILL)
        time.sleep(0.01)
    return ends


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    """Of 40 images with boxes."""
    return make_config(tmp_path_factory.mktemp('ranks'))


def results(work_dir):
    """Files of all stages by their SHA-256, and what their records say besides the time."""
    files = {
        name: digest
        for name, digest in digests(work_dir / 'stages').items()
        if name.name not in ('done.json', 'lock')
    }
    store = StageStore(work_dir / 'stages')
    records = {
        name: {entry: value for entry, value in store.record(name).items() if entry != 'seconds'}
        for name in ('features', 'clusters', 'density', 'partners')
    }
    return files, records


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Each process has some of the images to assign."""
    monkeypatch.setattr(split, '_ROWS', 8)


def test_two_processes_write_the_same_stages_and_selection_as_one(config, tmp_path):
    loaded = load_config(config)
    options = resolve_options(loaded)
    one, two = tmp_path / '1', tmp_path / '2'
    assert in_processes(1, lambda rank: prune(loaded, options, one)) == [0]
    assert in_processes(2, lambda rank: prune(loaded, options, two, rank, 2)) == [0, 0]
    assert results(two) == results(one)
    for name in ('samples.parquet', 'clusters.parquet', 'classes.parquet', 'conflicts.parquet'):
        assert pq.read_table(two / name) == pq.read_table(one / name)
    assert digests(two / 'annotations') == digests(one / 'annotations')


def score_by(world, config, work_dir, density='KCenter', layout=0.0, **arguments):
    """The stages up to the density scores, and partners, by some processes; their exit statuses."""
    loaded = load_config(config, {'adadedup.density': dict(type=density, **arguments)})
    pool, sources = read_pool(loaded)

    def score(rank):
        store = StageStore(work_dir / 'stages', rank, world, poll=0.02)
        run = Run(loaded, resolve_options(loaded), store, pool, sources)
        run.density(layout)
        kept = np.arange(len(pool)) % 3 == 0
        partner = run.partners(kept, layout)
        np.testing.assert_array_equal(
            partner, nearest_kept(run.density_stages.compared(layout), run.clusters, kept)[0]
        )
        # Nobody has a copy.
        assert isinstance(run.features.base, np.memmap)

    return in_processes(world, score)


class Plain:
    """A density method of a user's, with nothing but what it must have."""

    def __call__(self, features, assignment, seed):
        order, similarity = kcenter_scores(features, assignment)
        return order.astype(np.int64), similarity.astype(np.float64)


DENSITIES.register_module(name='PlainOfRanksTest', module=Plain, force=True)


@pytest.mark.parametrize(
    'density',
    [
        dict(density='KCenter'),
        dict(density='SemDeDup'),
        dict(density='SemDeDup', order='random'),
        dict(density='PlainOfRanksTest'),
    ],
    ids=str,
)
def test_scores_with_a_label_layout_are_the_same_by_any_number_of_processes(
    density, config, tmp_path
):
    for world in (1, 2, 4):
        assert score_by(world, config, tmp_path / str(world), layout=0.3, **density) == [0] * world
    assert results(tmp_path / '1') == results(tmp_path / '2') == results(tmp_path / '4')


@pytest.mark.parametrize(
    'stage, file',
    [
        ('clusters', 'part_centroids.npy'),
        ('clusters', 'part_00002.npy'),
        ('clusters', 'clusters.npy'),
        ('density', 'part_01.npy'),
        ('density', 'order.npy'),
        ('density', 'similarity.npy'),
        ('partners', 'part_01.npy'),
        ('partners', 'partner.npy'),
    ],
)
def test_three_killed_processes_are_resumed_by_any_number(
    stage, file, config, tmp_path, monkeypatch
):
    replace = os.replace

    def die_at_the_file(source, target):
        meant = (target.parent.name, target.name) == (stage, file)
        # A part that is there could become a result before the others are dead.
        if not meant or not file.startswith('part_0'):
            replace(source, target)
        if meant:
            os.kill(os.getpid(), signal.SIGKILL)

    assert score_by(1, config, tmp_path / 'alone') == [0]
    with monkeypatch.context() as patch:
        patch.setattr(os, 'replace', die_at_the_file)
        assert any(score_by(3, config, tmp_path / 'killed'))
    assert not (tmp_path / 'killed/stages' / stage / 'done.json').exists()
    for world in (1, 2, 3):
        shutil.copytree(tmp_path / 'killed', tmp_path / str(world))
        assert score_by(world, config, tmp_path / str(world)) == [0] * world
        assert results(tmp_path / str(world)) == results(tmp_path / 'alone')


@pytest.mark.parametrize('flat', [1024, 8])
def test_clusters_in_one_and_two_levels_are_the_same_by_any_number_of_processes(
    flat, tmp_path, monkeypatch
):
    monkeypatch.setattr('adadedup_mm.clusters.kmeans.FLAT_CLUSTERS', flat)
    features = smooth_features(3, 2600, 24, 60)
    features[5::700] = 0
    clusterer = SphericalKMeans(20, iterations=3)

    def cluster(rank, world):
        store = StageStore(tmp_path / str(world), rank, world, poll=0.01)
        store.run('clusters', 'key', cluster_work(clusterer, features, None, 0))

    for world in (1, 2, 4):
        assert in_processes(world, lambda rank, world=world: cluster(rank, world)) == [0] * world
    labels = [np.load(tmp_path / f'{world}/clusters/clusters.npy') for world in (1, 2, 4)]
    np.testing.assert_array_equal(labels[0], clusterer(features, None, 0))
    for other in labels[1:]:
        np.testing.assert_array_equal(labels[0], other)
    assert {file.name for file in (tmp_path / '4/clusters').iterdir()} == {
        'key',
        'clusters.npy',
        'done.json',
    }


def test_components_that_do_not_say_that_they_can_work_on_the_first_process_alone():
    features, assignment = smooth_features(0, 20), some_clusters(0, 20, 3)

    def clusterer(features, pool, seed):
        return assignment

    for in_pieces, work in (
        (True, cluster_work(SphericalKMeans(), features, None, 0)),
        (False, cluster_work(clusterer, features, None, 0)),
        (True, density_work(DENSITIES.get('KCenter')(), features, assignment, 0)),
        (False, density_work(Plain(), features, assignment, 0)),
    ):
        assert isinstance(work, Shards) == in_pieces


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


def test_an_error_is_said_once_a_machine_and_by_a_process_that_is_alone_with_it(
    port, monkeypatch, capsys
):
    from torch.distributed import TCPStore

    store = TCPStore('127.0.0.1', port, is_master=True, wait_for_workers=False)

    def said(line, machine='0', attempt='0'):
        monkeypatch.setenv('GROUP_RANK', machine)
        monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', attempt)

        def fail(arguments):
            raise UserError(line)

        with pytest.raises(SystemExit) as stop:
            common.run(fail)
        assert stop.value.code == 2
        return capsys.readouterr().err == f'error: {line}\n'

    for name, value in (('MASTER_ADDR', '127.0.0.1'), ('MASTER_PORT', str(port))):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv('TORCHELASTIC_USE_AGENT_STORE', raising=False)
    assert said('a') and said('a')
    monkeypatch.setenv('TORCHELASTIC_USE_AGENT_STORE', 'True')
    assert said('a') and not said('a')
    assert said('b') and said('a', machine='1') and said('a', attempt='1')
    del store
    monkeypatch.delenv('MASTER_PORT')
    assert said('a')


def test_processes_of_torchrun_that_all_fail_print_one_line(port, tmp_path):
    (tmp_path / 'tool.py').write_text(
        'from adadedup_mm.cli.common import run\nfrom adadedup_mm.base.errors import UserError\n'
        "def main(arguments):\n    raise UserError('wrong')\nrun(main)\n"
    )
    done = subprocess.run(
        [
            sys.executable,
            '-W',
            'ignore',
            '-m',
            'torch.distributed.run',
            '--nproc_per_node=2',
            f'--master_port={port}',
            str(tmp_path / 'tool.py'),
        ],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT)),
    )
    assert done.stderr.count('error: wrong') == 1 and 'exitcode  : 2' in done.stderr
