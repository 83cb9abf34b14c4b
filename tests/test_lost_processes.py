"""Processes that are lost for a while or for ever: what they do later disturbs nobody."""

import contextlib
import os
import signal
import time

import pytest
from shared_work import no_waiting
from test_faults import start_child

from adadedup_mm.base.errors import ProcessError
from adadedup_mm.stages import Patience, Shards, StageStore, Together
from adadedup_mm.stages.engine import Engine

QUICK = Patience(beat=0.05, gone=1.0, appear=3.0)
LIMIT = 20
GONE = 1  # what a process ends with that finds another one gone


@pytest.fixture
def start():
    """Starts an action as a command line tool would; what still runs in the end is killed."""
    running = []

    def tool(action):
        with open(os.devnull, 'w') as nowhere, contextlib.redirect_stderr(nowhere):
            try:
                action()
            except ProcessError:
                raise SystemExit(GONE) from None

    def begin(action):
        running.append(start_child(lambda: tool(action)))
        return running[-1]

    yield begin
    for child in running:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def end_of(child):
    """The exit status of a process."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    pytest.fail('a process waits without end')


def wait_until(condition):
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def store_of(folder, rank, world):
    return StageStore(folder / 'stages', rank, world, poll=0.02, patience=QUICK)


def pieces_of(text, count=6, on_piece=lambda piece: None, result='all'):
    """Work whose pieces hold a text; ``on_piece`` is called before each is written."""
    files = [f'part_{piece}' for piece in range(count)]

    def compute(folder, pieces, done):
        for piece in pieces:
            on_piece(piece)
            done(1)
            temporary = folder / f'.{os.getpid()}.tmp'
            temporary.write_text(text)
            os.replace(temporary, folder / files[piece])

    def lead(folder, share):
        share()
        if result and not (folder / result).exists():
            (folder / result).write_text(''.join((folder / file).read_text() for file in files))

    return Shards(files, [1] * count, compute, lead, result)


def pause_once(flag):
    """Stops this process the first time."""
    if not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGSTOP)


def names_in(folder):
    return {file.name for file in folder.iterdir()}


@pytest.mark.parametrize('result', ['all', ''])
def test_a_process_that_comes_back_to_a_finished_stage_computes_no_more_of_it(
    result, start, tmp_path
):
    """It goes on with the next stage, in which others do what is missing of it."""
    paused, late = tmp_path / 'paused', tmp_path / 'late'

    def action(rank):
        def on_piece(piece):
            if rank == 1 and paused.exists():
                late.touch()
            if rank == 1:
                pause_once(paused)

        store = store_of(tmp_path, rank, 3)
        with store.together():
            store.run('first', 'key', pieces_of('a', 9, on_piece, result))
            store.run('second', 'key', pieces_of('b'))
            store.wait_for((tmp_path / 'end').exists)

    children = [start(lambda rank=rank: action(rank)) for rank in range(3)]
    wait_until((tmp_path / 'stages/second/done.json').exists)
    os.kill(children[1], signal.SIGCONT)
    time.sleep(0.3)
    (tmp_path / 'end').touch()
    assert [end_of(child) for child in children] == [0, 0, 0]
    assert not late.exists()
    results = {result} if result else {f'part_{piece}' for piece in range(9)}
    assert names_in(tmp_path / 'stages/first') == results | {'key', 'done.json'}


def test_what_goes_wrong_with_pieces_that_are_not_needed_is_no_failure(start, tmp_path):
    """Such as that a file which the pieces are computed from is gone with the stage's end."""
    paused = tmp_path / 'paused'

    def action(rank):
        def on_piece(piece):
            if rank == 1:
                pause_once(paused)
                raise FileNotFoundError('the centroids')

        store = store_of(tmp_path, rank, 2)
        with store.together():
            store.run('first', 'key', pieces_of('a', on_piece=on_piece))
            store.wait_for((tmp_path / 'end').exists)

    children = [start(lambda rank=rank: action(rank)) for rank in range(2)]
    wait_until((tmp_path / 'stages/first/done.json').exists)
    os.kill(children[1], signal.SIGCONT)
    time.sleep(0.3)
    (tmp_path / 'end').touch()
    assert [end_of(child) for child in children] == [0, 0]


def test_a_process_that_comes_back_to_another_run_neither_writes_in_it_nor_ends_it(start, tmp_path):
    """Its own run ended without it; the same stage now has another key."""
    paused, key_file = tmp_path / 'paused', tmp_path / 'stages/stage/key'

    def earlier(rank):
        def on_piece(piece):
            if rank == 1:
                pause_once(paused)

        store = store_of(tmp_path, rank, 2)
        with store.together():
            store.run('stage', 'old key', pieces_of('a', on_piece=on_piece))

    def later(rank):
        def on_piece(piece):
            time.sleep(0.5 * rank)

        store = store_of(tmp_path, rank, 2)
        if rank == 0:
            store.forget_earlier_processes()
        with store.together():
            store.run('stage', 'new key', pieces_of('b', on_piece=on_piece))

    first, returning = [start(lambda rank=rank: earlier(rank)) for rank in range(2)]
    assert end_of(first) == 0
    new_first = start(lambda: later(0))
    wait_until(lambda: key_file.exists() and key_file.read_text() == 'new key')
    os.kill(returning, signal.SIGCONT)
    time.sleep(0.3)
    new_second = start(lambda: later(1))
    assert [end_of(new_first), end_of(new_second)] == [0, 0]
    assert end_of(returning) == GONE
    assert (tmp_path / 'stages/stage/all').read_text() == 'bbbbbb'


