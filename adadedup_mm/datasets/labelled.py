"""Whether anything is known of a dataset's objects: some parts of a training set have no labels."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mmengine.registry import TRANSFORMS

from .sources import ConfigPath, type_name, value_at

# Steps of pipelines from elsewhere may load labels under any name.
_KNOWN_PACKAGES = ('mmdet', 'mmcv', 'mmengine')


def loads_labels(config: Mapping[str, Any], path: ConfigPath) -> bool:
    """Whether the pipelines of an inner dataset and of the wrappers around it load its annotations.

    Args:
        config: the training config; its default scope holds.
        path: of the inner dataset's dict.
    """
    levels = [value_at(config, path[:depth]) for depth in range(1, len(path) + 1)]
    pipelines = [level.get('pipeline') for level in levels if isinstance(level, Mapping)]
    steps = [step for pipeline in pipelines for step in _steps(pipeline)]
    names = [type_name(step) for step in steps]
    if 'LoadEmptyAnnotations' in names:
        return False
    if any(name.startswith('Load') and 'Annotation' in name for name in names):
        return True
    if 'MultiBranch' in names:
        return False

    return 'PackDetInputs' not in names or not all(_is_known(step) for step in steps)


def _steps(node: Any) -> Iterator[Mapping[str, Any]]:
    """All steps of a pipeline, also those inside others."""
    if isinstance(node, Mapping):
        if 'type' in node:
            yield node
        for value in node.values():
            yield from _steps(value)
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for value in node:
            yield from _steps(value)


def _is_known(step: Mapping[str, Any]) -> bool:
    kind = step['type']
    if isinstance(kind, str):
        with TRANSFORMS.switch_scope_and_registry(step.get('_scope_')) as registry:
            kind = registry.get(kind)
    return str(getattr(kind, '__module__', '')).split('.')[0] in _KNOWN_PACKAGES


def have_labels(infos: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the data infos of a dataset have labels, or none because they show nothing.

    Captions are none, nor are masks that only a text describes.
    """
    can_have, described = False, False
    for info in infos:
        instances = info.get('instances')
        if 'gt_label' in info or any('bbox_label' in instance for instance in instances or ()):
            return True
        can_have = can_have or instances is not None
        described = described or bool(instances)

    return can_have and not described
