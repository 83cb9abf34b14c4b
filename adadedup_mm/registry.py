"""Every kind of component a config can name, and the names that come with the package.

Add your own with ``@EMBEDDERS.register_module()`` and a ``custom_imports`` entry in the config.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from mmengine.registry import Registry

from . import strategies, vlm_sse
from .captions import AnnotationCaptioner, CaptionFile
from .clusters import FixedClusterer, SphericalKMeans
from .density import KCenter, SemDeDup
from .errors import UserError
from .features import OfflineEmbedder, OpenCLIPEmbedder, PixelEmbedder, RandomEmbedder, TimmEmbedder
from .options import choose

EMBEDDERS = Registry('embedder', scope='adadedup_mm')
CLUSTERERS = Registry('clusterer', scope='adadedup_mm')
DENSITIES = Registry('density', scope='adadedup_mm')
STRATEGIES = Registry('strategy', scope='adadedup_mm')
CAPTIONERS = Registry('captioner', scope='adadedup_mm')

for registry, components in (
    (EMBEDDERS, (OpenCLIPEmbedder, TimmEmbedder, OfflineEmbedder, PixelEmbedder, RandomEmbedder)),
    (CLUSTERERS, (SphericalKMeans, FixedClusterer)),
    (DENSITIES, (KCenter, SemDeDup)),
    (CAPTIONERS, (AnnotationCaptioner, CaptionFile)),
):
    for component in components:
        registry.register_module(module=component)
for function in (strategies.adadedup, strategies.clip_dedup, strategies.el2n, strategies.forgetting, strategies.grand,
                 strategies.loss_topk, strategies.random, strategies.tfdp, strategies.uniform_stride):
    STRATEGIES.register_module(module=function)
STRATEGIES.register_module(module=vlm_sse.vlm_sse)


def build(registry: Registry, options: dict[str, Any], where: str) -> Any:
    """Builds ``options['type']`` with the other options as arguments.

    mmengine's ``Registry.build`` is not used because it looks our kinds up in the user's default scope first.

    Raises:
        UserError: the type is unknown (the message lists the valid names), or does not take these arguments.
    """
    arguments = dict(options)
    kind = find(registry, arguments.pop('type'), where)
    try:
        return kind(**arguments)
    except TypeError as error:
        raise UserError(f"{where}: {error}; to replace a type that a _base_ config sets, give the dict '_delete_=True'"
                        ) from error


def bind(registry: Registry, options: dict[str, Any] | str, where: str) -> Callable[[Any], Any]:
    """A registered function of one argument, with the options beside ``type`` as its other arguments.

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
        UserError: there is none.
    """
    if name not in registry.module_dict:
        choose(name, registry.module_dict, f'{where} type')
    return registry.module_dict[name]
