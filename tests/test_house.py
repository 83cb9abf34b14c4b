"""The rooms of the package: who may import whom, and that nothing goes in circles."""

import ast
import re
from collections import defaultdict
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from adadedup_mm.registry import STRATEGIES

PACKAGE = Path(__file__).parents[1] / 'adadedup_mm'
DRAWING = PACKAGE.parent / 'docs' / 'ARCHITECTURE.md'
STAGES = ('features', 'density', 'proxy', 'captions', 'scores', 'clusters', 'conflicts')
RESULTS = ('strategies', 'pruning', 'report', 'workdir')


def module_of(path):
    parts = ('adadedup_mm', *path.relative_to(PACKAGE).with_suffix('').parts)
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


@cache
def files():
    """The package's files by module; `.mim` and `_base_` are links to configs and tools."""
    linked = {'.mim', '_base_'}
    paths = [path for path in PACKAGE.rglob('*.py') if not linked & set(path.parts)]
    return {module_of(path): path for path in paths}


@cache
def tree_of(module):
    return ast.parse(files()[module].read_text(encoding='utf-8'))


def imported_by(module):
    """The modules of ours that a module imports, except for types alone."""
    for node in runtime_nodes(tree_of(module)):
        if isinstance(node, ast.ImportFrom):
            source = absolute(module, node)
            for name in node.names:
                whole = f'{source}.{name.name}'
                if whole in files() or source in files():
                    yield whole if whole in files() else source
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in files())


def absolute(module, node):
    if not node.level:
        return node.module or ''
    parts = module.split('.')
    is_package = files()[module].name == '__init__.py'
    folder = parts[: len(parts) - node.level + is_package]
    return '.'.join([*folder, *([node.module] if node.module else [])])


def runtime_nodes(node):
    """All nodes but those below ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and 'TYPE_CHECKING' in ast.unparse(child.test):
            continue
        yield child
        yield from runtime_nodes(child)


def room_of(module):
    return module.split('.')[1] if '.' in module else 'adadedup_mm'


@cache
def modules():
    return {module: frozenset(imported_by(module)) - {module} for module in files()}


@cache
def rooms():
    """The rooms that each room imports."""
    graph = defaultdict(set)
    for module, imported in modules().items():
        graph[room_of(module)] |= {room_of(other) for other in imported} - {room_of(module)}
    return dict(graph)


def floors(graph):
    """How many rooms stand on each other at most."""
    height = {}
    for name in TopologicalSorter(graph).static_order():
        height[name] = 1 + max((height[below] for below in graph.get(name, ())), default=0)
    return max(height.values())


def circle(graph):
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return ' -> '.join(error.args[1])
    return ''


def test_no_file_and_no_room_imports_itself_by_detours():
    assert not circle(modules())
    assert not circle(rooms())


def test_the_house_has_few_floors_and_nothing_lies_about():
    graph = {room: below - {'adadedup_mm'} for room, below in rooms().items()}
    assert floors(graph) <= 12
    assert {path.name for path in PACKAGE.glob('*.py')} <= {'__init__.py', 'registry.py'}


@pytest.mark.parametrize('room', ['pool', 'vectors', 'settings', 'stages', 'registry'])
def test_foundations_stand_on_base_alone(room):
    assert rooms()['base'] == set()
    assert rooms()[room] <= {'base'}


@pytest.mark.parametrize('room', STAGES)
def test_stages_know_nothing_of_strategies_and_results(room):
    assert not rooms()[room] & set(RESULTS)


def test_what_is_made_of_a_run_reads_it_through_the_work_dir():
    assert not rooms()['report'] & {'leakage', 'pruning', 'strategies', *STAGES}
    assert not rooms()['report'] & {'probe'}
    assert not rooms()['leakage'] & {'pruning', 'strategies'}
    exports = modules()['adadedup_mm.workdir.export']
    assert {room_of(module) for module in exports} <= {'base', 'workdir'}


@pytest.mark.parametrize('word', ['time.sleep', 'fcntl', 'flock'])
def test_only_stages_wait_and_lock(word):
    users = {room_of(name) for name, path in files().items() if word in path.read_text('utf-8')}
    # A work dir and a world are locked against others that write there, and a benchmark looks after
    # its trainings.
    assert users <= {'stages', 'workdir', 'minidrive', 'benchmark'}


def test_names_of_heads_stand_where_detectors_are_known():
    from mmdet.registry import MODELS

    heads = {name for name in MODELS.module_dict if name.endswith('Head')}
    users = set()
    for module, path in files().items():
        words = set(re.findall(r'\w+', path.read_text(encoding='utf-8')))
        if words & heads:
            users.add(module.removeprefix('adadedup_mm.'))
    strangers = {name for name in users if not name.startswith(('detectors.', 'models.'))}
    assert strangers <= {'scores.observe'}


def strategies_named_in(module):
    """The names of strategies among the words of a module's texts and names."""
    STRATEGIES.import_from_location()
    # The package's own name, and words of everyday use.
    names = STRATEGIES.module_dict.keys() - {'adadedup', 'auto', 'random'}
    return names & set(re.findall(r'\w+', files()[module].read_text(encoding='utf-8')))


