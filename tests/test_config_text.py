"""Configs are written so that they load again as they are, or one line names what cannot be, before
any work."""

import collections
import datetime
import decimal
import enum
import fractions
import functools
import json
import math
import pathlib
import re
import textwrap

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, RUNNERS, init_default_scope
from test_pipeline import ROOT, run_tool, selection

from adadedup_mm.base.errors import UserError
from adadedup_mm.cli.prune import main as prune_main
from adadedup_mm.cli.train import _runner_type
from adadedup_mm.engine import AdaDeDupRunner
from adadedup_mm.features import PixelEmbedder
from adadedup_mm.settings.config_text import (
    check_printable,
    check_writable,
    config_text,
    json_like,
    write_config,
)
from adadedup_mm.settings.load import load_config


class Colour(enum.Enum):
    RED = 1


def same(first, second):
    """Whether two values are equal, with their types, and not a number equals itself."""
    if isinstance(first, dict):
        return (
            isinstance(second, dict)
            and first.keys() == second.keys()
            and all(same(value, second[key]) for key, value in first.items())
        )
    if type(first) is not type(second):
        return False
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, (np.ndarray, np.generic)):
        return (
            first.dtype == second.dtype
            and first.shape == second.shape
            and first.tobytes() == second.tobytes()
        )
    if isinstance(first, torch.Tensor):
        return (
            first.dtype == second.dtype
            and first.shape == second.shape
            and torch.equal(first.nan_to_num(7), second.nan_to_num(7))
        )
    if isinstance(first, complex):
        return same(first.real, second.real) and same(first.imag, second.imag)
    return first == second or (first != first and second != second)


VALUES = dict(
    inf=math.inf,
    minus_inf=-math.inf,
    nan=math.nan,
    minus_zero=-0.0,
    complex=complex(math.nan, -math.inf),
    path=pathlib.Path('a') / 'b c',
    pure_path=pathlib.PurePosixPath('/x'),
    function=np.mean,
    builtin=len,
    type=dict,
    method=pathlib.Path.cwd,
    array=np.array([[1, math.nan]], np.float32),
    integers=np.arange(3, dtype=np.uint8),
    empty=np.zeros((0, 4)),
    names=np.array(['a', 'bc']),
    scalar=np.float32(0.1),
    truth=np.bool_(True),
    dtype=torch.float16,
    numpy_dtype=np.dtype('int16'),
    tensor=torch.tensor([[0.5, math.inf]]),
    half=torch.tensor(1.5, dtype=torch.bfloat16),
    device=torch.device('cpu'),
    pattern=re.compile('a{{x}}\n', re.IGNORECASE),
    set={1, 'a'},
    frozen=frozenset('ab'),
    range=range(3),
    slice=slice(1, None),
    ellipsis=...,
    bytes=b'\xff{{',
    bytearray=bytearray(b'x'),
    date=datetime.date(2026, 1, 2),
    time=datetime.datetime(2026, 1, 2, 3, tzinfo=datetime.UTC),
    decimal=decimal.Decimal('.1'),
    fraction=fractions.Fraction(1, 3),
    enum=Colour.RED,
    large=10**5000,
    one=(1,),
    none=(),
    ordered=collections.OrderedDict(b=1, a=2),
    long='x' * 10**6,
    surrogate='\ud800',
    lines='a\nb\u2028',
    file_name='{{ fileDirname }}',
    base='{{_base_.model}}',
    variable='{{$HOME:x}}',
    braces='{{{{',
    quotes='\'"\\',
    keyword={'class': 1, 'lambda': {'if': 2}},
    dotted={'a.b c': 1, '': 2, '{{x}}': 3},
    quoted={"it's": 1, 'a': {'"': 2}},
    tuples={(1, (2,)): 3},
    mixed={1: 2, None: 3, math.inf: 4, False: 5, 'a': 6},
    deep=[[({'a': [math.inf]},)]],
)


@pytest.mark.parametrize('name', VALUES)
def test_a_value_is_written_so_that_it_loads_again_as_it_is(name, tmp_path):
    config = Config(dict(here=dict(value=VALUES[name], list=[VALUES[name]]), other=1))
    write_config(config, tmp_path / 'config.py')
    loaded = Config.fromfile(tmp_path / 'config.py')
    assert same(config.to_dict(), loaded.to_dict())
    assert loaded.to_dict()['here']['value'] is not None


