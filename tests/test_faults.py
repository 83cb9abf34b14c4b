"""Killed, full, locked and oddly named: a run ends as if nothing had happened, or says in one line
what is wrong.

``FAULTS=50`` kills at fifty random moments and at every single write, instead of a few
(``make faults``).
"""

import contextlib
import errno
import functools
import hashlib
import importlib
import io
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from mmengine.config import Config
from test_datasets import build, config_of, make_coco
from test_pipeline import fails, selection

from adadedup_mm.base.files import write_json
from adadedup_mm.cli import common
from adadedup_mm.cli.prune import main as prune_main

FAULTS = int(os.environ.get('FAULTS', '0'))
# Every place where a writer makes something last, or takes something away.
EVENTS = ('fsync', 'replace', 'rename', 'unlink', 'mkdir', 'link')


def make_config(root, ids=range(40), **options):
    """A config on disk whose images are in groups of near-duplicates."""
    from PIL import Image

    dataset = make_coco(root / 'data', ids=ids)
    for i in ids:
        Image.new('RGB', (32, 24), (i // 4 * 23 % 256, i // 4 * 71 % 256, i)).save(
            root / f'data/images/{i}.png'
        )
    options = (
        dict(strategy='clip_dedup', keep_ratio=0.5, embedder=dict(type='PixelEmbedder')) | options
    )
    file = root / 'config.py'
    config_of(dataset, adadedup=options).dump(file)
    return file


def digests(folder):
    """SHA-256 of every file below a folder."""
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


@pytest.fixture(scope='module')
def original(tmp_path_factory):
    """The config; what its folder must look like afterwards; and the work dir of a run that nothing
    happened to."""
    root = tmp_path_factory.mktemp('original')
    config = make_config(root)
    before = digests(root)
    finished = tmp_path_factory.mktemp('finished') / 'run'
    prune_main([str(config), '--work-dir', str(finished)])
    return config, before, finished


def in_child(action, *, hook=None):
    """Runs something in a fork of this process; how that ended, as ``os.waitpid`` says it."""
    child = start_child(action, hook=hook)
    return os.waitpid(child, 0)[1]


def start_child(action, *, hook=None):
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        if hook is not None:
            hook()
        action()
        code = 0
    except SystemExit as stop:
        code = stop.code
    finally:
        os._exit(code)


def on_event(work_dir, number, act):
    """A hook that calls ``act`` with what would happen, at one event in the work dir or at all
    (None), in its place."""
    count = itertools.count(1)

    def is_meant(where, dir_fd):
        if isinstance(where, int):
            where = os.readlink(f'/proc/self/fd/{where}')
        elif dir_fd is not None:
            where = os.path.join(os.readlink(f'/proc/self/fd/{dir_fd}'), where)
        return Path(where).is_relative_to(work_dir) and number in (None, next(count))

    def watched(event):
        def call(where, *args, **kwargs):
            happen = functools.partial(event, where, *args, **kwargs)
            return act(happen) if is_meant(where, kwargs.get('dir_fd')) else happen()

        return call

    def install():
        for name in EVENTS:
            setattr(os, name, watched(getattr(os, name)))

    return install


def die_before(happen):
    os.kill(os.getpid(), signal.SIGKILL)


def die_after(happen):
    # Making a folder that is there already fails as it should.
    with contextlib.suppress(OSError):
        happen()
    os.kill(os.getpid(), signal.SIGKILL)


def stop_after(happen):
    happen()
    os.kill(os.getpid(), signal.SIGSTOP)


def find_no_space(happen):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def prune_into(config, work_dir, *arguments):
    prune_main([str(config), '--work-dir', str(work_dir), *arguments])


@pytest.fixture(scope='module')
def event_count(original, tmp_path_factory):
    """How many events a run has."""
    config, _, _ = original
    reader, writer = os.pipe()
    work_dir, count = tmp_path_factory.mktemp('counted') / 'run', []

    def action():
        prune_into(config, work_dir)
        os.write(writer, str(len(count)).encode())

    assert (
        in_child(action, hook=on_event(work_dir, None, lambda happen: count.append(1) or happen()))
        == 0
    )
    return int(os.read(reader, 20))


def resume_and_compare(original, work_dir):
    """What was interrupted goes on to the same files, and leaves nothing besides them."""
    config, before, finished = original
    prune_into(config, work_dir, '--resume')
    assert selection(work_dir) == selection(finished)
    for name in ('samples.parquet', 'clusters.parquet', 'classes.parquet', 'conflicts.parquet'):
        assert pq.read_table(work_dir / name) == pq.read_table(finished / name)
    assert (work_dir / 'annotations/train.json').read_bytes() == (
        finished / 'annotations/train.json'
    ).read_bytes()
    # Nothing temporary, nothing missing.
    assert digests(work_dir).keys() == digests(finished).keys()
    assert digests(config.parent) == before


def chosen(count, few):
    """All numbers up to ``count``, or some of them in the ordinary run."""
    return (
        range(1, count + 1)
        if FAULTS
        else sorted(random.Random(0).sample(range(1, count + 1), min(few, count)))
    )


def test_a_run_killed_at_a_write_resumes_to_the_same_files(original, event_count, tmp_path):
    assert event_count > 60
    for number in chosen(event_count, 10):
        for die in (die_before, die_after) if FAULTS else ((die_before, die_after)[number % 2],):
            work_dir = tmp_path / f'{number}_{die.__name__}'
            end = in_child(
                lambda work_dir=work_dir: prune_into(original[0], work_dir),
                hook=on_event(work_dir, number, die),
            )
            assert os.WTERMSIG(end) == signal.SIGKILL, (number, die)
            resume_and_compare(original, work_dir)
            shutil.rmtree(work_dir)


def test_a_run_killed_at_random_moments_resumes_to_the_same_files(original, tmp_path):
    config, generator = original[0], random.Random(FAULTS)
    start = time.monotonic()
    assert in_child(lambda: prune_into(config, tmp_path / 'whole')) == 0
    length, killed = time.monotonic() - start, 0
    for moment in range(FAULTS or 4):
        work_dir = tmp_path / str(moment)
        # The resumed run is killed too, now and then.
        for arguments in ([], ['--resume'])[: 1 + moment % 2]:
            child = start_child(
                lambda arguments=arguments, work_dir=work_dir: prune_into(
                    config, work_dir, *arguments
                )
            )
            time.sleep(generator.uniform(0, length))
            os.kill(child, signal.SIGKILL)
            killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        resume_and_compare(original, work_dir)
        shutil.rmtree(work_dir)
    assert killed


def test_the_second_of_two_runs_stops_and_the_first_one_ends_well(
    original, event_count, tmp_path, capsys
):
    config, _, _ = original
    work_dir = tmp_path / 'run'
    # The first one stands still in the middle of its work.
    child = start_child(
        lambda: prune_into(config, work_dir), hook=on_event(work_dir, event_count // 2, stop_after)
    )
    os.waitpid(child, os.WUNTRACED)
    try:
        before = digests(work_dir)
        for arguments in ([], ['--resume'], ['--resume', '--keep-ratio', '.3']):
            assert 'in use by another run' in fails(
                [config, '--work-dir', work_dir, *arguments], capsys
            )
        assert digests(work_dir) == before
    finally:
        os.kill(child, signal.SIGCONT)
    assert os.waitpid(child, 0)[1] == 0
    resume_and_compare(original, work_dir)


def test_a_disk_that_is_full_at_a_write_gives_one_line_and_can_be_gone_on_with(
    original, event_count, tmp_path
):
    config, _, _ = original
    for number in chosen(event_count, 7):
        work_dir, log = tmp_path / str(number), tmp_path / 'log'

        def action(work_dir=work_dir, log=log):
            os.dup2(os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY), 2)
            sys.stderr = os.fdopen(2, 'w', buffering=1, closefd=False)
            prune_into(config, work_dir)

        code = os.WEXITSTATUS(in_child(action, hook=on_event(work_dir, number, find_no_space)))
        # Some events are not needed: what is taken away may be gone already.
        text = log.read_text()
        assert 'Traceback' not in text, (number, text)
        if code:
            assert code in (1, 2) and text.count('error: ') == 1 and 'No space left' in text, (
                number,
                text,
            )
        assert not list(work_dir.rglob('.*.tmp'))
        resume_and_compare(original, work_dir)
        shutil.rmtree(work_dir)


def test_weights_that_torch_cannot_write_are_one_line(capsys):
    def save(arguments):
        with Path('/dev/full').open('wb') as file:
            torch.save(dict(weight=torch.zeros(100_000)), file)

    with pytest.raises(SystemExit) as stop:
        common.run(save)
    assert stop.value.code == 1
    assert re.fullmatch(
        'error: .*(No space left|lack of space).*--resume.*\n', capsys.readouterr().err
    )


@pytest.mark.parametrize('tool', ['benchmark', 'export', 'leakage', 'make_minidrive', 'report'])
def test_tools_without_the_flag_do_not_advise_to_resume(tool, monkeypatch, capsys):
    module = importlib.import_module(f'adadedup_mm.cli.{tool}')

    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, '_main', interrupted)
    with pytest.raises(SystemExit) as stop:
        module.main([])
    assert stop.value.code == 1
    assert re.fullmatch(
        'interrupted; run the same command( again)?( to go on)?\n', capsys.readouterr().err
    )


