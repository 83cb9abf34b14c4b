import importlib
from pathlib import Path

import pytest

from adadedup_mm.base.checks import choose
from adadedup_mm.base.errors import UserError
from adadedup_mm.settings.options import Options, resolve_options


def resolve(**options):
    return resolve_options(dict(adadedup=options))


def test_defaults_are_those_of_the_dataclass():
    assert resolve() == Options()


def test_command_line_values_go_first():
    options = resolve_options(
        dict(adadedup=dict(keep_ratio=0.8)), keep_ratio=0.5, strategy='random'
    )
    assert (options.keep_ratio, options.strategy_name) == (0.5, 'random')


def test_scope_marks_of_mmengine_do_not_count():
    marked = dict(type='SphericalKMeans', _scope_='adadedup_mm')
    assert (
        resolve(clusterer=marked).identity()
        == resolve(clusterer=dict(type='SphericalKMeans')).identity()
    )


def test_the_work_dir_is_no_part_of_the_identity():
    assert resolve(work_dir='a').identity() == resolve(work_dir='b').identity()


@pytest.mark.parametrize(
    'bad, words',
    [
        (dict(keep_ratio=0), 'keep_ratio is 0'),
        (dict(keep_ratio=1.01), 'keep_ratio is 1.01'),
        (dict(keep_ratio=-0.5), 'keep_ratio is -0.5'),
        (dict(keep_ratio=float('nan')), 'keep_ratio is nan'),
        (dict(keep_ratio='0.8'), "keep_ratio is '0.8'"),
        (dict(keep_ratio=True), 'keep_ratio is True'),
        (
            dict(embedder=dict(type='PixelEmbedder', near_duplicate='abc')),
            "near_duplicate is 'abc'",
        ),
        (dict(strategy='\ud800'), 'cannot be written'),
        (dict(shared_stages=5), 'shared_stages is 5'),
        (dict(seed=-1), 'seed'),
        (dict(keepratio=0.8), "did you mean 'keep_ratio'"),
        (dict(on_bad_image='skip'), "'drop', 'error', 'keep'"),
        (dict(views='left'), "'all', 'front'"),
        (dict(views=[]), 'views'),
        (dict(temporal='mend'), "'keep', 'relink'"),
        (dict(trust_pickles='yes'), 'trust_pickles'),
        (dict(group_by='drive'), "one of 'scene'"),
        (dict(min_gap=-1), 'adadedup.min_gap is -1'),
        (dict(min_gap=0.5), 'whole number'),
        (dict(group_by='scene', min_gap=1), 'set one of the two'),
        (dict(embedder='OpenCLIPEmbedder'), "a dict with a 'type'"),
        (dict(strategy=3), 'strategy'),
        (dict(proxy=dict(epoch=3)), "did you mean 'epochs'"),
        (dict(proxy=dict(epochs=0)), 'proxy.epochs'),
        (dict(proxy=5), 'adadedup.proxy must be a dict'),
        (dict(feedback=dict(gap='median')), "'held_out', 'mean', 'paired'"),
        (dict(feedback=dict(gap='held_out')), 'proxy.held_out'),
        (dict(feedback=dict(beta=-1)), 'feedback.beta'),
        (dict(feedback=dict(beta=10**400)), 'feedback.beta'),
        (dict(feedback=dict(initial_ratio=2)), 'initial_ratio'),
        (dict(guards=dict(min_class_ratio=2)), 'min_class_ratio'),
    ],
)
def test_bad_values_are_named_in_one_line(bad, words):
    with pytest.raises(UserError) as error:
        resolve(**bad)
    assert words in str(error.value)
    assert '\n' not in str(error.value)


def test_arguments_beside_the_default_strategy_are_those_of_the_one_on_the_command_line():
    config = dict(adadedup=dict(strategy=dict(type='adadedup', captions='c.json')))
    assert resolve_options(config, strategy='vlm_sse').strategy == dict(
        type='vlm_sse', captions='c.json'
    )
    config['adadedup']['strategy'] = dict(type='vlm_sse', captions='c.json')
    assert resolve_options(config, strategy='random').strategy == 'random'
    assert resolve_options(config, strategy='vlm_sse').strategy == dict(
        type='vlm_sse', captions='c.json'
    )


@pytest.mark.parametrize('tool', ['benchmark', 'leakage', 'prune', 'train'])
@pytest.mark.parametrize(
    'override, words',
    [
        ('a', 'KEY=VALUE'),
        ('=5', 'KEY=VALUE'),
        ('a..b=5', 'KEY=VALUE'),
        ('x=[1,(2', 'brackets'),
        ('x=)1,2(', 'brackets'),
    ],
)
def test_overrides_that_cannot_be_split_are_named_in_one_line(tool, override, words, capsys):
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(f'adadedup_mm.cli.{tool}').main(
            ['config.py', '--cfg-options', 'a=1', override]
        )
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count('\n') == 1
    assert error.startswith(f'error: --cfg-options {override}: ') and words in error


def test_a_config_without_the_dict_is_told_what_to_add():
    with pytest.raises(UserError, match='_base_/adadedup.py'):
        resolve_options({})


def test_choose_accepts_valid_names():
    choose('a', ['a', 'b'], 'x')


def test_types_may_be_classes_as_in_pure_python_configs():
    from adadedup_mm.features import PixelEmbedder

    options = resolve_options(dict(adadedup=dict(embedder=dict(type=PixelEmbedder, size=8))))
    assert options.embedder == dict(type='PixelEmbedder', size=8)


@pytest.mark.parametrize(
    'value, words',
    [
        (lambda: 1, 'adadedup.embedder.a.1 is <function'),
        ({1: 2}, 'adadedup.embedder.a.1 has the key 1'),
        (float('nan'), 'adadedup.embedder.a.1 is nan'),
        ({'x': {'a', 'b'}}, 'adadedup.embedder.a.1.x is {'),
        (Path('a'), 'adadedup.embedder.a.1 is PosixPath'),
    ],
)
def test_values_that_no_file_gives_back_are_named(value, words):
    with pytest.raises(UserError) as error:
        resolve_options(dict(adadedup=dict(embedder=dict(type='PixelEmbedder', a=[0, value]))))
    assert words in str(error.value)