@pytest.mark.parametrize(
    'key', ['my key', 'class', 'dict', 'float', 'getattr', "it's", 'é', 'a.b', '1']
)
def test_any_text_can_be_a_key_at_the_top(key, tmp_path):
    config = Config({key: 1, 'other': dict(a=math.inf, b={1, 2})})
    write_config(config, tmp_path / 'config.py')
    assert same(config.to_dict(), Config.fromfile(tmp_path / 'config.py').to_dict())


def local_function():
    pass


def make_unwritable():
    class Local:
        pass

    return dict(
        function=lambda: 1,
        local_class=Local,
        instance=Local(),
        generator=(i for i in range(2)),
        module=math,
        objects=np.array([None, 1]),
        time=np.datetime64('2026-01-01'),
        partial=functools.partial(int, base=2),
        counter=collections.Counter('ab'),
        deque=collections.deque([1]),
        gradient=torch.ones(1, requires_grad=True),
        sparse=torch.eye(2).to_sparse(),
        open_file=(ROOT / 'README.md').open('rb', buffering=0),
        nested=functools.reduce(lambda inner, _: [inner], range(300), 0),
    )


@pytest.mark.parametrize('name', make_unwritable())
def test_what_cannot_be_written_is_named_by_its_key(name):
    config = Config(
        dict(model=dict(type='A', layers=[dict(a=1), dict(here=make_unwritable()[name])]), a=1)
    )
    with pytest.raises(UserError) as error:
        check_writable(config)
    # Of lists in lists without end the key at the top.
    place = 'config value model ' if name == 'nested' else 'config value model.layers.1.here '
    assert (
        place in str(error.value)
        and 'take it out' in str(error.value)
        and len(str(error.value)) < 400
    )


@pytest.mark.parametrize('key', ['__hidden', 1])
def test_keys_that_mmengine_would_drop_are_refused(key):
    with pytest.raises(UserError, match='write it as text|hidden'):
        check_writable(Config({key: 1}))


def test_the_text_is_short_where_it_can_be_and_keeps_the_order_of_keys():
    text = config_text(
        Config(
            dict(b=dict(z=1, a=[1, 2]), a=dict(pipeline=[dict(type='Load', scale=(1333, 800))] * 3))
        )
    )
    steps = ',\n'.join(["        dict(type='Load', scale=(1333, 800))"] * 3)
    assert text == f'b = dict(z=1, a=[1, 2])\na = dict(\n    pipeline=[\n{steps}\n    ]\n)\n'


