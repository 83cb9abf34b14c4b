"""Why a dataset has no samples, or none of its annotations counts, in words."""

import contextlib
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..annotations.coco import CocoIndex
from ..annotations.uncounted import NO_ANNOTATIONS, explain_uncounted
from ..base.words import some
from .objects import count_ignored

# Files that are opened to see what their objects are called.
_FILES = 100


def why_empty(dataset: Any, ann_file: Path | None, index: CocoIndex | None) -> str:
    """Why no sample of a dataset is left."""
    if getattr(dataset, '_indices', None) in ([], (), 0):
        return 'its indices choose no sample'
    reason = explain_uncounted(ann_file, dataset.cat_ids) if index is not None and ann_file else ''
    if reason:
        return f'{ann_file}: {reason}'
    if not getattr(dataset, 'filter_cfg', None):
        return f'there is no sample in {ann_file}'
    return f'no sample of {ann_file} passes its filter_cfg'


def why_uncounted(
    dataset: Any, infos: Sequence[Mapping[str, Any]], ann_file: Path | None, index: CocoIndex | None
) -> str:
    """Why none of a dataset's annotations counts; '' where it has none."""
    if index is not None and ann_file:
        reason = explain_uncounted(ann_file, dataset.cat_ids)
        return '' if reason == NO_ANNOTATIONS else reason

    total, ignored = count_ignored(infos)
    if total and ignored == total:
        return f'all {total} objects are marked to be ignored (crowds, difficult or tiny ones)'
    if total:
        return f'none of its {total} objects has a label'

    names = _names_in_xml(infos)
    if names:
        return (
            f'its objects are called {some(names)}, and the classes are '
            f'{some(dataset.metainfo["classes"])}: set metainfo=dict(classes=...) to names of '
            'the files'
        )

    return ''


def _names_in_xml(infos: Sequence[Mapping[str, Any]]) -> list[str]:
    names: dict[str, None] = {}
    for info in infos[:_FILES]:
        # The dataset has read these files before.
        with contextlib.suppress(OSError, KeyError, ElementTree.ParseError):
            found = ElementTree.parse(info['xml_path']).iterfind('object/name')
            names |= dict.fromkeys(str(element.text) for element in found)
    return list(names)
