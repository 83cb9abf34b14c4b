"""The whole chain, on a small MiniDrive."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from adadedup_mm.cli.prune import main as prune_main
from adadedup_mm.proxy.stage import ProxyStages
from adadedup_mm.stages import Ledger, StageStore
from adadedup_mm.workdir.finished import OUTPUTS
from adadedup_mm.workdir.manifest import feedback_words, read_manifest

ROOT = Path(__file__).parents[1]
CONFIG = """
_base_ = ['{root}/configs/minidrive/faster_rcnn_minidrive.py',
          'adadedup_mm::_base_/adadedup_offline.py']
adadedup = dict(keep_ratio=.5, embedder=dict(type='PixelEmbedder', _delete_=True),
                proxy=dict(epochs=1), feedback=dict(signal='proxy'))
data_root = '{world}/coco/'
train_dataloader = dict(batch_size=8, dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
train_cfg = dict(max_epochs=2, val_interval=2)
model = dict(backbone=dict(base_channels=4), neck=dict(in_channels=[4, 8, 16, 32], out_channels=16),
             rpn_head=dict(in_channels=16, feat_channels=16),
             roi_head=dict(bbox_roi_extractor=dict(out_channels=16),
                           bbox_head=dict(in_channels=16, fc_out_channels=16)))
"""


@pytest.fixture(scope='session')
def config(world, tmp_path_factory):
    path = tmp_path_factory.mktemp('configs') / 'config.py'
    path.write_text(CONFIG.format(root=ROOT, world=world))
    return path


@pytest.fixture(scope='session')
def finished(config, tmp_path_factory):
    """A finished run; do not write into it."""
    work_dir = tmp_path_factory.mktemp('runs') / 'finished'
    prune_main([str(config), '--work-dir', str(work_dir)])
    return work_dir


def selection(work_dir):
    table = pq.read_table(work_dir / 'samples.parquet')
    return dict(zip(table['sample_id'].to_pylist(), table['kept'].to_pylist(), strict=True))


def fails(arguments, capsys):
    """Runs prune.py on wrong input and returns its one line."""
    with pytest.raises(SystemExit) as stop:
        prune_main([str(argument) for argument in arguments])
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()
    lines = [line for line in error if line.startswith('error: ')]
    assert len(lines) == 1 and 'Traceback' not in ''.join(error)
    return lines[0]


def test_the_work_dir_holds_what_the_contract_says(finished):
    assert {path.name for path in finished.iterdir()} == {*OUTPUTS, 'conflicts.parquet'}
    columns = pq.read_table(finished / 'samples.parquet').column_names
    assert columns[:9] == [
        'sample_id',
        'image_paths',
        'cluster',
        'order',
        'similarity',
        'partner_id',
        'loss',
        'kept',
        'reason',
    ]
    assert pq.read_table(finished / 'clusters.parquet').column_names == [
        'cluster',
        'size',
        'kept_initial',
        'kept',
        'threshold',
        'loss_kept',
        'loss_pruned',
        'gap',
        'gap_se',
        'shift',
    ]
    assert pq.read_table(finished / 'classes.parquet').column_names == [
        'class',
        'instances',
        'instances_kept',
        'images',
        'images_kept',
    ]
    manifest = json.loads((finished / 'manifest.json').read_text())
    assert list(manifest['stages']) == [
        'features',
        'clusters',
        'density',
        'partners',
        'proxy',
        'losses',
        'neighbours',
        'conflicts',
    ]
    assert not list(finished.rglob('*.tmp'))


def test_the_budget_is_exact_and_kept_records_are_unchanged(finished, world):
    original = json.loads((world / 'coco/annotations/instances_train.json').read_text())
    pruned = json.loads((finished / 'annotations/instances_train.json').read_text())
    kept = {int(name) for name, stays in selection(finished).items() if stays}
    assert len(kept) == round(len(original['images']) / 2) == len(pruned['images'])
    assert pruned['images'] == [image for image in original['images'] if image['id'] in kept]
    assert pruned['annotations'] == [
        item for item in original['annotations'] if item['image_id'] in kept
    ]
    assert {key: original[key] for key in original if key not in ('images', 'annotations')} == {
        key: pruned[key] for key in pruned if key not in ('images', 'annotations')
    }


def test_every_pruned_sample_has_a_kept_partner_and_its_score_is_above_the_threshold(finished):
    samples = pq.read_table(finished / 'samples.parquet').to_pylist()
    tau = pq.read_table(finished / 'clusters.parquet')['threshold'].to_pylist()
    kept = {row['sample_id'] for row in samples if row['kept']}
    for row in samples:
        assert (row['partner_id'] is None) == row['kept']
        assert row['kept'] or row['partner_id'] in kept
        assert row['loss'] is not None
        if row['reason'] == 'above the threshold':
            assert row['similarity'] >= tau[row['cluster']] - 1e-6


def test_the_same_seed_gives_the_same_selection(config, finished, tmp_path, capsys):
    prune_main([str(config), '--work-dir', str(tmp_path / 'again')])
    assert selection(tmp_path / 'again') == selection(finished)
    words = feedback_words(read_manifest(tmp_path / 'again'))
    *_, told, headline = capsys.readouterr().out.splitlines()
    assert told == words and headline.startswith('kept 24 of 48')


def test_a_run_counts_the_decisions_that_its_proxy_changed(config, finished, tmp_path, monkeypatch):
    harder = np.arange(48, dtype=np.float32) % 7
    monkeypatch.setattr(ProxyStages, 'losses', lambda stages, trained, scored: harder)
    chosen = []
    for beta in (0, 3):
        folder = tmp_path / str(beta)
        options = [f'adadedup.feedback.beta={beta}', 'adadedup.feedback.shrink=False']
        more = ['adadedup.guards.min_class_ratio=0']
        prune_main([str(config), '--work-dir', str(folder), '--cfg-options', *options, *more])
        chosen.append(np.array(list(selection(folder).values())))

    without, with_proxy = chosen
    assert not read_manifest(tmp_path / '0').feedback
    feedback = read_manifest(tmp_path / '3').feedback
    assert feedback.decisions_changed == (with_proxy & ~without).sum() > 0
    assert feedback.seconds == 0 < read_manifest(finished).feedback.seconds


def test_a_finished_run_is_left_alone(config, finished, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob('*')}
    prune_main([str(config), '--work-dir', str(finished)])
    out = capsys.readouterr().out
    assert 'nothing to do' in out and 'it kept 24 of 48' in out and 'the proxy' not in out
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob('*')}


@pytest.mark.parametrize(
    'damage', ['output cut', 'output gone', 'moved', 'image', 'clusters', 'proxy']
)
def test_a_finished_run_is_not_taken_for_another_one_s_files(
    damage, config, world, tmp_path, capsys
):
    copy, clusters, proxy = tmp_path / 'world', tmp_path / 'clusters.csv', tmp_path / 'proxy.py'
    shutil.copytree(world, copy)
    records = json.loads((copy / 'coco/annotations/instances_train.json').read_text())['images']
    names = [image['id'] for image in records]
    clusters.write_text(
        'sample_id,c\n' + ''.join(f'{name},{i % 2}\n' for i, name in enumerate(names))
    )
    proxy.write_text(f"_base_ = '{ROOT}/configs/proxy/faster_rcnn_tiny.py'")
    changed = tmp_path / 'config.py'
    changed.write_text(
        CONFIG.format(root=ROOT, world=copy)
        + f"""
adadedup.update(clusterer=dict(_delete_=True, type='FixedClusterer', column='c', file='{clusters}'),
                strategy='{'adadedup' if damage == 'proxy' else 'clip_dedup'}')
adadedup['proxy'].update(config='{proxy}')
"""
    )
    work_dir = tmp_path / 'run'
    prune_main([str(changed), '--work-dir', str(work_dir)])
    output = work_dir / 'annotations/instances_train.json'
    if damage == 'output cut':
        output.write_text('{')
    elif damage == 'output gone':
        output.unlink()
    elif damage == 'moved':
        work_dir = work_dir.rename(tmp_path / 'elsewhere')
    elif damage == 'image':
        image = next((copy / 'coco/images').rglob('*.jpg'))
        os.utime(image, ns=(0, 0))
    elif damage == 'clusters':
        clusters.write_text(clusters.read_text().replace(',1\n', ',0\n'))
    else:
        proxy.write_text(proxy.read_text() + '\noptim_wrapper = dict(optimizer=dict(lr=.001))')
    line = fails([changed, '--work-dir', work_dir], capsys)
    assert 'holds a finished run, but' in line and '--resume' in line
    prune_main([str(changed), '--work-dir', str(work_dir), '--resume'])
    assert sum(selection(work_dir).values()) == 24
    output = work_dir / 'annotations/instances_train.json'
    assert len(json.loads(output.read_text())['images']) == 24
    assert pq.read_table(work_dir / 'clusters.parquet').num_rows == (
        1 if damage == 'clusters' else 2
    )
    capsys.readouterr()
    prune_main([str(changed), '--work-dir', str(work_dir)])
    assert str(output) in capsys.readouterr().out


def test_a_finished_run_follows_the_rest_of_the_config(config, tmp_path):
    from mmengine.config import Config

    work_dir = tmp_path / 'run'
    prune_main([str(config), '--work-dir', str(work_dir), '--strategy', 'random'])
    before = {
        path: path.stat().st_mtime_ns for path in work_dir.rglob('*') if path.name != 'config.py'
    }
    prune_main(
        [
            str(config),
            '--work-dir',
            str(work_dir),
            '--strategy',
            'random',
            '--cfg-options',
            'train_cfg.max_epochs=7',
        ]
    )
    assert Config.fromfile(work_dir / 'config.py').train_cfg.max_epochs == 7
    assert before.items() <= {path: path.stat().st_mtime_ns for path in work_dir.rglob('*')}.items()


@pytest.mark.parametrize(
    'entry, value', [('seconds', None), ('files', None), ('files', [{}]), ('samples', 0)]
)
def test_a_damaged_manifest_is_written_anew(entry, value, config, finished, tmp_path):
    shutil.copytree(finished, tmp_path / 'run')
    path = tmp_path / 'run' / 'manifest.json'
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {entry: value}))
    prune_main([str(config), '--work-dir', str(tmp_path / 'run'), '--resume'])
    assert json.loads(path.read_text())[entry] not in (value, None)
    assert selection(tmp_path / 'run') == selection(finished)


@pytest.mark.parametrize(
    'stage',
    [
        'features',
        'clusters',
        'density',
        'partners',
        'proxy',
        'losses',
        'neighbours',
        'conflicts',
        'results',
    ],
)
def test_a_run_killed_in_any_stage_resumes_to_the_identical_selection(
    stage, config, finished, tmp_path, capsys
):
    work_dir = tmp_path / 'killed'
    child = os.fork()
    if not child:
        _die_in(stage)
        prune_main([str(config), '--work-dir', str(work_dir)])
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert not (work_dir / 'manifest.json').exists()
    assert '--resume' in fails([config, '--work-dir', work_dir], capsys)
    prune_main([str(config), '--work-dir', str(work_dir), '--resume'])
    assert selection(work_dir) == selection(finished)
    assert not list(work_dir.rglob('*.tmp'))


def _die_in(stage):
    """Makes this process kill itself when a stage's results are written, but not yet finished."""
    from adadedup_mm import stages
    from adadedup_mm.pruning import results

    def die(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)

    if stage == 'results':
        results.pruned_config = die
        return
    write = stages.store.write_json
    stages.store.write_json = lambda path, value: (
        die() if path.parent.name == stage else write(path, value)
    )


@pytest.mark.parametrize('strategy', ['random', 'uniform_stride', 'clip_dedup'])
@pytest.mark.parametrize('ratio', [0.3, 0.97, 1.0])
def test_every_strategy_meets_the_budget(strategy, ratio, config, tmp_path):
    prune_main(
        [
            str(config),
            '--work-dir',
            str(tmp_path / 'run'),
            '--strategy',
            strategy,
            '--keep-ratio',
            str(ratio),
        ]
    )
    assert sum(selection(tmp_path / 'run').values()) == round(48 * ratio)
    assert (tmp_path / 'run/report.html').stat().st_size > 10_000


def test_uniform_stride_takes_every_nth(config, tmp_path):
    prune_main(
        [
            str(config),
            '--work-dir',
            str(tmp_path / 'run'),
            '--strategy',
            'uniform_stride',
            '--keep-ratio',
            '.25',
        ]
    )
    assert np.flatnonzero(list(selection(tmp_path / 'run').values())).tolist() == list(
        range(0, 48, 4)
    )


def test_other_options_take_over_a_work_dir_only_with_resume(config, finished, tmp_path, capsys):
    work_dir = tmp_path / 'run'
    prune_main([str(config), '--work-dir', str(work_dir), '--strategy', 'clip_dedup'])
    features = (work_dir / 'stages/features/done.json').stat().st_mtime_ns
    line = fails(
        [config, '--work-dir', work_dir, '--strategy', 'clip_dedup', '--keep-ratio', '.6'], capsys
    )
    assert 'keep_ratio is 0.5' in line and '--resume' in line
    prune_main([str(config), '--work-dir', str(work_dir), '--resume'])
    assert selection(work_dir) == selection(finished)
    assert (work_dir / 'stages/features/done.json').stat().st_mtime_ns == features


def test_two_runs_do_not_share_a_work_dir(config, tmp_path, capsys):
    import fcntl

    work_dir = tmp_path / 'run'
    prune_main([str(config), '--work-dir', str(work_dir), '--strategy', 'random'])
    with open(work_dir / 'stages/lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        line = fails(
            [
                config,
                '--work-dir',
                work_dir,
                '--strategy',
                'random',
                '--resume',
                '--keep-ratio',
                '.6',
            ],
            capsys,
        )
    assert 'in use' in line


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['--keep-ratio', '0'], 'keep_ratio is 0'),
        (['--keep-ratio', '1.5'], 'keep_ratio is 1.5'),
        (['--strategy', 'adadup'], "did you mean 'adadedup'"),
        (['--cfg-options', 'adadedup.embedder.type=NoEmbedder'], "'OfflineEmbedder'"),
        (['--cfg-options', 'adadedup.embedder.channels=3'], 'channels'),
        (['--cfg-options', 'adadedup.density.order=easy'], 'order'),
        (['--cfg-options', 'adadedup.proxy.config=missing.py'], 'missing.py'),
        (['--cfg-options', 'adadedup.proxy.checkpoint=missing.pth'], 'missing.pth'),
        (['--cfg-options', 'train_dataloader.dataset.ann_file=missing.json'], 'missing.json'),
        (['--cfg-options', 'train_dataloader.dataset.data_prefix.img=missing/'], 'missing'),
        (['--launcher', 'pytorch'], 'torchrun'),
    ],
)
def test_bad_input_gives_one_line_and_leaves_nothing_behind(
    arguments, words, config, tmp_path, capsys
):
    assert words in fails([config, '--work-dir', tmp_path / 'run', *arguments], capsys)
    assert not (tmp_path / 'run').exists()


