"""What the labels of a dataset mean: names belong to labels, not to places in ``metainfo``."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mmengine.dataset import BaseDataset

from ..annotations.coco import CocoIndex, category_text
from ..annotations.data_list import read_metainfo
from ..base.errors import UserError
from ..base.words import some
from .building import FILE_METAINFO

# More classes without names are a mistake.
_MOST_LABELS = 100_000
# Longer lists of classes are not written out in a message.
_MOST_NAMES = 12
# What a phrase of a caption is an example of: the number of its region is no class.
REGION = 'object'


class Meanings(NamedTuple):
    """What the labels of a dataset mean.

    Attributes:
        names: of each label, from 0 on; equal names are one class.
        note: one line where the training is about to call objects by other names; '' otherwise.
    """

    names: list[str]
    note: str


def given_classes(dataset: Any, where: str) -> list[str] | None:
    """The names of classes in a dataset's metainfo; None where there are none.

    Raises:
        UserError: they are no list of texts or numbers.
    """
    classes = dataset.metainfo.get('classes')
    if classes is None:
        return None

    names = _texts(classes)
    if names is None:
        raise UserError(
            f'{where}: classes of the metainfo is {classes!r}, but must be a list of names'
        )

    return names


def label_meanings(
    dataset: Any, labels: np.ndarray, where: str, ann_file: Path | None, index: CocoIndex | None
) -> Meanings:
    """The name of each label, as the dataset's own mapping from categories to labels has it.

    Args:
        dataset: loaded.
        labels: (m,) int32 of the objects that count.
        where: for the messages.
        ann_file: its annotation file.
        index: of a COCO json.

    Raises:
        UserError: an object has a label without a name, or two categories of one name shift the
            labels of others.
    """
    given = given_classes(dataset, where)
    used = np.unique(labels).tolist()
    needed = max(used, default=-1) + 1
    if getattr(dataset, 'dataset_mode', '') == 'VG':
        return Meanings([REGION] * needed, '')

    own = _own_names(dataset, ann_file, index)
    if own is None:
        return Meanings(_unique(_plain_names(given, needed, where)), '')
    if index is not None:
        _check_twins(dataset.cat_ids, own, given or [], used, f'{where}: ', ann_file)

    names = own if given is None else _reconciled(own, given)
    _check_range(names, own if given is None else given, needed, where, ann_file)
    # Of categories with one name all but one have no objects here.
    unique = names if index is not None else _unique(names)

    return Meanings(unique, _mismatch(names, given or own, used, where, ann_file))


def _own_names(dataset: Any, ann_file: Path | None, index: CocoIndex | None) -> list[str] | None:
    """Names in the order of the labels; None where only ``metainfo`` has names."""
    if index is not None:
        return [index.names.get(category, str(category)) for category in dataset.cat_ids]
    if getattr(dataset, 'dataset_mode', '') == 'OD':
        return _of_label_map(dataset.label_map)
    if isinstance(getattr(dataset, 'label_mapping', None), Mapping):
        return _of_infos(dataset)
    if isinstance(getattr(dataset, 'folder_to_idx', None), Mapping):
        return sorted(dataset.folder_to_idx, key=dataset.folder_to_idx.__getitem__)

    loads = getattr(type(dataset), 'load_data_list', None)
    if ann_file and loads is BaseDataset.load_data_list:
        metainfo = getattr(dataset, FILE_METAINFO, None) or read_metainfo(ann_file)
        return _texts(metainfo.get('classes'))

    return None


def _of_label_map(label_map: Mapping[Any, Any]) -> list[str]:
    """ODVG's ``{"0": "car"}``; numbers without an entry are called by themselves."""
    numbers = {int(key): category_text(name) or str(name) for key, name in label_map.items()}
    return [numbers.get(number, str(number)) for number in range(max(numbers, default=-1) + 1)]


def _of_infos(dataset: Any) -> list[str] | None:
    """What mmdet3d's infos call each label after ``label_mapping``, if they say it."""
    categories = dataset.metainfo.get('categories')
    classes = dataset.metainfo.get('classes')
    if not isinstance(categories, Mapping) or not classes:
        return None

    written = {number: name for name, number in categories.items() if isinstance(number, int)}
    names = [str(name) for name in classes]
    for number, label in dataset.label_mapping.items():
        if 0 <= label < len(names) and isinstance(written.get(number), str):
            names[label] = written[number]

    return names


def _texts(classes: Any) -> list[str] | None:
    """A list of names as texts; None for anything else."""
    names: list[str] = []
    for name in classes if isinstance(classes, (list, tuple)) else [None]:
        text = category_text(name)
        if text is None:
            return None
        names.append(text)
    return names


