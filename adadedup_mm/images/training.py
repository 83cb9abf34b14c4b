"""What a training config says about how its images are read."""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mmengine.registry import TRANSFORMS

from .reader import SHORTEST_RESIZE, Reader

Step = Mapping[str, Any]


def training_reader(config: Mapping[str, Any]) -> Reader:
    """How a training reads its images, as the first loader in its pipelines says.

    Args:
        config: a training config; without such a loader, mmcv's ``LoadImageFromFile`` is taken.
    """
    dataset = (config.get('train_dataloader') or {}).get('dataset')
    return reader_of(dataset, config.get('default_scope'))


def reader_of(dataset: Any, scope: str | None = None) -> Reader:
    """The same for the dict of a dataset.

    Args:
        dataset: with its wrappers and pipelines.
        scope: the config's ``default_scope``.
    """
    steps = list(_steps(dataset))
    longest = min([SHORTEST_RESIZE, *(side for step in steps for side in _resized_to(step))])
    for step in steps:
        name = _name(step)
        if name.startswith('Load') or 'LoadMultiView' in name:
            settings = _loader_settings(step, name, scope)
            if settings is not None:
                return Reader(*settings, longest=longest)

    return Reader(longest=longest)


def _steps(node: Any) -> Iterator[Step]:
    """All steps of the pipelines in a dataset's dict, inner datasets first."""
    if isinstance(node, Mapping):
        inner = [node[key] for key in ('dataset', 'datasets') if key in node]
        own = [value for key, value in node.items() if key not in ('dataset', 'datasets')]
        for value in (*inner, *own):
            yield from _steps(value)
        if 'type' in node:
            yield node
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _steps(value)


def _name(step: Step) -> str:
    kind = step['type']
    return str(getattr(kind, '__name__', kind)).rpartition('.')[-1]


def _loader_settings(step: Step, name: str, scope: str | None) -> tuple[str, str] | None:
    """``color_type`` and backend of a step; None if it loads no image files."""
    if 'Image' not in name or 'NDArray' in name or 'Annotation' in name:
        return None
    defaults = _defaults(step['type'], step.get('_scope_', scope))
    color_type = step.get('color_type', defaults.get('color_type', 'color'))
    # BEVFusion's loader decodes with Pillow, and takes no argument that says so.
    usual = 'pillow' if name.startswith('BEVLoad') else 'cv2'
    backend = step.get('imdecode_backend', defaults.get('imdecode_backend', usual))
    return str(color_type), str(backend or 'cv2')


def _defaults(kind: Any, scope: str | None) -> dict[str, Any]:
    """Default values of the arguments of a step's class; none if it is not registered."""
    try:
        with TRANSFORMS.switch_scope_and_registry(scope) as registry:
            found = registry.get(kind) if isinstance(kind, str) else kind
        parameters = inspect.signature(found).parameters
    except Exception:  # a name with dots is imported, which may raise anything
        return {}

    return {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.default is not parameter.empty
    }


def _resized_to(step: Step) -> list[int]:
    """The lengths of the longer side that a step resizes to while it keeps the aspect ratio."""
    name = _name(step)
    if name == 'ResizeShortestEdge':
        return _sides(step.get('max_size'))
    if 'Resize' not in name or not step.get('keep_ratio', name == 'FixScaleResize'):
        return []

    scales = step.get('scales', step.get('scale'))
    pairs = scales if _is_list(scales) and any(map(_is_list, scales)) else [scales]
    longest = [max(sides) for sides in map(_sides, pairs) if sides]
    ratios = _numbers(step.get('ratio_range'))
    smallest = min(ratios, default=1.0)

    return [max(1, int(side * smallest)) for side in longest]


def _sides(value: Any) -> list[int]:
    return [int(number) for number in _numbers(value) if number >= 1]


def _numbers(value: Any) -> list[float]:
    """The numbers in a value, which may be one; nothing where it holds anything else."""
    values: Iterable[Any] = value if _is_list(value) else [value]
    numbers = [item for item in values if type(item) in (int, float)]
    return [float(number) for number in numbers if 0 < number < 1e9]


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))