def test_what_was_computed_before_an_error_is_used_again(config, tmp_path, capsys):
    arguments = [config, '--work-dir', tmp_path / 'run', '--strategy', 'clip_dedup']
    assert 'only 48' in fails(
        [*arguments, '--cfg-options', 'adadedup.clusterer.num_clusters=49'], capsys
    )
    features = (tmp_path / 'run/stages/features/features.npy').stat().st_mtime_ns
    assert '--resume' in fails(arguments, capsys)
    prune_main([*map(str, arguments), '--resume'])
    assert (tmp_path / 'run/stages/features/features.npy').stat().st_mtime_ns == features


@pytest.mark.parametrize('name', ['x' * 300, 'a\0b', 'a\udcff'])
def test_a_work_dir_that_cannot_be_is_refused(name, config, tmp_path, capsys):
    line = fails([config, '--work-dir', f'{tmp_path}/{name}', '--strategy', 'random'], capsys)
    assert 'is no possible name' in line and not list(tmp_path.iterdir())


def test_a_missing_or_broken_config_is_named(tmp_path, capsys):
    assert 'nowhere.py' in fails(['nowhere.py'], capsys)
    broken = tmp_path / 'broken.py'
    broken.write_text('a = (')
    assert 'broken.py' in fails([broken], capsys)


