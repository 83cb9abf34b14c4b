"""The examples of CONTRIBUTING.md: components from one file outside of the package."""

import importlib
import re
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
from test_pipeline import config, prune_main  # noqa: F401

from adadedup_mm.dynamic import ScoreState, build_policy
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
    for name, _, _ in examples().values():
        sys.modules.pop(name, None)


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
