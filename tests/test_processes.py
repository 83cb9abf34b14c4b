"""Processes that differ, fail, are killed, come late or not at all: each of them ends, and says why
in one line."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from test_faults import digests, make_config, start_child

from adadedup_mm.base.errors import ProcessError, UserError
from adadedup_mm.cli import common
from adadedup_mm.density import split
from adadedup_mm.features import extract
from adadedup_mm.features import stage as features_stage
from adadedup_mm.features.baselines import PixelEmbedder
from adadedup_mm.features.stage import ImageStages
from adadedup_mm.pruning import prune as pipeline
from adadedup_mm.pruning import results
from adadedup_mm.pruning.prune import prune
from adadedup_mm.settings.load import load_config
from adadedup_mm.settings.options import resolve_options
from adadedup_mm.stages import Patience, Shards, StageStore, Together, only_share, store
from adadedup_mm.stages.differences import first_difference, shortened

QUICK = Patience(beat=0.1, gone=3.0, appear=4.0)
LIMIT = 60
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    """Of 12 images with boxes."""
    return make_config(tmp_path_factory.mktemp('processes'), ids=range(12))


@pytest.fixture(scope='module')
def alone(config, tmp_path_factory):
    """What one process makes of it; a child, because threads of this process would be missing in
    later ones."""
    work_dir = tmp_path_factory.mktemp('alone') / 'run'
    codes, _, errors = ends_of(
        1, lambda rank: prune_into(config, work_dir, 0, 1), work_dir.parent / 'logs'
    )
    assert codes == [0], errors
    return work_dir


def prune_into(config, work_dir, rank, world, resume=False, **overrides):
    loaded = load_config(config, {f'adadedup.{name}': value for name, value in overrides.items()})
    prune(loaded, resolve_options(loaded), work_dir, rank, world, resume=resume, patience=QUICK)


def ends_of(world, action, folder, delays=()):
    """Calls ``action(rank)`` in a process for each rank as a command line tool; exit code and
    errors of each."""
    folder.mkdir(exist_ok=True)

    def tool(rank):
        handle = os.open(folder / f'errors {rank}', os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(handle, 2)
        sys.stderr = os.fdopen(2, 'w', buffering=1, closefd=False)
        time.sleep(dict(delays).get(rank, 0))
        try:
            common.run(lambda arguments: action(rank))
        except Exception:  # as the interpreter does
            traceback.print_exc()
            sys.exit(1)

    running = {start_child(lambda rank=rank: tool(rank)): rank for rank in range(world)}
    codes, end = {}, time.monotonic() + LIMIT
    while running:
        for child, rank in list(running.items()):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                codes[rank] = os.waitstatus_to_exitcode(status)
                del running[child]
        if time.monotonic() > end:
            for child in running:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            pytest.fail(f'processes {list(running.values())} wait without end')
        time.sleep(0.02)
    errors = [(folder / f'errors {rank}').read_text() for rank in range(world)]
    lines = [[line for line in text.splitlines() if line.startswith('error: ')] for text in errors]
    return [codes[rank] for rank in range(world)], lines, errors


def expect_result(work_dir, alone):
    """The same as of one process, and nothing left of the processes."""
    for name in ('samples.parquet', 'clusters.parquet', 'classes.parquet', 'conflicts.parquet'):
        assert pq.read_table(work_dir / name) == pq.read_table(alone / name)
    assert digests(work_dir / 'annotations') == digests(alone / 'annotations')
    assert not (work_dir / 'stages/processes').exists()
    assert digests(work_dir).keys() == digests(alone).keys()


def expect_nothing_useless(work_dir):
    """The folder is gone, unless the first process was so quick that another try can use what it
    computed."""
    assert not work_dir.exists() or list(work_dir.glob('stages/*/done.json'))
    assert not (work_dir / 'stages/processes').exists()


def go_on(config, work_dir, alone, world):
    codes, _, errors = ends_of(
        world,
        lambda rank: prune_into(config, work_dir, rank, world, resume=True),
        work_dir.parent / 'logs',
    )
    assert codes == [0] * world, errors
    expect_result(work_dir, alone)


def other_keep_ratio(patch):
    return dict(keep_ratio=0.3)


def other_time(patch):
    stamp = features_stage.file_stamp
    patch.setattr(
        features_stage,
        'file_stamp',
        lambda path: (stamp(path)[0], stamp(path)[1] + ('7.png' in path)),
    )


def other_size(patch):
    stamp = features_stage.file_stamp
    patch.setattr(
        features_stage,
        'file_stamp',
        lambda path: (stamp(path)[0] + path.endswith('/3.png'), stamp(path)[1]),
    )


def other_precision(patch):
    make = PixelEmbedder.__init__

    def make_half(embedder, **options):
        make(embedder, **options)
        embedder.key['precision'] = 'bf16'

    patch.setattr(PixelEmbedder, '__init__', make_half)


def other_package(patch):
    patch.setattr(pipeline, 'installed_versions', lambda: dict(torch='0.1'))


def other_code(patch):
    patch.setattr(pipeline, '_code_digest', lambda: 64 * '0')


def other_folder_of_images(patch):
    import adadedup_mm.settings.load

    load = adadedup_mm.settings.load.load_config

    def elsewhere(path, overrides):
        return load(
            path, overrides | {'train_dataloader.dataset.data_prefix.img': 'images/../images/'}
        )

    patch.setitem(globals(), 'load_config', elsewhere)


def other_number_of_processes(patch):
    return dict(world=3)


@pytest.mark.parametrize(
    'differ, named',
    [
        (other_keep_ratio, r'options.keep_ratio is 0.3 here and 0.5 in the first process'),
        (other_time, r'/7.png has another modification time here than in the first process'),
        (other_size, r'/3.png has another size here than in the first process'),
        (other_precision, r"embedder.precision is 'bf16' here and missing in the first process"),
        (other_package, r"packages.torch is '0.1' here and "),
        (other_code, r'code differs between this process and the first one'),
        (other_folder_of_images, r"dataset.data_prefix.img is 'images/../images/' here and "),
        (other_number_of_processes, r'processes is 3 here and 2 in the first process'),
    ],
)
def test_processes_that_would_compute_something_else_all_stop_and_name_the_difference(
    differ, named, config, tmp_path, monkeypatch
):
    work_dir = tmp_path / 'run'

    def action(rank):
        more = (differ(monkeypatch) or {}) if rank else {}
        prune_into(config, work_dir, rank, **(dict(world=2) | more))

    codes, lines, errors = ends_of(2, action, tmp_path / 'logs')
    assert codes == [2, 2], errors
    for line in lines:
        assert len(line) == 1 and re.search(named, line[0]), lines
    assert 'process 1 (of 0 to ' in lines[0][0] and 'Traceback' not in ''.join(errors)
    assert not work_dir.exists() or (work_dir / 'stages/features/done.json').exists()


def a_user_error():
    raise UserError('the third image is upside down')


def no_memory():
    raise MemoryError('9 GB')


def control_c():
    raise KeyboardInterrupt


def a_bug():
    return {}['nothing']


@pytest.mark.parametrize(
    'happen, code, said',
    [
        (a_user_error, 2, 'the third image is upside down'),
        (no_memory, 1, 'MemoryError: 9 GB'),
        (control_c, 1, 'interrupted'),
        (a_bug, 1, "KeyError: 'nothing'"),
    ],
    ids=lambda value: getattr(value, '__name__', ''),
)
@pytest.mark.parametrize('moment', ['features', '_samples'])
def test_a_failure_of_any_process_ends_all_with_its_words(
    happen, code, said, moment, config, alone, tmp_path, monkeypatch
):
    failing = 0 if moment == '_samples' else 2
    work_dir = tmp_path / 'run'

    def action(rank):
        if rank == failing and moment == '_samples':
            monkeypatch.setattr(results, '_samples', lambda *arguments: happen())
        elif rank == failing:
            monkeypatch.setattr(ImageStages, moment, property(lambda images: happen()))
        prune_into(config, work_dir, rank, 3)

    codes, lines, errors = ends_of(3, action, tmp_path / 'logs')
    assert codes == [code] * 3, errors
    for rank in {0, 1, 2} - {failing}:
        [line] = lines[rank]
        assert line.startswith(f'error: process {failing} (of 0 to 2) on ') and line.endswith(
            said
        ), line
    if happen == no_memory:
        go_on(config, work_dir, alone, 2)


@pytest.mark.parametrize('rank_that_fails', [0, 1])
def test_a_failure_before_the_run_is_told_too_and_leaves_nothing(rank_that_fails, config, tmp_path):
    from adadedup_mm.workdir.claim import failures_told

    work_dir = tmp_path / 'run'

    def action(rank):
        with failures_told(work_dir, rank, 2):
            if rank == rank_that_fails:
                raise UserError('no such config')
        prune_into(config, work_dir, rank, 2)

    codes, lines, errors = ends_of(
        2, action, tmp_path / 'logs', delays={rank_that_fails: 0.3}.items()
    )
    assert codes == [2, 2], errors
    assert lines[rank_that_fails] == ['error: no such config']
    assert lines[1 - rank_that_fails][0].endswith('stopped: no such config')
    expect_nothing_useless(work_dir)


def test_a_process_that_is_slower_than_the_whole_run_finds_it_finished(config, tmp_path):
    def action(rank):
        if rank == 1:
            claim = pipeline.claim

            def claim_late(*args, **kwargs):
                time.sleep(2)
                return claim(*args, **kwargs)

            pipeline.claim = claim_late
        prune_into(config, tmp_path / 'run', rank, 2, strategy='random')

    codes, _, errors = ends_of(2, action, tmp_path / 'logs')
    assert codes == [0, 0], errors
    assert not (tmp_path / 'run/stages/processes').exists()


def test_options_that_one_process_of_a_training_cannot_use_end_all(config, tmp_path, monkeypatch):
    from adadedup_mm.engine import prune_first

    def action(rank):
        for name, value in dict(RANK=rank, WORLD_SIZE=2, LOCAL_RANK=rank).items():
            monkeypatch.setenv(name, str(value))
        overrides = {'adadedup.keep_ratio': 3.0} if rank else {}
        loaded = load_config(
            config, overrides | dict(launcher='pytorch', work_dir=str(tmp_path / 'training'))
        )
        prune_first(loaded)

    codes, lines, errors = ends_of(2, action, tmp_path / 'logs')
    assert codes == [2, 2] and 'keep_ratio is 3.0' in lines[1][0], errors
    assert (
        lines[0][0].startswith('error: process 1 (of 0 to 1) on ')
        and 'keep_ratio is 3.0' in lines[0][0]
    )
    expect_nothing_useless(tmp_path / 'training/adadedup')


def command(config, work_dir, rank, *arguments):
    """``tools/prune.py`` as one of two processes that nothing but their environment knows of."""
    variables = dict(
        os.environ,
        RANK=str(rank),
        WORLD_SIZE='2',
        LOCAL_RANK='0',
        OMP_NUM_THREADS='1',
        PYTHONPATH=str(ROOT),
    )
    return subprocess.Popen(
        [
            sys.executable,
            '-W',
            'ignore',
            ROOT / 'tools/prune.py',
            config,
            '--work-dir',
            work_dir,
            '--launcher',
            'pytorch',
            *arguments,
        ],
        env=variables,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_plain_processes_of_the_tool_that_differ_end_with_a_line_each(config, tmp_path):
    tools = [
        command(config, tmp_path / 'run', 0),
        command(config, tmp_path / 'run', 1, '--keep-ratio', '.3'),
    ]
    errors = [tool.communicate(timeout=4 * LIMIT)[1] for tool in tools]
    assert [tool.returncode for tool in tools] == [2, 2], errors
    assert all(
        error.count('error: ') == 1 and 'options.keep_ratio is 0.3 here' in error
        for error in errors
    ), errors
    expect_nothing_useless(tmp_path / 'run')


def test_processes_of_torchrun_that_differ_end_too(config, tmp_path):
    (tmp_path / 'tool.py').write_text(
        'import os\nimport sys\nfrom adadedup_mm.cli.prune import main\n'
        "main([*sys.argv[1:], *(['--keep-ratio', '.3'] if os.environ['RANK'] == '1' else [])])\n"
    )
    variables = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT))
    done = subprocess.run(
        [
            sys.executable,
            '-W',
            'ignore',
            '-m',
            'torch.distributed.run',
            '--nproc_per_node=2',
            '--master_port=29551',
            tmp_path / 'tool.py',
            config,
            '--work-dir',
            tmp_path / 'run',
            '--launcher',
            'pytorch',
        ],
        env=variables,
        capture_output=True,
        text=True,
        timeout=4 * LIMIT,
        check=False,
    )
    assert (
        done.returncode
        and 'options.keep_ratio is 0.3 here and 0.5 in the first process' in done.stderr
    )


@pytest.mark.parametrize('late', [0, 1])
def test_a_mistake_that_all_make_is_said_by_all_and_leaves_nothing(late, config, tmp_path):
    work_dir = tmp_path / 'run'
    codes, lines, errors = ends_of(
        2,
        lambda rank: prune_into(config, work_dir, rank, 2, embedder=dict(type='None')),
        tmp_path / 'logs',
        delays={late: 1}.items(),
    )
    assert codes == [2, 2] and all(len(line) == 1 and "'None'" in line[0] for line in lines), errors
    assert not work_dir.exists()


@pytest.mark.parametrize('how, moment', [(signal.SIGKILL, 'features'), (signal.SIGTERM, 'density')])
def test_where_the_first_process_is_killed_the_others_end_and_the_run_can_be_gone_on_with(
    how, moment, config, alone, tmp_path, monkeypatch
):
    work_dir = tmp_path / 'run'

    def action(rank):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if rank == 0:
            run_stage = StageStore.run

            def die_in(self, name, *arguments):
                if name == moment:
                    time.sleep(0.5)
                    os.kill(os.getpid(), how)
                return run_stage(self, name, *arguments)

            monkeypatch.setattr(StageStore, 'run', die_in)
        prune_into(config, work_dir, rank, 2)

    start = time.monotonic()
    codes, lines, errors = ends_of(2, action, tmp_path / 'logs')
    assert codes == [-how, 1], errors
    [line] = lines[1]
    assert 'process 0 (of 0 to 1) on ' in line and 'is gone: no sign of life for 3 seconds' in line
    assert time.monotonic() - start < 20
    go_on(config, work_dir, alone, 1)


@pytest.mark.parametrize(
    'killed, piece',
    [
        ({1}, 'shard_0000{}.npy'),
        ({1, 2}, 'shard_0000{}.npy'),
        ({2}, 'part_0000{}.npy'),
        ({1}, 'part_0{}.npy'),
    ],
)
def test_the_pieces_of_killed_processes_are_done_by_the_others(
    killed, piece, config, alone, tmp_path, monkeypatch
):
    work_dir = tmp_path / 'run'
    monkeypatch.setattr(extract, 'SHARD', 2)
    monkeypatch.setattr(split, '_ROWS', 2)
    replace = os.replace

    def action(rank):
        def die(source, target):
            if rank in killed and Path(target).name == piece.format(rank):
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)

        os.replace = die
        prune_into(config, work_dir, rank, 3)

    codes, _, errors = ends_of(3, action, tmp_path / 'logs')
    assert codes == [-signal.SIGKILL if rank in killed else 0 for rank in range(3)], errors
    for rank in killed:
        warning = rf'warning: process {rank} \(of 0 to 2\) on .* is gone: .*the others do its work'
        assert re.search(warning, ''.join(errors))
    for name in ('samples.parquet', 'clusters.parquet', 'classes.parquet', 'conflicts.parquet'):
        assert pq.read_table(work_dir / name) == pq.read_table(alone / name)
    assert digests(work_dir / 'annotations') == digests(alone / 'annotations')
    assert not (work_dir / 'stages/processes').exists()


def test_a_training_by_all_together_ends_where_one_is_gone(tmp_path):
    def action(rank):
        store = StageStore(tmp_path / 'stages', rank, 3, poll=0.02, patience=QUICK)
        with store.together():
            store.run('first', 'key', counting(store, rank))
            store.run('second', 'key', Together(lambda folder: None))

    def counting(store, rank):
        def compute(folder, pieces, done):
            if rank == 2:
                time.sleep(0.5)
                os.kill(os.getpid(), signal.SIGKILL)
            for piece in pieces:
                (folder / str(piece)).touch()

        return Shards(['0', '1', '2'], [1, 1, 1], compute, only_share, result='')

    codes, lines, errors = ends_of(3, action, tmp_path / 'logs')
    assert codes == [1, 1, -signal.SIGKILL], errors
    assert all('process 2 (of 0 to 2) on ' in line and 'is gone' in line for [line] in lines[:2])


@pytest.mark.parametrize('missing', [0, 1])
def test_a_process_that_never_appears_ends_the_others(missing, config, alone, tmp_path):
    work_dir = tmp_path / 'run'

    def action(rank):
        if rank != missing:
            prune_into(config, work_dir, rank, 2)

    codes, lines, errors = ends_of(2, action, tmp_path / 'logs')
    assert codes[1 - missing] == 1, errors
    assert (
        f'process {missing} (of 0 to 1) has not appeared within 4 seconds' in lines[1 - missing][0]
    )
    go_on(config, work_dir, alone, 2)


@pytest.mark.parametrize('late', [0, 2])
def test_processes_that_start_at_different_times_find_each_other(late, config, alone, tmp_path):
    work_dir = tmp_path / 'run'
    codes, _, errors = ends_of(
        3,
        lambda rank: prune_into(config, work_dir, rank, 3),
        tmp_path / 'logs',
        delays={late: 3.0}.items(),
    )
    assert codes == [0, 0, 0], errors
    expect_result(work_dir, alone)


def leave_traces(work_dir, config):
    """An attempt of three processes of which one failed and the others were killed."""
    folder = work_dir / 'stages/processes'
    folder.mkdir(parents=True)
    for rank in range(3):
        failure = dict(line='process 2 stopped long ago', user_error=True) if rank == 2 else None
        content = dict(host='elsewhere', process=1, met={}, failure=failure, beats=40 + rank)
        (folder / f'{rank}-000000000000.json').write_text(json.dumps(content))
    (folder / '0-000000000000.features.json').write_text(
        json.dumps(dict(keys=[dict(key='k', inputs={})]))
    )
    (folder / '.1-000000000000.json.tmp').touch()


@pytest.mark.parametrize('world, late', [(1, 0), (2, 0), (3, 1)])
def test_what_earlier_attempts_left_disturbs_no_later_one(world, late, config, alone, tmp_path):
    work_dir = tmp_path / 'run'
    leave_traces(work_dir, config)
    codes, _, errors = ends_of(
        world,
        lambda rank: prune_into(config, work_dir, rank, world),
        tmp_path / 'logs',
        delays={late: 0.5}.items(),
    )
    assert codes == [0] * world, errors
    expect_result(work_dir, alone)


def test_a_finished_run_is_found_by_all_at_once_and_left_as_it_is(config, alone, tmp_path):
    shutil.copytree(alone, tmp_path / 'run')
    manifest = tmp_path / 'run/manifest.json'
    manifest.write_text(manifest.read_text().replace(str(alone), str(tmp_path / 'run')))
    before = digests(tmp_path / 'run')
    start = time.monotonic()
    codes, _, errors = ends_of(
        2, lambda rank: prune_into(config, tmp_path / 'run', rank, 2), tmp_path / 'logs'
    )
    assert codes == [0, 0], errors
    changed = {
        name for name, digest in digests(tmp_path / 'run').items() if before.get(name) != digest
    }
    assert changed <= {Path('config.py')} and time.monotonic() - start < LIMIT / 4


@pytest.mark.parametrize('name', ['annotations', 'report.html'])
def test_in_a_folder_of_somebody_else_no_process_writes_anything(name, config, tmp_path):
    work_dir = tmp_path / 'run'
    work_dir.mkdir()
    (work_dir / name).touch()
    codes, lines, _ = ends_of(
        2, lambda rank: prune_into(config, work_dir, rank, 2), tmp_path / 'logs'
    )
    assert codes == [2, 2] and all('is not from a pruning run' in line[0] for line in lines)
    assert [file.name for file in work_dir.iterdir()] == [name]


def test_a_run_that_needs_resume_stops_all_its_processes(config, alone, tmp_path):
    work_dir = tmp_path / 'run'
    shutil.copytree(alone, work_dir)
    (work_dir / 'manifest.json').unlink()
    codes, lines, errors = ends_of(
        2,
        lambda rank: prune_into(config, work_dir, rank, 2),
        tmp_path / 'logs',
        delays={1: 0.5}.items(),
    )
    assert codes == [2, 2] and all('add --resume' in line[0] for line in lines), errors
    go_on(config, work_dir, alone, 2)


def test_a_second_run_in_the_same_work_dir_stops_and_the_first_one_ends_well(
    config, alone, tmp_path, monkeypatch
):
    """Processes 0 and 1 are one run, 2 and 3 begin another one in the middle of it."""
    work_dir = tmp_path / 'run'

    def action(number):
        if number == 0:
            key = ImageStages.features_key.func
            monkeypatch.setattr(
                ImageStages,
                'features_key',
                property(lambda images: (time.sleep(2), key(images))[1]),
            )
        prune_into(config, work_dir, number % 2, 2)

    codes, lines, errors = ends_of(4, action, tmp_path / 'logs', delays={2: 2.0, 3: 2.0}.items())
    assert codes[:3] == [0, 0, 2] and 'in use by another run' in lines[2][0], errors
    assert codes[3] in (0, 2)
    expect_result(work_dir, alone)


def test_a_paused_process_does_not_count_its_own_pause_as_silence_of_others(tmp_path):
    quick = Patience(beat=0.1, gone=3.0, appear=60.0)
    end = tmp_path / 'end'

    def action(rank):
        paused = StageStore(tmp_path / 'stages', rank, 2, poll=0.02, patience=quick)
        with paused.together():
            paused.wait_for(end.exists)

    children = [start_child(lambda rank=rank: action(rank)) for rank in range(2)]
    time.sleep(1)
    for child in children:
        os.kill(child, signal.SIGSTOP)
    time.sleep(4)
    for child in children:
        os.kill(child, signal.SIGCONT)
    time.sleep(1)
    end.touch()
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]


def test_a_sign_of_life_that_the_first_process_cleared_away_is_given_again(tmp_path, monkeypatch):
    replace, taken = os.replace, []

    def clear_first(source, target):
        if not taken:
            taken.append(source)
            source.unlink()
        replace(source, target)

    monkeypatch.setattr(os, 'replace', clear_first)
    store = StageStore(tmp_path / 'stages', 1, 2, poll=0.02, patience=QUICK)
    with store.together():
        assert taken and store.peers is not None


def test_who_holds_a_stage_of_several_runs_for_long_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(store, '_QUIET', 0.2)
    shared = tmp_path / 'shared'

    def slow(folder):
        time.sleep(1.5)
        (folder / 'result').touch()

    child = start_child(
        lambda: StageStore(tmp_path / 'one', shared=shared).run('stage', 'key', slow)
    )
    while not list(shared.glob('*.lock')):
        time.sleep(0.01)
    StageStore(tmp_path / 'two', poll=0.02, shared=shared).run('stage', 'key', pytest.fail)
    assert os.waitpid(child, 0)[1] == 0
    assert re.fullmatch(
        r'waiting for another run that computes stage \(lock .*/stage-key.lock\)\n',
        capsys.readouterr().err,
    )


def test_the_lock_of_a_killed_run_is_free(tmp_path):
    shared = tmp_path / 'shared'

    def die(folder):
        os.kill(os.getpid(), signal.SIGKILL)

    child = start_child(
        lambda: StageStore(tmp_path / 'one', shared=shared).run('stage', 'key', die)
    )
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    StageStore(tmp_path / 'two', poll=0.02, shared=shared).run('stage', 'key', lambda folder: None)


def test_waiting_looks_less_often_the_longer_it_takes(tmp_path, monkeypatch):
    slept, now = [], [0.0]

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(time, 'sleep', sleep)
    monkeypatch.setattr(time, 'monotonic', lambda: now[0])
    StageStore(tmp_path).wait_for(lambda: now[0] > 3600)
    assert slept[0] == 0.2 and slept[-1] == 1.0 and len(slept) < 3700


def test_a_stage_that_is_used_again_with_another_key_is_no_difference(tmp_path):
    def action(rank):
        several = StageStore(tmp_path / 'stages', rank, 2, poll=0.02, patience=QUICK)
        with several.together():
            for number in range(3):
                several.agree('stage', dict(number=number))
            # Nobody runs ahead of the first process.
            several.wait_for((tmp_path / 'end').exists)

    children = [start_child(lambda rank=rank: action(rank)) for rank in range(2)]
    time.sleep(0.5)
    (tmp_path / 'end').touch()
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]


@pytest.mark.parametrize(
    'here, first, said',
    [
        (
            dict(a=1, b=dict(c=[1, 2])),
            dict(a=1, b=dict(c=[1, 3])),
            'b.c.1 is 2 here and 3 in the first process',
        ),
        (dict(a=float('nan')), dict(a=float('nan')), 'what its key is made of differs'),
        (dict(a=1), dict(), 'a is 1 here and missing in the first process'),
        (dict(), dict(a='x'), "a is missing here and 'x' in the first process"),
        (
            dict(a=list(range(5000))),
            dict(a=list(range(5001))),
            'a differs between this process and the first one',
        ),
        (dict(a=print), dict(a=max), "a is 'print' here and 'max' in the first process"),
        (dict(a='x' * 500), dict(a=1), 'xx... here and 1 in the first process'),
    ],
)
def test_the_first_difference_is_named(here, first, said):
    assert said in first_difference(shortened(here), json.loads(json.dumps(shortened(first))))


def test_errors_of_other_processes_are_one_line_and_no_input_error(capsys):
    def fail(arguments):
        raise ProcessError('process 1\nstopped')

    with contextlib.suppress(SystemExit):
        common.run(fail)
    assert capsys.readouterr().err == 'error: process 1 stopped\n'