def test_a_config_without_the_line_is_told_what_to_add(tmp_path, capsys):
    plain = tmp_path / 'plain.py'
    plain.write_text(f"_base_ = '{ROOT}/configs/minidrive/faster_rcnn_minidrive.py'")
    assert '_base_/adadedup.py' in fails([plain], capsys)


def test_a_folder_of_somebody_else_is_not_touched(config, tmp_path, capsys):
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations/mine.json').write_text('{}')
    assert 'not from a pruning run' in fails([config, '--work-dir', tmp_path], capsys)
    assert [path.name for path in tmp_path.rglob('*')] == ['annotations', 'mine.json']


@contextlib.contextmanager
def truncated_images(world, folder, count):
    """A copy of the world with broken training images, one of them missing; gives their ids."""
    import shutil

    shutil.copytree(world, folder)
    images = json.loads((folder / 'coco/annotations/instances_train.json').read_text())['images'][
        5 : 5 + count
    ]
    for image in images:
        path = folder / 'coco/images' / image['file_name']
        path.write_bytes(path.read_bytes()[:100])
    path.unlink()
    yield [str(image['id']) for image in images]


@pytest.mark.parametrize('action', ['keep', 'drop', 'error'])
def test_unreadable_images_are_kept_dropped_or_refused(action, world, tmp_path, capsys):
    with truncated_images(world, tmp_path / 'world', 3) as bad:
        config = tmp_path / 'config.py'
        config.write_text(CONFIG.format(root=ROOT, world=tmp_path / 'world'))
        arguments = [
            config,
            '--work-dir',
            tmp_path / 'run',
            '--cfg-options',
            f'adadedup.on_bad_image={action}',
        ]
        if action == 'error':
            assert 'CAM_FRONT' in fails(arguments, capsys)
            # With another setting the run goes on from there, and so does one that refuses them
            # after all.
            arguments = [
                *arguments[:-1],
                'adadedup.on_bad_image=drop',
                '--resume',
                '--strategy',
                'clip_dedup',
            ]
            prune_main([str(argument) for argument in arguments])
            features = (tmp_path / 'run/stages/features/features.npy').stat().st_mtime_ns
            line = fails([*arguments[:-4], 'adadedup.on_bad_image=error', *arguments[-3:]], capsys)
            assert '3 images cannot be read' in line and 'CAM_FRONT' in line
            assert (tmp_path / 'run/stages/features/features.npy').stat().st_mtime_ns == features
            return
        prune_main([str(argument) for argument in arguments])
        kept = selection(tmp_path / 'run')
        assert sum(kept.values()) == 24
        assert [kept[name] for name in bad] == [action == 'keep'] * 3
        reasons = pq.read_table(tmp_path / 'run/samples.parquet').to_pylist()
        assert {row['reason'] for row in reasons if row['sample_id'] in bad} == {'unreadable image'}