def _plain_names(given: list[str] | None, needed: int, where: str) -> list[str]:
    if given is None and needed > _MOST_LABELS:
        raise UserError(
            f'{where}: an object has label {needed - 1}, and no names of classes are '
            'given: set metainfo=dict(classes=...)'
        )
    if given is None:
        return [str(label) for label in range(needed)]
    _check_range(given, given, needed, where, None)
    return given


def _reconciled(own: Sequence[str], given: Sequence[str]) -> list[str]:
    """The file's names, then those that only the config has.

    What the config merely calls otherwise keeps the config's name.
    """
    names = []
    for label, name in enumerate(own):
        is_renamed = label < len(given) and name not in given and given[label] not in own
        names.append(given[label] if is_renamed else name)
    return names + [name for name in given if name not in names]


def _check_range(
    names: Sequence[str], given: Sequence[str], needed: int, where: str, ann_file: Path | None
) -> None:
    if needed <= len(given):
        return
    label = needed - 1
    name = f' ({names[label]!r} of {ann_file})' if ann_file and label < len(names) else ''
    raise UserError(
        f'{where}: an object has label {label}{name}, but there are only {len(given)} classes: '
        'set metainfo=dict(classes=...) (label_map_file of an ODVGDataset) to the names of all '
        'labels'
    )


def _check_twins(
    ids: Sequence[Any],
    own: Sequence[str],
    given: Sequence[str],
    used: Sequence[int],
    where: str,
    ann_file: Path | None,
) -> None:
    """Raises UserError where categories of one name shift labels, or both have objects."""
    labels = defaultdict(list)
    for label, name in enumerate(own):
        labels[name].append(label)

    for name, twins in labels.items():
        if len(twins) == 1:
            continue
        spare = _spare(twins, used)
        # All labels after the one that would not be missed are one too high.
        shifted = [
            label
            for label in used
            if label > spare and list(given[label : label + 1]) != [own[label]]
        ]
        if shifted or set(twins) <= set(used):
            raise UserError(
                f'{where}{len(twins)} categories of {ann_file} are called {name!r} (ids '
                f'{some([ids[label] for label in twins])}), and mmdet gives each a label of its '
                f'own, up to {max(used)} where the config has {len(given)} '
                f'class{"es" if len(given) != 1 else ""}: rename or remove category {ids[spare]}'
            )


def _spare(twins: Sequence[int], used: Sequence[int]) -> int:
    """Which of some labels of one name would be missed least."""
    unused = [label for label in twins if label not in used]
    if len(unused) == len(twins):
        return twins[-1]
    return unused[0] if unused else twins[0]


def _mismatch(
    names: Sequence[str],
    given: Sequence[str],
    used: Sequence[int],
    where: str,
    ann_file: Path | None,
) -> str:
    """One line on objects that the training will know by another name; '' if there are none."""
    wrong = [label for label in used if names[label] != given[label]]
    if not wrong:
        return ''

    right = tuple(dict.fromkeys(names))
    if len(right) <= _MOST_NAMES:
        remedy = f'write metainfo=dict(classes={right!r})'
    else:
        remedy = 'list the classes of metainfo in the order of the file'

    if len(right) != len(given):
        remedy += f' and num_classes={len(right)}'

    label = wrong[0]
    others = f', and {len(wrong) - 1} more classes likewise' if len(wrong) > 1 else ''

    return (
        f'{where}: label {label} means {names[label]!r} in {ann_file or "its folders"}, but '
        f'{given[label]!r} in the metainfo, whose order does not change what labels mean: the '
        f'training will call {names[label]} {given[label]}{others}; {remedy}'
    )


def _unique(names: Sequence[str]) -> list[str]:
    """Two labels are two classes, even where a list of classes has the same name twice."""
    seen: set[str] = set()
    unique = []
    for label, name in enumerate(names):
        unique.append(f'{name} (label {label})' if name in seen else name)
        seen.add(name)
    return unique


def contradictions(parts: Sequence[tuple[str, Sequence[str], np.ndarray]]) -> str:
    """One line where datasets of one training give a label to different classes; '' if none do.

    Args:
        parts: for each dataset what to call it, the names of its labels, and the (m,) labels of
            its objects.
    """
    first: dict[int, tuple[str, str]] = {}
    for where, names, labels in parts:
        for label in np.unique(labels).tolist():
            other, name = first.setdefault(label, (where, names[label]))
            if name != names[label]:
                return (
                    f'label {label} means {name!r} in {other}, but {names[label]!r} in '
                    f'{where}: a training on both takes them for one class; give both files '
                    'the same categories, in the order of the classes in the metainfo'
                )

    return ''