def test_a_process_that_comes_back_to_a_removed_folder_leaves_it_so(start, tmp_path):
    paused = tmp_path / 'paused'

    def action(rank):
        def on_piece(piece):
            if rank == 1:
                pause_once(paused)

        store = store_of(tmp_path, rank, 2)
        with store.together():
            store.run('stage', 'key', pieces_of('a', on_piece=on_piece))

    first, returning = [start(lambda rank=rank: action(rank)) for rank in range(2)]
    assert end_of(first) == 0
    folder = tmp_path / 'stages/stage'
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    os.kill(returning, signal.SIGCONT)
    assert end_of(returning) == GONE
    assert not folder.exists()


def test_several_share_the_pieces_of_a_lost_one(start, tmp_path):
    def action(rank):
        def on_piece(piece):
            if rank == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            (tmp_path / f'{piece} by {rank}').touch()
            time.sleep(0.05)

        store = store_of(tmp_path, rank, 3)
        with store.together():
            store.run('stage', 'key', pieces_of('a', 30, on_piece))

    children = [start(lambda rank=rank: action(rank)) for rank in range(3)]
    assert [end_of(child) for child in children] == [0, 0, -signal.SIGKILL]
    computed = [file.name for file in tmp_path.glob('* by *')]
    # Two of them may do the same at the same time.
    assert 30 <= len(computed) <= 36


def test_pieces_that_go_while_one_looks_are_not_computed_again(tmp_path):
    """The first process has made the result and removed them in the meantime."""

    class Files(list):
        def __getitem__(self, piece):
            (tmp_path / 'all').touch()
            return super().__getitem__(piece)

    calls = []
    shards = pieces_of('a', 4, calls.append)
    gone = Shards(Files(shards.files), shards.sizes, shards.compute, shards.lead, 'all')
    assert Engine(1, 2, no_waiting).share(gone, tmp_path)
    assert not calls


def test_a_stage_with_several_keys_in_a_run_is_waited_for_by_all(start, tmp_path):
    """Nobody misses a result because the first process goes on with the next one."""

    def action(rank):
        store = store_of(tmp_path, rank, 2)
        with store.together():
            for key in ('one', 'two', 'one', 'three'):
                folder = store.run('stage', key, pieces_of(key, 2))
                time.sleep(0.2 * rank)
                assert (folder / 'all').read_text() == 2 * key
                assert store.record('stage')['key'] == key

    children = [start(lambda rank=rank: action(rank)) for rank in range(2)]
    assert [end_of(child) for child in children] == [0, 0]


def test_what_an_interrupted_run_left_is_gone_where_another_run_has_the_result(tmp_path):
    shared = tmp_path / 'shared'
    StageStore(tmp_path / 'one', shared=shared).run('stage', 'key', pieces_of('a'))
    two = StageStore(tmp_path / 'two', shared=shared)
    left = two.root / 'stage'
    left.mkdir(parents=True)
    (left / 'key').write_text('key')
    (left / 'part_1').touch()
    folder = two.run('stage', 'key', pieces_of('a', on_piece=pytest.fail))
    assert names_in(folder) == {'key', 'done.json', 'all'}


def test_nobody_begins_what_all_must_do_together_where_one_is_gone(start, tmp_path):
    """The second stage's folder is claimed already, as after an interruption."""
    begun = tmp_path / 'begun'
    (tmp_path / 'stages/second').mkdir(parents=True)
    (tmp_path / 'stages/second/key').write_text('key')

    def action(rank):
        def on_piece(piece):
            if rank == 2:
                # Once the others know it.
                time.sleep(0.3)
                os.kill(os.getpid(), signal.SIGKILL)

        store = store_of(tmp_path, rank, 3)
        with store.together():
            store.run('first', 'key', pieces_of('a', on_piece=on_piece))
            store.run('second', 'key', Together(lambda folder: begun.touch()))

    children = [start(lambda rank=rank: action(rank)) for rank in range(3)]
    assert [end_of(child) for child in children] == [GONE, GONE, -signal.SIGKILL]
    assert not begun.exists()


def test_a_folder_that_cannot_be_read_for_a_moment_is_helped_with_again(start, tmp_path):
    """The pieces are this process's own: nobody else does them."""

    def action(rank):
        store = store_of(tmp_path, rank, 2)
        is_claimed, looks = store._is_claimed, []

        def hardly(folder, key):
            looks.append(key)
            return is_claimed(folder, key) and len(looks) not in (3, 8, 9)

        if rank == 1:
            store._is_claimed = hardly
        with store.together():
            store.run('stage', 'key', pieces_of('a'))

    children = [start(lambda rank=rank: action(rank)) for rank in range(2)]
    assert [end_of(child) for child in children] == [0, 0]
