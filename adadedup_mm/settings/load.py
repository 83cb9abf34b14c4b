"""Loading configs that name ours, and resolving where a run works."""

from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.utils import get_installed_path

from ..base.errors import UserError
from ..base.words import first_line


def load_config(path: str | Path, overrides: dict[str, Any] | None = None) -> Config:
    """Reads a config file, and imports its ``custom_imports``.

    Its bases may be written as ``adadedup_mm::...``. mmengine only resolves ``package::`` for
    packages of a fixed table, so ours is entered there first.

    Args:
        path: a config file, or ``package::file`` of an installed package.
        overrides: what ``--cfg-options`` gave.

    Raises:
        UserError: the file is missing, is no valid config, or an override does not fit.
    """
    MODULE2PACKAGE.setdefault('adadedup_mm', 'adadedup_mm')
    try:
        config = Config.fromfile(_resolve(str(path)))
        _drop_our_scope(config._cfg_dict)
        config.merge_from_dict(overrides or {})
    except (Exception, SystemExit) as error:  # a config is code, which may raise anything
        # A KeyError's own text has quotes around that of its argument.
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        details = first_line(text) or 'no details'
        raise UserError(f'config {path}: {type(error).__name__}: {details}') from error

    return config


def _drop_our_scope(value: Any) -> None:
    """Removes the mark of ``adadedup_mm::`` that mmengine sets: no registry has that name."""
    if isinstance(value, dict):
        if value.get('_scope_') == 'adadedup_mm':
            dict.pop(value, '_scope_')
        for item in dict.values(value):
            _drop_our_scope(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _drop_our_scope(item)


def _resolve(path: str) -> str:
    if '::' not in path:
        return path
    package, name = path.split('::', 1)
    module = MODULE2PACKAGE.get(package, package)
    folder = Path(get_installed_path(module), '.mim', 'configs')
    return str(folder / name)


def default_work_dir(config: Config, path: str | Path) -> str:
    """The work dir by mmdet's rule: the config's own, else ``work_dirs/<config name>``."""
    usual = Path('work_dirs') / Path(path).stem
    return config.get('work_dir') or str(usual)
