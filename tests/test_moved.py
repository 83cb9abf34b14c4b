"""Code of users that imports the modules of version 0.1 by their old names."""

import importlib
import subprocess
import sys

import pytest

from adadedup_mm.base.moved import MOVED


@pytest.mark.parametrize('name', MOVED)
def test_an_old_name_is_the_same_module_and_a_warning_says_where_it_is(name):
    now = importlib.import_module(f'adadedup_mm.{MOVED[name]}')
    old_name = f'adadedup_mm.{name}'
    sys.modules.pop(old_name, None)
    with pytest.warns(DeprecationWarning, match=f'{old_name} is {now.__name__} now'):
        old = importlib.import_module(old_name)
    assert old is now and now.__spec__.name == now.__name__
    sys.modules.pop(old_name)


def test_errors_of_old_code_are_caught_as_ours():
    code = """
from adadedup_mm.errors import UserError as Old
from adadedup_mm.base.errors import UserError as New
assert Old is New
"""
    subprocess.run([sys.executable, '-W', 'ignore', '-c', code], check=True)


def test_other_names_are_missing_as_ever():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module('adadedup_mm.nothing')