def test_characters_that_the_output_cannot_hold_are_replaced(monkeypatch):
    with io.TextIOWrapper(io.BytesIO(), 'latin-1') as output:
        monkeypatch.setattr(sys, 'stdout', output)
        common.run(lambda arguments: print('\u2212 ü'))
        output.flush()
        assert output.buffer.getvalue().decode('latin-1') == '? ü\n'


@contextlib.contextmanager
def mounted(folder, options):
    """A small file system of its own; skips where mounting is not allowed."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', folder], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip('mounting is not allowed here')
    try:
        yield folder
    finally:
        subprocess.run(['umount', folder], check=True)


@pytest.mark.parametrize('kilobytes', [8, 40, 120])
def test_a_small_disk_that_gets_larger(original, kilobytes, tmp_path, capsys):
    with mounted(tmp_path / 'disk', f'size={kilobytes}k') as disk:
        with pytest.raises(SystemExit) as stop:
            prune_into(original[0], disk / 'run')
        error = capsys.readouterr().err
        assert (
            stop.value.code in (1, 2) and error.count('error: ') == 1 and 'No space left' in error
        )
        assert not list(disk.rglob('.*.tmp'))
        subprocess.run(['mount', '-o', 'remount,size=20m', disk], check=True)
        resume_and_compare(original, disk / 'run')


def test_a_file_size_limit_counts_as_a_full_disk(original, tmp_path, capsys):
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(SystemExit) as stop:
            prune_into(original[0], tmp_path / 'run')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    error = capsys.readouterr().err
    assert (
        stop.value.code == 1
        and 'error: File too large: make room, then' in error
        and '--resume' in error
    )
    resume_and_compare(original, tmp_path / 'run')


def test_a_read_only_place_is_refused_and_read_only_originals_are_enough(
    original, tmp_path, capsys
):
    config, _, finished = original
    with mounted(tmp_path / 'disk', 'size=20m') as disk:
        shutil.copytree(config.parent / 'data', disk / 'data')
        subprocess.run(['mount', '-o', 'remount,ro', disk], check=True)
        assert 'cannot be written' in fails([config, '--work-dir', disk / 'run'], capsys)
        moved = ['--cfg-options', f'train_dataloader.dataset.data_root={disk}/data/']
        prune_into(config, tmp_path / 'run', *moved)
        assert selection(tmp_path / 'run') == selection(finished)


@pytest.mark.parametrize('name', ['with spaces/Straße/données 日本', '-quo\'te "s %s {x} $HOME'])
def test_paths_of_any_kind_work_from_data_to_training(name, tmp_path):
    config = make_config(tmp_path / name, ids=range(8))
    work_dir = tmp_path / 'out' / name / 'run'
    prune_into(config, work_dir)
    written = Config.fromfile(work_dir / 'config.py')
    assert len(build(written)) == 4
    assert build(written)[0]['img_path'].startswith(str(tmp_path / name))
    assert json.loads((work_dir / 'manifest.json').read_text())['kept'] == 4
    assert (work_dir / 'report.html').stat().st_size > 10_000


@pytest.mark.parametrize('name', ['日' * 83 + 'a.json', '\udcff' * 250 + '.json', 'a' * 255])
def test_names_as_long_as_file_systems_allow_can_be_written(name, tmp_path):
    write_json(tmp_path / name, 1)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_linked_data_and_work_dirs_are_as_good_as_any(original, tmp_path):
    config, before, finished = original
    (tmp_path / 'data').symlink_to(config.parent / 'data')
    (tmp_path / 'real').mkdir()
    (tmp_path / 'work').symlink_to(tmp_path / 'real')
    moved = ['--cfg-options', f'train_dataloader.dataset.data_root={tmp_path}/data/']
    prune_into(config, tmp_path / 'work', *moved)
    assert selection(tmp_path / 'work') == selection(finished)
    assert (tmp_path / 'work').is_symlink() and digests(config.parent) == before


def test_an_annotation_file_that_is_a_link_stays_one(tmp_path):
    config = make_config(tmp_path, ids=range(8))
    file = tmp_path / 'data/train.json'
    file.rename(tmp_path / 'elsewhere.json')
    file.symlink_to(tmp_path / 'elsewhere.json')
    before = digests(tmp_path)
    prune_into(config, tmp_path / 'run')
    assert file.is_symlink() and (tmp_path / 'run/annotations/train.json').is_file()
    assert not (tmp_path / 'run/annotations/train.json').is_symlink()
    assert {
        name: digest for name, digest in digests(tmp_path).items() if name.parts[0] != 'run'
    } == before


@pytest.mark.parametrize('prefix', ['../outside/', '{root}/outside/', 'a/../../outside/'])
def test_image_names_that_lead_elsewhere_are_read_but_nothing_is_written_there(prefix, tmp_path):
    config = make_config(tmp_path, ids=range(8))
    (tmp_path / 'data/images').rename(tmp_path / 'data/outside')
    (tmp_path / 'data/images/a').mkdir(parents=True)
    shutil.copytree(tmp_path / 'data/outside', tmp_path / 'outside')
    file = tmp_path / 'data/train.json'
    content = json.loads(file.read_text())
    for image in content['images']:
        image['file_name'] = prefix.format(root=tmp_path) + image['file_name']
    file.write_text(json.dumps(content))
    before = digests(tmp_path)
    prune_into(config, tmp_path / 'run')
    assert {
        name: digest for name, digest in digests(tmp_path).items() if name.parts[0] != 'run'
    } == before
    rows = pq.read_table(tmp_path / 'run/samples.parquet').to_pylist()
    assert {row['reason'] for row in rows}.isdisjoint({'unreadable image'})
    assert json.loads((tmp_path / 'run/annotations/train.json').read_text())['images'] == [
        image for image, row in zip(content['images'], rows, strict=True) if row['kept']
    ]
