"""Modules of version 0.1 under their old names, for code of users that imports them."""

import importlib
import importlib.abc
import importlib.util
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

PACKAGE = 'adadedup_mm'
# Where the modules at the package's top level are now.
MOVED = {
    'compat': 'base.compat',
    'config': 'settings.load',
    'config_text': 'settings.config_text',
    'dry_run': 'pruning.dry_run',
    'errors': 'base.errors',
    'estimate': 'pruning.estimate',
    'export': 'workdir.export',
    'files': 'base.files',
    'guards': 'selection.class_floor',
    'options': 'settings.options',
    'pipeline': 'pruning.prune',
    'progress': 'base.progress',
    'run': 'strategies.run',
    'scenes': 'selection.scenes',
    'split': 'density.split',
    'tables': 'workdir.tables',
    'update': 'pruning.update',
    'vlm_sse': 'strategies.captions',
}


class OldNames(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports an old name as the module that it has become; for ``sys.meta_path``."""

    def __init__(self) -> None:
        self._own_specs: dict[str, ModuleSpec | None] = {}

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        package, _, name = fullname.rpartition('.')
        if package != PACKAGE or name not in MOVED:
            return None
        return importlib.util.spec_from_loader(fullname, self)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        _, _, name = spec.name.rpartition('.')
        place = f'{PACKAGE}.{MOVED[name]}'
        warnings.warn(f'{spec.name} is {place} now', DeprecationWarning, stacklevel=2)
        module = importlib.import_module(place)
        self._own_specs[place] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # It has run under its own name, which the import system has overwritten.
        module.__spec__ = self._own_specs.pop(module.__name__)