def test_values_stand_for_themselves_in_hashes_in_every_process():
    value = dict(a=[1, 2.5, None, True, 'x'], b=dict(c=(1, 2)))
    assert json_like(value) == dict(a=[1, 2.5, None, True, 'x'], b=dict(c=[1, 2]))
    odd = json_like(dict(a={(1, 2): {3: np.zeros(2)}, 'b': {'y', 'x'}}, f=len, p=pathlib.Path('a')))
    assert json.loads(json.dumps(odd)) == odd and '0x' not in json.dumps(odd)
    assert json_like(np.arange(10**4)) != json_like(np.arange(10**4) // 2 * 2)


CONFIG = """
_base_ = ['adadedup_mm::proxy/faster_rcnn_tiny.py', 'adadedup_mm::_base_/adadedup_offline.py']
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False, dataset=dict(
    _delete_=True, type='CocoDataset', data_root='{root}/coco/',
    ann_file='annotations/instances_train.json',
    data_prefix=dict(img='images/'), metainfo=dict(classes=('car', 'pedestrian')),
    filter_cfg=dict(filter_empty_gt=True, min_size=1), pipeline=[
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
        dict(type='Resize', scale=(160, 120), keep_ratio=True), dict(type='PackDetInputs')]))
train_cfg = dict(max_epochs=1)
val_dataloader = val_cfg = val_evaluator = test_dataloader = test_cfg = test_evaluator = None
adadedup = dict(keep_ratio=.5, embedder=dict(_delete_=True, type='PixelEmbedder'),
    feedback=dict(beta=0))
"""


def write(path, world, *lines):
    path.write_text(CONFIG.replace('{root}', str(world)) + ''.join(f'{line}\n' for line in lines))
    return path


def refused(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        prune_main([str(argument) for argument in arguments])
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert stop.value.code == 2
    return line


@pytest.mark.parametrize(
    'lines, words',
    [
        (['f = dict(g=lambda: 1)'], 'f.g is <function'),
        (['class A: pass'], 'A is <class'),
        (['x = [0, dict(y=object)]', 'x[1]["y"] = iter([1])'], 'x.1.y is <list_iterator'),
    ],
)
@pytest.mark.parametrize('dry', [True, False])
def test_a_run_says_so_before_any_work(lines, words, dry, world, tmp_path, monkeypatch, capsys):
    config = write(tmp_path / 'config.py', world, *lines)
    monkeypatch.setattr(PixelEmbedder, 'encode', None)
    assert f'config value {words}' in refused(
        [config, '--work-dir', tmp_path / 'run', *['--dry-run'] * dry], capsys
    )
    assert [path.name for path in tmp_path.iterdir()] == ['config.py']


def test_so_it_does_for_a_proxy_s_config(world, tmp_path, monkeypatch, capsys):
    (tmp_path / 'proxy.py').write_text(
        f"_base_ = '{ROOT}/configs/proxy/faster_rcnn_tiny.py'\nx = dict(y=lambda: 1)\n"
    )
    config = write(tmp_path / 'config.py', world)
    monkeypatch.setattr(PixelEmbedder, 'encode', None)
    line = refused(
        [
            config,
            '--work-dir',
            tmp_path / 'run',
            '--cfg-options',
            f'adadedup.proxy.config={tmp_path}/proxy.py',
            'adadedup.feedback.beta=0.5',
        ],
        capsys,
    )
    assert 'proxy.py: config value x.y is <function' in line and not (tmp_path / 'run').exists()


def test_a_pruned_config_has_every_odd_value_of_the_user_s(world, tmp_path):
    config = write(
        tmp_path / 'config.py',
        world,
        'import pathlib',
        "optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=float('inf')))",
        "x = dict(path=pathlib.Path('a/b'), dates={'class': float('nan')}, text='{' + '{ "
        "fileDirname }}', f=len)",
    )
    prune_main([str(config), '--work-dir', str(tmp_path / 'run')])
    original, pruned = load_config(config), Config.fromfile(tmp_path / 'run/config.py')
    for key in ('x', 'optim_wrapper', 'model', 'param_scheduler'):
        assert same(
            original[key].to_dict() if key != 'param_scheduler' else original[key],
            pruned[key].to_dict() if key != 'param_scheduler' else pruned[key],
        )
    assert 'adadedup' not in pruned and 'runner_type' not in pruned
    assert pruned.train_dataloader.dataset.ann_file == str(
        tmp_path / 'run/annotations/instances_train.json'
    )


def test_a_config_that_does_not_load_again_leaves_the_run_unfinished(
    world, tmp_path, monkeypatch, capsys
):
    config, run = write(tmp_path / 'config.py', world), tmp_path / 'run'
    load = Config.fromfile

    def damaged(path, *arguments, **settings):
        loaded = load(path, *arguments, **settings)
        if path == run / 'config.py':
            loaded.model.neck.out_channels = 5
        return loaded

    monkeypatch.setattr(Config, 'fromfile', staticmethod(damaged))
    assert 'model.neck.out_channels does not load again' in refused(
        [config, '--work-dir', run], capsys
    )
    assert not (run / 'manifest.json').exists()


def test_a_training_that_no_runner_could_start_is_refused_before_the_pruning(world, tmp_path):
    config = load_config(
        write(tmp_path / 'config.py', world, 'import pathlib', "x = [dict(y=pathlib.Path('/a'))]")
    )
    config.work_dir = str(tmp_path / 'work')
    with pytest.raises(UserError, match=r'config value x\.0\.y is nothing that .* can print'):
        AdaDeDupRunner.from_cfg(config)
    assert not (tmp_path / 'work').exists()
    with pytest.raises(UserError, match=r'config value x\.class is nothing'):
        check_printable(Config(dict(x={'class': 1})))
    check_printable(Config(dict(x=dict(a=math.inf))))


@pytest.mark.parametrize(
    'values, expected',
    [
        (dict(), None),
        (dict(adadedup={}), 'adadedup_mm.engine.AdaDeDupRunner'),
        (dict(dynamic=dict(policy='random')), 'adadedup_mm.dynamic.DynamicPruningRunner'),
        (
            dict(dynamic=dict(policy='random'), adadedup={}),
            'adadedup_mm.dynamic.DynamicPruningRunner',
        ),
        (dict(runner_type='Runner'), 'Runner'),
        (dict(adadedup=None, runner_type='Runner'), 'Runner'),
        (dict(adadedup={}, runner_type=AdaDeDupRunner), AdaDeDupRunner),
        (
            dict(adadedup={}, runner_type='adadedup_mm.dynamic.DynamicPruningRunner'),
            'adadedup_mm.dynamic.DynamicPruningRunner',
        ),
    ],
)
def test_the_runner_is_the_one_that_the_dicts_of_a_config_ask_for(values, expected):
    assert _runner_type(Config(values)) == expected


@pytest.mark.parametrize(
    'values, words',
    [
        (
            dict(adadedup={}, runner_type='Runner'),
            "'adadedup' dict.* runner_type Runner .*engine.AdaDeDupRunner",
        ),
        (dict(adadedup={}, runner_type='NoSuchRunner'), 'NoSuchRunner'),
        (dict(adadedup=True), 'must be a dict'),
        (
            dict(dynamic={}, runner_type='adadedup_mm.engine.AdaDeDupRunner'),
            "'dynamic' dict.*dynamic.DynamicPruningRunner",
        ),
    ],
)
def test_a_runner_that_would_not_look_at_a_dict_is_refused(values, words):
    with pytest.raises(UserError, match=words):
        _runner_type(Config(values))


def test_a_runner_of_one_s_own_that_is_made_from_ours_is_fine():
    @RUNNERS.register_module()
    class OwnRunner(AdaDeDupRunner):
        pass

    try:
        assert _runner_type(Config(dict(adadedup={}, runner_type='OwnRunner'))) == 'OwnRunner'
    finally:
        RUNNERS.module_dict.pop('OwnRunner')


def test_stock_tools_too_do_not_pass_over_a_dynamic_dict(world, tmp_path):
    config = load_config(write(tmp_path / 'config.py', world), dict(dynamic=dict(policy='random')))
    with pytest.raises(UserError, match="'dynamic' dict too"):
        RUNNERS.build(config)


# As MMDetection's pure-Python configs are written: classes for types, and values that are imported.
PURE = """
import torch
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, Resize
from mmdet.models import FCOS, DetDataPreprocessor, FCOSHead, FPN, ResNet
from mmdet.models.losses import CrossEntropyLoss, FocalLoss, IoULoss
from mmengine.config import read_base
from mmengine.dataset import DefaultSampler
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop
from torch.optim import SGD

with read_base():
    from adadedup_mm._base_.adadedup_offline import *

adadedup.update(keep_ratio=.5, embedder=dict(type='PixelEmbedder'), feedback=dict(beta=0))
default_scope = 'mmdet'
classes = ('car', 'pedestrian')
model = dict(
    type=FCOS, data_preprocessor=dict(type=DetDataPreprocessor, pad_size_divisor=32),
    backbone=dict(type=ResNet, depth=18, base_channels=4, norm_eval=False),
    neck=dict(type=FPN, in_channels=[4, 8, 16, 32], out_channels=32, num_outs=4),
    bbox_head=dict(type=FCOSHead, num_classes=2, in_channels=32, feat_channels=32, stacked_convs=1,
                   strides=[4, 8, 16, 32],
                   regress_ranges=((-1, 16), (16, 32), (32, 64), (64, 10 ** 8)),
                   loss_cls=dict(type=FocalLoss, use_sigmoid=True), loss_bbox=dict(type=IoULoss),
                   loss_centerness=dict(type=CrossEntropyLoss, use_sigmoid=True)))
train_dataloader = dict(
    batch_size=4, num_workers=0, sampler=dict(type=DefaultSampler, shuffle=True), dataset=dict(
        type=CocoDataset, data_root='{root}/coco/', ann_file='annotations/instances_train.json',
        data_prefix=dict(img='images/'), metainfo=dict(classes=classes), pipeline=[
            dict(type=LoadImageFromFile), dict(type=LoadAnnotations, with_bbox=True),
            dict(type=Resize, scale=(160, 120), keep_ratio=True), dict(type=PackDetInputs)]))
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=1)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=SGD, lr=.01),
                     clip_grad=dict(max_norm=35., norm_type=torch.inf))
default_hooks = dict(logger=dict(type='LoggerHook', interval=1))
"""


def test_functions_at_the_top_which_only_make_values_are_left_out(tmp_path):
    function = 'def widths(n):\n    return [2] * n\na = widths(2)\n'
    (tmp_path / 'a.py').write_text(f'import math\n{function}')
    (tmp_path / 'b.py').write_text(f'from torch.optim import SGD\n{function}')
    for name in 'ab':
        assert config_text(load_config(tmp_path / f'{name}.py')) == 'a = [2, 2]\n'
    with pytest.raises(UserError, match='config value widths is nothing'):
        check_printable(load_config(tmp_path / 'b.py'))


@pytest.fixture(scope='module')
def pure(world, tmp_path_factory):
    """A pure-Python config with our line, and the pruning run of it."""
    path = tmp_path_factory.mktemp('pure') / 'config.py'
    path.write_text(PURE.replace('{root}', str(world)))
    prune_main([str(path), '--work-dir', str(path.parent / 'run')])
    return path


def test_a_pure_python_config_takes_our_line_and_is_written_as_one_that_stock_tools_load(pure):
    kept = selection(pure.parent / 'run')
    assert sum(kept.values()) == round(len(kept) / 2)
    written = Config.fromfile(pure.parent / 'run/config.py')
    assert (
        written.model.type == 'mmdet.models.FCOS'
        and written.optim_wrapper.clip_grad.norm_type == math.inf
    )
    assert 'adadedup_mm' not in (pure.parent / 'run/config.py').read_text()
    assert {'FCOS', 'torch', 'read_base'}.isdisjoint(written)
    init_default_scope('mmdet')
    shapes = [
        {name: value.shape for name, value in MODELS.build(config.model).state_dict().items()}
        for config in (written, load_config(pure))
    ]
    assert shapes[0] == shapes[1]


def test_training_with_a_pure_python_config_prunes_first(pure, tmp_path):
    import mmdet

    stock = pathlib.Path(mmdet.__file__).parent / '.mim/tools/train.py'
    count = sum(selection(pure.parent / 'run').values())
    trainings = [('tools/train.py', pure), (stock, pure), (stock, pure.parent / 'run/config.py')]
    for number, (tool, config) in enumerate(trainings):
        run_tool(tool, config, '--work-dir', tmp_path / str(number))
        [log] = (tmp_path / str(number)).glob('*/vis_data/scalars.json')
        steps = [
            json.loads(line)['step']
            for line in log.read_text().splitlines()
            if 'loss' in json.loads(line)
        ]
        assert len(steps) == -(-count // 4)


def test_training_prunes_with_a_dict_alone_too(world, tmp_path):
    config = write(tmp_path / 'config.py', world, 'runner_type = None')
    run_tool('tools/train.py', config, '--work-dir', tmp_path / 'work')
    kept = selection(tmp_path / 'work/adadedup')
    assert sum(kept.values()) == round(len(kept) / 2)


def test_the_pure_python_lines_are_the_files_of_the_others(tmp_path):
    for path in (ROOT / 'configs/_base_').glob('*.py'):
        (tmp_path / path.name).write_text(
            textwrap.dedent(f"""
            from mmengine.config import read_base
            with read_base():
                from adadedup_mm._base_.{path.stem} import *
            """)
        )
        assert load_config(tmp_path / path.name).to_dict() == load_config(path).to_dict()
