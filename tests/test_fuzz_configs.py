"""Configs with values of any kind: what is written loads again as it was, or one line says what
cannot be written.

``FUZZ=50`` tries fifty times as many, other ones every time, as in ``test_fuzz.py``.
"""

import math
import pathlib
import tempfile

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config
from test_config_text import same
from test_fuzz import clean, tries

from adadedup_mm.base.errors import UserError
from adadedup_mm.base.files import sha256_value
from adadedup_mm.settings.config_text import json_like, write_config
from adadedup_mm.settings.options import resolve_options


def function():
    """One that can be imported."""


class Opaque:
    """An object with a state, which no text stands for."""

    def __init__(self):
        self.state = [self]


TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            '{{ fileDirname }}',
            '{{_base_.a}}',
            '{{$HOME:}}',
            '{{{',
            "'''",
            '\\',
            '\\x7b{',
            'class',
            '_base_',
            '_delete_',
            '__a',
            'a.b',
            'type',
            'dict',
            'nan',
            '#',
            '\r',
            '\x0c',
            '\u2028',
            '\ud800',
            'import os',
            'with read_base():',
        ]
    ),
)
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.complex_numbers(),
    TEXTS,
    st.binary(max_size=8),
    st.dates(),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.fractions(),
    st.slices(5),
    st.sampled_from(
        [
            math.inf,
            -math.inf,
            math.nan,
            -0.0,
            10**400,
            np.mean,
            len,
            int,
            pathlib.Path,
            function,
            torch.nn.ReLU,
            torch.float16,
            np.dtype('>i2'),
            np.float32(math.nan),
            np.int8(-3),
            np.bool_(False),
            range(3),
            pathlib.Path('/a/{{b}}'),
            torch.device('cpu'),
            torch.Size([]),
        ]
    ),
)
ARRAYS = st.builds(
    lambda items, kind: np.array(items).astype(kind),
    st.lists(st.integers(-100, 100), max_size=4),
    st.sampled_from(['f2', 'f8', 'i1', 'u4', '?', 'c8', 'U3']),
)
TENSORS = st.builds(
    lambda items, kind: torch.tensor(items, dtype=kind),
    st.lists(st.integers(0, 100), max_size=4),
    st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.bool]),
)
REFUSED = st.sampled_from(
    [lambda: 1, Opaque(), math, np.array([None]), torch.ones(1, requires_grad=True)]
)
KEYS = st.one_of(
    TEXTS, TEXTS, st.integers(), st.none(), st.floats(allow_nan=False), st.tuples(st.integers())
)
VALUES = st.recursive(
    st.one_of(PLAIN, PLAIN, ARRAYS, TENSORS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=3),
    ),
    max_leaves=8,
)


def loads_equal_or_says_why(values):
    """Whether the config was written."""
    config = Config(values)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / 'config.py'
        write_config(config, path)
        assert same(config.to_dict(), Config.fromfile(path).to_dict())


@tries(150)
@given(value=VALUES)
def test_values_below_the_top_load_again_as_they_were(value):
    # Nothing of this is refused.
    loads_equal_or_says_why(dict(a=dict(b=[value, {'c': value}])))


@tries(60)
@given(values=st.dictionaries(TEXTS, VALUES, max_size=3))
def test_keys_at_the_top_load_again_or_are_refused_in_one_line(values):
    with clean():
        loads_equal_or_says_why(values)


@tries(60)
@given(value=VALUES, refused=REFUSED, deep=st.integers(0, 3))
def test_what_has_no_text_is_refused_wherever_it_is(value, refused, deep):
    for _ in range(deep):
        refused = [value, {'k': refused}]
    try:
        loads_equal_or_says_why(dict(a=dict(b=refused)))
    except UserError as error:
        assert 'config value a.b' in str(error) and '\n' not in str(error)
    else:
        raise AssertionError('written')


@tries(80)
@given(value=VALUES)
def test_hashes_of_values_are_possible_and_tell_them_from_their_text(value):
    assert sha256_value(json_like(value)) == sha256_value(json_like(value))
    assert sha256_value(json_like([value])) != sha256_value(json_like([value, str(value)]))


@tries(80)
@given(
    key=st.sampled_from(
        ['keep_ratio', 'seed', 'embedder', 'strategy', 'proxy', 'feedback', 'views', 'work_dir']
    ),
    value=st.one_of(VALUES, REFUSED),
    inside=st.booleans(),
)
def test_options_are_resolved_or_refused_in_one_line(key, value, inside):
    with clean():
        resolve_options(
            dict(adadedup={key: dict(type='PixelEmbedder', x=value) if inside else value})
        )