def test_strategies_are_named_in_their_own_files_only():
    named = {module for module in files() if strategies_named_in(module)}
    # A benchmark's variants are named in its config, and tables look for one of that name; a probe
    # compares some unless it is told; a module of version 0.1 had the name of a strategy.
    known = ('benchmark.config', 'cli.probe', 'base.moved')
    strangers = named - {f'adadedup_mm.{module}' for module in known}
    assert {room_of(module) for module in strangers} == {'strategies'}
    for module in strangers:
        own = {name for name in STRATEGIES.module_dict if defines(module, name)}
        assert strategies_named_in(module) <= own, module


def defines(module, name):
    nodes = tree_of(module).body
    return any(isinstance(node, ast.FunctionDef) and node.name == name for node in nodes)


def test_public_names_name_one_thing_each():
    places = defaultdict(set)
    for module in files():
        for node in tree_of(module).body:
            is_definition = isinstance(node, (ast.FunctionDef, ast.ClassDef))
            if is_definition and not node.name.startswith('_'):
                places[node.name].add(module.removeprefix('adadedup_mm.'))
    # Every command line tool has a ``main``.
    places.pop('main')
    assert not {name: where for name, where in places.items() if len(where) > 1}


def drawn():
    """The arrows of the drawing, (from, to): those of what is taken, and of what is handed on."""
    text = DRAWING.read_text(encoding='utf-8')
    drawing = text.partition('```mermaid')[2].partition('```')[0]
    drawing = re.sub(r'\[.*?\]|\|.*?\|', '', drawing)
    taken, handed_on = set(), set()
    for line in drawing.splitlines():
        words = re.findall(r'\w+|-->|-\.->', line)
        for start, arrow, end in zip(words, words[1:], words[2:], strict=False):
            if arrow == '-->':
                taken.add((start, end))
            elif arrow == '-.->':
                handed_on.add((start, end))
    return taken, handed_on


def test_the_drawing_of_the_datas_way_is_true():
    taken, handed_on = drawn()
    known = {name for arrow in taken | handed_on for name in arrow}
    assert known <= rooms().keys() and len(known) > 12 and handed_on
    for start, end in taken:
        assert start in rooms()[end], f'{end} does not import {start}'
    for start, end in handed_on:
        assert end in rooms()[start], f'{start} does not import {end}'
    upstream = {room: set() for room in known}
    for start, end in taken:
        upstream[end].add(start)
    reachable = {}
    for room in TopologicalSorter(upstream).static_order():
        own = upstream[room]
        reachable[room] = own.union(*(reachable[start] for start in own))
    # Between the rooms that are drawn, nothing goes another way.
    for room in known:
        given = {end for start, end in handed_on if start == room}
        assert rooms()[room] & known <= reachable[room] | given, room


@pytest.mark.parametrize('room', sorted(path.name for path in PACKAGE.iterdir() if path.is_dir()))
def test_every_room_says_what_it_is_for_and_stands_in_the_docs(room):
    if room.startswith(('.', '_')):
        return
    assert ast.get_docstring(tree_of(f'adadedup_mm.{room}'))
    assert f'`{room}/`' in DRAWING.read_text(encoding='utf-8')
