"""The examples of CONTRIBUTING.md: components from one file outside of the package."""

import importlib
import re
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
from mmengine.registry import Registry
from shared_work import do_pieces, do_work
from test_pipeline import config, prune_main  # noqa: F401

from adadedup_mm.base.errors import UserError
from adadedup_mm.dynamic import ScoreState, build_policy
from adadedup_mm.registry import EMBEDDERS, POLICIES, STRATEGIES, find
from adadedup_mm.settings.load import load_config

GUIDE = Path(__file__).parents[1] / 'CONTRIBUTING.md'


class Example(NamedTuple):
    module: str
    code: str
    settings: str


def examples():
    """The examples by their titles."""
    found = {}
    for section in GUIDE.read_text(encoding='utf-8').split('\n### ')[1:]:
        title = section.partition('\n')[0]
        blocks = re.findall(r'```python\n(.*?)```', section, re.DOTALL)
        name = re.match(r'# (\w+)\.py\n', blocks[0])[1]
        found[title] = Example(name, blocks[0], blocks[1])
    return found


@pytest.fixture
def write_example(tmp_path, monkeypatch):
    """Writes an example beside a config that inherits from the given one; its path."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(title, base):
        name, code, settings = examples()[title]
        (tmp_path / f'{name}.py').write_text(code, encoding='utf-8')
        importlib.invalidate_caches()
        path = tmp_path / 'config.py'
        path.write_text(f"_base_ = '{base}'\n{settings}", encoding='utf-8')
        return path

    yield write
    forget()


def forget():
    """Takes the examples out of the registries and the loaded modules."""
    modules = {example.module for example in examples().values()}
    for registry in (EMBEDDERS, STRATEGIES, POLICIES):
        for name, component in list(registry.module_dict.items()):
            if component.__module__ in modules:
                registry.module_dict.pop(name)
    for module in modules:
        sys.modules.pop(module, None)


def test_the_example_of_a_policy_selects(write_example, config):  # noqa: F811
    example = write_example('A dynamic policy', config)
    loaded = load_config(example)
    policy = build_policy(loaded.dynamic.pop('policy'), dict(loaded.dynamic))
    state = ScoreState.empty(10)
    first, weights = policy.select(state, 0, np.random.default_rng(0))
    assert len(first) == 3 and (np.diff(first) > 0).all() and (weights == 1).all()
    state.update(first, np.ones(3), policy.rate)
    second, _ = policy.select(state, 1, np.random.default_rng(0))
    assert not set(first) & set(second)


def kept(work_dir):
    return pq.read_table(work_dir / 'samples.parquet')['kept'].to_numpy().sum()


@pytest.mark.parametrize('title', ['An embedder', 'A strategy', 'A stage'])
def test_an_example_prunes(title, write_example, config, tmp_path):  # noqa: F811
    example = write_example(title, config)
    prune_main([str(example), '--work-dir', str(tmp_path / 'run'), '--keep-ratio', '0.5'])
    assert kept(tmp_path / 'run') == 24


def test_the_example_of_a_strategy_is_estimated_and_shown_in_dry_runs(
    write_example,
    config,  # noqa: F811
    tmp_path,
    capsys,
):
    example = write_example('A strategy', config)
    prune_main([str(example), '--work-dir', str(tmp_path / 'run'), '--dry-run'])
    shown = capsys.readouterr().out
    assert ' 24 ' in shown and 'features' not in shown
    assert not (tmp_path / 'run').exists()


def test_the_example_of_a_stage_is_shared_by_processes_and_gone_on_with(tmp_path):
    files = [tmp_path / f'{number}.jpg' for number in range(40)]
    for number, file in enumerate(files):
        file.write_bytes(bytes(number))
    namespace = {}
    # The registration is of no interest here.
    exec(examples()['A stage'].code.replace('@STRATEGIES.register_module()\n', ''), namespace)
    shards = namespace['file_sizes'](files)
    assert len(shards.files) == 3
    do_pieces(shards, tmp_path / 'stage', [1])
    do_work(shards, tmp_path / 'stage', world=2)
    assert np.load(tmp_path / 'stage/sizes.npy').tolist() == list(range(40))


def test_a_component_with_the_name_of_one_of_ours_is_refused_in_one_line():
    registry = Registry('kind', scope='adadedup_mm', locations=['json'])
    registry.import_from_location = lambda: (_ for _ in ()).throw(KeyError('taken by another'))
    with pytest.raises(UserError, match='adadedup.kind: taken by another: give yours another name'):
        find(registry, 'x', 'adadedup.kind')
