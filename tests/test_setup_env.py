"""tools/setup_env.sh on machines that lack something: one clear line, nothing left behind."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMMANDS = ['awk', 'bash', 'cat', 'df', 'dirname', 'flock', 'grep', 'sha256sum', 'uname']


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose path holds a space, with nothing set up."""
    root = tmp_path / 'a checkout'
    shutil.copytree(ROOT / 'requirements', root / 'requirements')
    (root / 'tools').mkdir()
    for name in ('requirements.txt', 'pyproject.toml', 'tools/setup_env.sh'):
        shutil.copy(ROOT / name, root / name)
    return root


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The only folder of the PATH: what every Linux has, and no Python."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    for name in COMMANDS:
        if path := shutil.which(name):
            (folder / name).symlink_to(path)
    return folder


def add_command(machine: Path, name: str, body: str) -> None:
    (machine / name).unlink(missing_ok=True)
    (machine / name).write_text(f'#!{shutil.which("bash")}\n{body}\n')
    (machine / name).chmod(0o755)


def set_up(checkout: Path, machine: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {
        key: value for key, value in os.environ.items() if key not in ('PYTHON', 'STACK')
    }
    return subprocess.run(
        ['bash', checkout / 'tools' / 'setup_env.sh'],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment | {'PATH': str(machine)} | variables,
    )


def assert_one_line(result: subprocess.CompletedProcess[str], checkout: Path, *words: str) -> None:
    (line,) = result.stderr.splitlines()
    assert line.startswith('error: ')
    assert all(word in line for word in words), line
    assert result.returncode == 2
    assert not list(checkout.glob('.venv*'))


def test_says_that_python_is_missing(checkout: Path, machine: Path) -> None:
    add_command(machine, 'python3', 'exit 1')
    assert_one_line(set_up(checkout, machine), checkout, 'Python 3.11 is missing', 'PYTHON')


def test_says_which_python_a_current_torch_needs(checkout: Path, machine: Path) -> None:
    assert_one_line(
        set_up(checkout, machine, STACK='modern'), checkout, 'Python 3.12 is missing', 'PYTHON'
    )


def test_says_that_there_is_no_such_stack(checkout: Path, machine: Path) -> None:
    assert_one_line(
        set_up(checkout, machine, STACK='newest'), checkout, 'STACK=newest', 'stable', 'modern'
    )


def test_says_that_the_given_python_is_another_version(checkout: Path, machine: Path) -> None:
    assert_one_line(set_up(checkout, machine, PYTHON='cat'), checkout, 'PYTHON=cat')


def test_says_that_the_venv_module_is_missing(checkout: Path, machine: Path) -> None:
    add_command(machine, 'python3.11', '[[ "$*" == *version_info* ]]')
    assert_one_line(set_up(checkout, machine), checkout, 'venv', 'python3.11-venv')


def test_says_that_the_disk_is_too_small(checkout: Path, machine: Path) -> None:
    add_command(machine, 'python3.11', 'exit 0')
    add_command(
        machine, 'df', 'echo Filesystem 1024-blocks Used Available; echo /dev/x 9000000 1 3000000'
    )
    assert_one_line(set_up(checkout, machine), checkout, '2 GB', 'needs')


def test_leaves_an_environment_of_another_python_alone(checkout: Path, machine: Path) -> None:
    (checkout / '.venv' / 'bin').mkdir(parents=True)
    add_command(checkout / '.venv' / 'bin', 'python', '[[ "$*" != *version_info* ]]')
    result = set_up(checkout, machine)
    assert result.returncode == 2
    assert 'another Python' in result.stderr
    assert (checkout / '.venv' / 'bin' / 'python').exists()