def run_tool(*arguments, check=True):
    environment = dict(
        os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT), CUDA_VISIBLE_DEVICES=''
    )
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', *map(str, arguments)],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=ROOT,
    )
    assert not check or done.returncode == 0, done.stdout[-3000:]
    return done


def loss_curve(folder):
    """The logged training losses of the only run in a folder."""
    [log] = folder.glob('*/vis_data/scalars.json')
    rows = map(json.loads, log.read_text().splitlines())
    return [(row['step'], row['loss'], row['lr']) for row in rows if 'loss' in row]


@pytest.fixture(scope='session')
def trained(config, tmp_path_factory):
    """``tools/train.py`` on the config with our line."""
    folder = tmp_path_factory.mktemp('training') / 'ours'
    run_tool(
        'tools/train.py',
        config,
        '--work-dir',
        folder,
        '--cfg-options',
        'default_hooks.logger.interval=1',
    )
    return folder


def test_training_prunes_first_and_runs_on_the_pruned_set(trained, finished):
    folder = trained
    assert selection(folder / 'adadedup') == selection(finished)
    # 24 samples in batches of 8, for two epochs.
    assert [step for step, _, _ in loss_curve(folder)] == [1, 2, 3, 4, 5, 6]
    manifest = json.loads((folder / 'adadedup/manifest.json').read_text())
    assert manifest['break_even']['trainings'] > 0


