"""What is installed: wheels hold everything, configs resolve from them, the pins agree."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'adadedup_mm'


@pytest.fixture(scope='module')
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built in a copy of it."""
    source = tmp_path_factory.mktemp('source')
    for name in ('adadedup_mm', 'configs', 'tools'):
        shutil.copytree(ROOT / name, source / name, symlinks=True)
    for name in ('pyproject.toml', 'README.md', 'LICENSE', 'model-index.yml'):
        shutil.copy(ROOT / name, source / name)
    # Byte code beside a config must not be shipped.
    (source / 'configs' / '__pycache__').mkdir(exist_ok=True)
    (source / 'configs' / '__pycache__' / 'left.cpython-311.pyc').touch()
    target = tmp_path_factory.mktemp('wheel')
    subprocess.run(
        [
            sys.executable,
            '-m',
            'pip',
            'wheel',
            '.',
            '--quiet',
            '--no-deps',
            '--no-build-isolation',
            '--no-index',
            '-w',
            target,
        ],
        cwd=source,
        check=True,
    )
    (built,) = target.iterdir()
    return built


def shipped_files() -> set[str]:
    files = {path for path in PACKAGE.rglob('*') if path.is_file() and '.mim' not in path.parts}
    names = {path.relative_to(ROOT).as_posix() for path in files if path.suffix != '.pyc'}
    for folder, pattern in (
        ('configs', '**/*.py'),
        ('tools', '*.py'),
        ('tools', 'dist_*.sh'),
        ('tools', 'slurm_*.sh'),
    ):
        names |= {
            f'adadedup_mm/.mim/{path.relative_to(ROOT).as_posix()}'
            for path in (ROOT / folder).glob(pattern)
        }
    names |= {f'adadedup_mm/_base_/{path.name}' for path in (ROOT / 'configs/_base_').glob('*.py')}
    return names | {'adadedup_mm/.mim/model-index.yml'}


def test_wheel_holds_all_modules_templates_configs_and_tools_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if '.dist-info/' not in name}
    assert names == shipped_files()


def test_base_config_resolves_from_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / 'site'
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (tmp_path / 'user.py').write_text("_base_ = ['adadedup_mm::_base_/adadedup.py']\n")
    code = (
        'import adadedup_mm, mmengine.config.utils as utils; from mmengine.config import Config; '
        "utils.MODULE2PACKAGE['adadedup_mm'] = 'adadedup_mm'; "
        "print(adadedup_mm.__file__, Config.fromfile('user.py').adadedup.keep_ratio)"
    )
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {'PYTHONPATH': str(site)},
        check=True,
    )
    assert result.stdout.split() == [str(site / 'adadedup_mm' / '__init__.py'), '0.8']


def test_pure_python_configs_resolve_from_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / 'site'
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (tmp_path / 'user.py').write_text(
        'from mmengine.config import read_base\nwith read_base():\n'
        '    from adadedup_mm._base_.adadedup_offline import *\n'
        'adadedup.update(keep_ratio=.25)\n'
    )
    code = (
        "from mmengine.config import Config; config = Config.fromfile('user.py'); "
        'print(config.adadedup.keep_ratio, config.adadedup.embedder.type, config.runner_type)'
    )
    result = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {'PYTHONPATH': str(site)},
        check=True,
    )
    assert result.stdout.split() == ['0.25', 'OfflineEmbedder', 'adadedup_mm.engine.AdaDeDupRunner']


def test_a_checkout_offers_the_same_files_through_links() -> None:
    assert (PACKAGE / '_base_').resolve() == ROOT / 'configs/_base_'
    for name in ('configs', 'tools', 'model-index.yml'):
        assert (PACKAGE / '.mim' / name).resolve() == ROOT / name


def pins(path: Path) -> dict[str, str]:
    lines = [
        line for line in path.read_text().splitlines() if line and not line.startswith(('#', '-'))
    ]
    requirements = [Requirement(line) for line in lines]
    return {
        canonicalize_name(one.name): str(one.specifier).removeprefix('==') for one in requirements
    }


def test_every_pin_is_that_of_the_lock_file() -> None:
    lock = pins(ROOT / 'requirements' / 'lock.txt')
    files = [
        ROOT / 'requirements.txt',
        ROOT / 'requirements' / 'tests.txt',
        ROOT / 'requirements' / 'mminstall.txt',
    ]
    for file in files:
        assert pins(file).items() <= lock.items()


def test_the_pinned_environment_fulfils_what_the_package_asks_for() -> None:
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    pinned = pins(ROOT / 'requirements.txt')
    for line in project['dependencies']:
        wanted = Requirement(line)
        assert wanted.specifier.contains(pinned[canonicalize_name(wanted.name)]), line


def test_distribution_is_not_named_like_the_module() -> None:
    """Otherwise mmengine looks for the files of an editable install in site-packages."""
    name = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['name']
    assert canonicalize_name(name) != canonicalize_name('adadedup_mm')
