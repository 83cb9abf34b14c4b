"""Every kind of component that a config can name; they register themselves.

Add your own with ``@EMBEDDERS.register_module()`` and a ``custom_imports`` entry in the config.
What a component must have is a Protocol beside ours: ``features.ImageEmbedder``,
``clusters.Clusterer``, ``density.DensityMethod``, ``captions.Captioner``, ``strategies.Strategy``,
``dynamic.Policy``, ``probe.Backbone``.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from mmengine.registry import Registry

from .base.checks import choose
from .base.errors import UserError

EMBEDDERS = Registry('embedder', scope='adadedup_mm', locations=['adadedup_mm.features'])
CLUSTERERS = Registry('clusterer', scope='adadedup_mm', locations=['adadedup_mm.clusters'])
DENSITIES = Registry('density', scope='adadedup_mm', locations=['adadedup_mm.density'])
CAPTIONERS = Registry('captioner', scope='adadedup_mm', locations=['adadedup_mm.captions'])
STRATEGIES = Registry('strategy', scope='adadedup_mm', locations=['adadedup_mm.strategies'])
BACKBONES = Registry('probe backbone', scope='adadedup_mm', locations=['adadedup_mm.probe'])
POLICIES = Registry('policy', scope='adadedup_mm', locations=['adadedup_mm.dynamic.policies'])


def build(registry: Registry, options: dict[str, Any], where: str) -> Any:
    """Builds ``options['type']`` with the other options as arguments.

    mmengine's ``Registry.build`` is not used because it looks our kinds up in the user's default
    scope first.

    Raises:
        UserError: the type is unknown (the message lists the valid names), or does not take these
            arguments.
    """
    arguments = dict(options)
    kind = find(registry, arguments.pop('type'), where)
    try:
        return kind(**arguments)
    except TypeError as error:
        raise UserError(
            f'{where}: {error}; to replace a type that a _base_ config sets, give the dict '
            "'_delete_=True'"
        ) from error


def bind(registry: Registry, options: dict[str, Any] | str, where: str) -> Callable[[Any], Any]:
    """A registered function of one argument, its other ones bound to the options.

    Args:
        registry: where the function is.
        options: its name, or a dict with the name as ``type``.
        where: for the messages.

    Raises:
        UserError: the name is unknown, or the function does not take these arguments.
    """
    arguments = dict(type=options) if isinstance(options, str) else dict(options)
    function = find(registry, arguments.pop('type'), where)
    try:
        inspect.signature(function).bind(None, **arguments)
    except TypeError as error:
        raise UserError(f'{where}: {error}') from error
    return functools.partial(function, **arguments)


def find(registry: Registry, name: str, where: str) -> Any:
    """The registered class or function of that name.

    Raises:
        UserError: there is none, or a user's component has the name of one of ours.
    """
    try:
        registry.import_from_location()
    except KeyError as error:
        raise UserError(f'{where}: {error.args[0]}: give yours another name') from error
    if name not in registry.module_dict:
        choose(name, registry.module_dict, f'{where} type')
    return registry.module_dict[name]