def test_stock_mmdet_training_on_the_written_config_has_the_same_loss_curve(trained, tmp_path):
    import mmdet

    stock = Path(mmdet.__file__).parent / '.mim/tools/train.py'
    written = trained / 'adadedup/config.py'
    assert 'adadedup_mm' not in written.read_text()
    run_tool(
        stock,
        written,
        '--work-dir',
        tmp_path / 'stock',
        '--cfg-options',
        'default_hooks.logger.interval=1',
    )
    assert loss_curve(tmp_path / 'stock') == loss_curve(trained)


def test_two_processes_select_the_same_samples_and_train(config, finished, tmp_path):
    done = run_tool(
        '-m',
        'torch.distributed.run',
        '--nproc_per_node=2',
        '--master_port=29517',
        'tools/train.py',
        config,
        '--work-dir',
        tmp_path / 'two',
        '--launcher',
        'pytorch',
        '--cfg-options',
        'default_hooks.logger.interval=1',
    )
    assert selection(tmp_path / 'two/adadedup') == selection(finished)
    # 24 samples over two ranks, in batches of 8, for two epochs.
    assert [step for step, _, _ in loss_curve(tmp_path / 'two')] == [1, 2, 3, 4], done.stdout[
        -2000:
    ]


def test_stages_of_another_key_are_made_anew(tmp_path):
    store = StageStore(tmp_path)
    calls = []
    for key in ('a', 'a', 'b'):
        store.run('stage', key, lambda folder, key=key: calls.append(key))
    assert calls == ['a', 'b']


