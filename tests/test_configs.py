"""The configs that come with the package resolve, and what they describe can be built."""

from pathlib import Path

import pytest
from mmengine.registry import MODELS, RUNNERS, init_default_scope

from adadedup_mm.base.errors import UserError
from adadedup_mm.engine import AdaDeDupRunner
from adadedup_mm.registry import CLUSTERERS, DENSITIES, STRATEGIES
from adadedup_mm.settings.load import load_config
from adadedup_mm.settings.options import resolve_options

ROOT = Path(__file__).parents[1] / 'configs'
CONFIGS = sorted(
    path for path in ROOT.rglob('*.py') if path.parent.name in ('coco', 'minidrive', 'proxy')
)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_every_detector_config_resolves_and_builds(path):
    config = load_config(path)
    scope = config.default_scope
    init_default_scope(scope)
    for part in config.model.values():
        if isinstance(part, dict):
            part.pop('init_cfg', None)
    assert sum(p.numel() for p in MODELS.build(config.model).parameters()) > 100_000


@pytest.mark.parametrize('path', sorted((ROOT / 'coco').glob('*.py')), ids=lambda path: path.stem)
def test_coco_configs_say_what_they_prune(path):
    options = resolve_options(load_config(path))
    assert (
        f'{1 - options.keep_ratio:.0%}'
        == path.stem.rpartition('_')[2].removesuffix('-pruned') + '%'
    )


@pytest.mark.parametrize('name', ['adadedup', 'adadedup_offline'])
def test_the_base_configs_name_components_that_exist(name):
    config = load_config(f'adadedup_mm::_base_/{name}.py')
    options = resolve_options(config)
    assert options.clusterer['type'] in CLUSTERERS.module_dict
    assert options.density['type'] in DENSITIES.module_dict
    assert options.strategy_name in STRATEGIES.module_dict
    assert RUNNERS.get(config.runner_type) is AdaDeDupRunner
    assert load_config(options.proxy.config).model.type == 'FasterRCNN'


@pytest.mark.parametrize(
    'name, text, words',
    [
        ('a.yaml', 'a: [1,\n b: }', 'ParserError'),
        ('a.json', '{"a":', 'JSONDecodeError'),
        ('a.py', "_base_ = 'a.py'", 'RecursionError'),
        ('a.py', 'a = 1 / 0', 'ZeroDivisionError: division by zero'),
        ('a.py', 'a = [][1]', 'IndexError'),
        ('a.py', "raise RuntimeError('one\\ntwo')", 'RuntimeError: one'),
        (
            'a.py',
            'from mmengine.config import read_base\nwith read_base():\n    from .b import *',
            'ConfigParsingError',
        ),
        ('a.py', 'import sys; sys.exit(3)', 'SystemExit: 3'),
    ],
)
def test_whatever_a_config_raises_is_one_line(name, text, words, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as error:
        load_config(tmp_path / name)
    assert (
        f'{tmp_path / name}: ' in str(error.value)
        and words in str(error.value)
        and '\n' not in str(error.value)
    )


def test_the_base_configs_define_only_keys_of_their_own():
    for name in ('adadedup', 'adadedup_offline'):
        assert set(load_config(ROOT / '_base_' / f'{name}.py').keys()) == {
            'adadedup',
            'runner_type',
        }


def test_the_line_that_works_with_stock_tools_resolves(tmp_path):
    from mmengine.config import Config

    path = tmp_path / 'stock.py'
    path.write_text(
        "_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',\n"
        '          f\'{__import__("adadedup_mm").__path__[0]}/.mim/configs/_base_/adadedup.py\']\n'
    )
    assert RUNNERS.get(Config.fromfile(path).runner_type) is AdaDeDupRunner


def test_a_whole_training_config_of_ours_can_be_a_base(world, tmp_path):
    """mmengine marks what comes from another package with its name, which is no registry's."""
    from adadedup_mm.datasets import read_pool

    path = tmp_path / 'config.py'
    path.write_text(
        "_base_ = ['adadedup_mm::minidrive/faster_rcnn_minidrive.py', "
        "'adadedup_mm::_base_/adadedup_offline.py']\n"
        f"train_dataloader = dict(dataset=dict(data_root='{world}/coco/'))\n"
    )
    config = load_config(path)
    assert "'adadedup_mm'" not in config.pretty_text
    assert len(read_pool(config)[0]) > 0