def test_a_run_does_not_pay_for_what_an_earlier_one_left(tmp_path):
    ledger = Ledger(StageStore(tmp_path), seed=0)
    for name in ('features', 'proxy'):
        ledger.stage(name, {}, lambda folder: None)
    ledger.key('proxy', dict(weights='given'))
    assert list(ledger.costs()) == ['features']


def test_originals_are_never_changed(world, config, tmp_path):
    def digest():
        return {
            path: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in world.rglob('*')
            if path.is_file()
        }

    before = digest()
    prune_main([str(config), '--work-dir', str(tmp_path / 'run'), '--strategy', 'random'])
    assert digest() == before


def test_density_pruning_removes_the_planted_duplicates(world, config, tmp_path):
    truth = pq.read_table(world / 'truth.parquet').to_pylist()
    groups = {
        str(row['sample_id']): row['duplicate_group'] for row in truth if row['split'] == 'train'
    }
    redundant = sum(row['is_duplicate'] for row in truth if row['split'] == 'train')
    prune_main(
        [
            str(config),
            '--work-dir',
            str(tmp_path / 'run'),
            '--strategy',
            'clip_dedup',
            '--keep-ratio',
            str(1 - redundant / len(groups)),
            '--cfg-options',
            'adadedup.embedder.type=OfflineEmbedder',
        ]
    )
    kept = selection(tmp_path / 'run')
    represented = {groups[name] for name, stays in kept.items() if stays}
    pruned = [groups[name] for name, stays in kept.items() if not stays]
    assert len(pruned) == redundant > 0
    assert sum(group >= 0 and group in represented for group in pruned) >= 0.9 * len(pruned)
