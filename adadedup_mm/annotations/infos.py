"""Info files of 3D datasets: mmdet3d 1.x (``metainfo``, ``data_list``) and BEVFormer's (``infos``, ``metadata``)."""

import contextlib
import pickle
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..base.errors import UserError
from ..base.files import atomic_open
from .json_records import Counts
from .pickles import collector_paused, load_pickle

# Python 3.4 reads it, and so do all code bases that read info files.
PROTOCOL = 4
# Texts of more digits are tokens.
_MOST_DIGITS = 18
# What datasets can do without, under the names by which mmdet3d misses it.
_DISPENSABLE = {
    'velocities': "its objects have no velocity ('gt_velocity'): set with_velocity=False in the "
    'dataset',
    'bbox_3d_isvalid': "its objects have no 'valid_flag' ('bbox_3d_isvalid'): set "
    'use_valid_flag=False in the dataset',
    'num_lidar_pts': "its objects have no 'num_lidar_pts': set use_valid_flag=True in the dataset",
}
_LINKS = ('prev', 'next')
# What files write where a scene begins or ends.
_NO_LINK = ('', None, -1)

Key = int | str | None


def record_id(record: Mapping[str, Any]) -> str | None:
    """What a frame is called: ``token``, else ``sample_idx``; None if it has neither."""
    named = [record[key] for key in ('token', 'sample_idx') if record.get(key) is not None]
    return str(named[0]) if named else None


def as_key(value: Any) -> Key:
    """Numbers and texts of digits (KITTI's '000042') as numbers, other texts as they are, or None."""
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, str):
        is_number = value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS
        return int(value) if is_number else str(value)
    return None


def record_fault(error: BaseException | None) -> str:
    """What reading a record ran into, and what to do, in words."""
    missing = error.args[0] if isinstance(error, KeyError) and error.args else None
    if isinstance(missing, str) and missing in _DISPENSABLE:
        return f'{_DISPENSABLE[missing]}, or complete it'
    lines = str(error).strip().splitlines()
    reason = f'{type(error).__name__}: {lines[0]}' if lines else type(error).__name__
    return f'{reason}; correct it there, or take it out'


@contextlib.contextmanager
def naming_frame(place: str) -> Iterator[None]:
    """Turns whatever the values of a frame raise into a ``UserError`` that begins with ``place``."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        # What odd values raise depends on what they meet. An exception around another says less.
        raise UserError(f'{place}: {record_fault(error.__cause__ or error)}') from error


def check_pictures(records: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Raises UserError if a record of mmdet3d 1.x has no dict of ``images``."""
    for record in records:
        if not isinstance(record.get('images'), Mapping):
            raise UserError(
                f"{path}: frame {record_id(record)} has no 'images': pruning looks at "
                "pictures, so the infos must name them, as those of mmdet3d's "
                'tools/create_data.py do'
            )


def info_records(content: Any, path: str | Path) -> list[dict[str, Any]]:
    """The records of an info file's content: its ``data_list``, or its ``infos``.

    Raises:
        UserError: it is no info file, of an older generation, of two at once, an id is no text or
            number, or two records have the same one.
    """
    keys = [
        key for key in ('data_list', 'infos') if isinstance(content, Mapping) and key in content
    ]
    if len(keys) != 1:
        found = (
            f'a dict with {", ".join(map(str, content)) or "nothing"}'
            if isinstance(content, Mapping)
            else (f'a {type(content).__name__}')
        )
        raise UserError(
            f"{path} holds {found} instead of 'data_list' (mmdet3d 1.x) or 'infos' (BEVFormer): "
            "make it with mmdet3d's tools/create_data.py, or convert it with its "
            'update_infos_to_v2.py'
        )
    records = content[keys[0]]
    if not isinstance(records, list):
        raise UserError(f'{path}: {keys[0]!r} is a {type(records).__name__} instead of a list')
    legacy = keys[0] == 'infos'
    for position, record in enumerate(records):
        # Either generation names its cameras' dict in its own way.
        if not isinstance(record, Mapping) or ('images' if legacy else 'cams') in record:
            raise UserError(
                f'{path}: record {position} of {keys[0]!r} is not of the same generation as the '
                'file: do not mix infos of mmdet3d 1.x with older ones'
            )
        if record_id(record) is None:
            raise UserError(
                f"{path}: record {position} of {keys[0]!r} has neither 'token' nor 'sample_idx'"
            )
        for key in ('token', 'sample_idx', 'scene_token', 'prev', 'next'):
            if not isinstance(record.get(key), (str, int, np.integer, type(None))):
                raise UserError(
                    f'{path}: {key!r} of record {position} of {keys[0]!r} is a '
                    f'{type(record[key]).__name__}, but must be a text or a whole number'
                )
    repeated = [name for name, count in Counter(map(record_id, records)).items() if count > 1]
    if repeated:
        raise UserError(
            f'{path}: {len(repeated)} ids appear more than once, first {repeated[0]}; give every '
            'frame an id of its own'
        )
    return records


@collector_paused()
def rewrite_infos(
    source: str | Path,
    target: str | Path,
    keep_ids: Collection[str],
    temporal: str = 'relink',
    trust: bool = False,
) -> Counts:
    """Writes an info file with only some of its frames, in the file's order; all else stays as it is.

    Args:
        source: the info file.
        target: the file to write, atomically.
        keep_ids: the frames that stay (see ``record_id``).
        temporal: what becomes of ``prev`` and ``next`` in files that have them: ``'relink'``
            repairs them (see ``relink``), ``'keep'`` leaves them.
        trust: as for ``load_pickle``.

    Returns:
        How many frames there are, and how many were kept.

    Raises:
        UserError: it is no info file, or lacks one of the ids.
    """
    content = load_pickle(source, trust)
    records = info_records(content, source)
    keep = frozenset(keep_ids)
    kept = [record for record in records if record_id(record) in keep]
    if len(kept) != len(keep):
        raise UserError(
            f'{source} has {len(kept)} frames for {len(keep)} ids to keep: it changed since it was '
            'read'
        )
    if temporal == 'relink':
        kept = relink(records, kept)
    key = 'infos' if 'infos' in content else 'data_list'
    with atomic_open(target) as file:
        pickle.dump({**content, key: kept}, file, protocol=PROTOCOL)
    return Counts(len(records), len(kept))


def relink(
    records: Sequence[dict[str, Any]], kept: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Joins the chains of ``prev`` and ``next`` over the frames that are gone.

    A link leads to the nearest kept frame in its direction within the scene, and is empty where
    there is none; no link leads out of the file. Links are tokens, or values of ``sample_idx``.
    ``frame_idx`` still says where in the scene a frame was.

    Args:
        records: all frames.
        kept: those that stay, some of ``records``.

    Returns:
        The kept frames; those whose links change are copies.
    """
    id_key, end = _link_style(records)
    by_id = {as_key(record.get(id_key)): record for record in records}
    keep = {as_key(record.get(id_key)) for record in kept}
    nearest: dict[str, dict[Key, Key]] = {key: {} for key in _LINKS}

    def find(record: dict[str, Any], key: str) -> Key:
        """Follows links, and remembers for every frame on the way where they lead."""
        way: list[Key] = []
        scene, link = record.get('scene_token'), as_key(record[key])
        visited = {as_key(record.get(id_key))}
        while link in by_id and link not in keep and link not in visited:
            if link in nearest[key]:
                link = nearest[key][link]
                break
            visited.add(link)
            way.append(link)
            link = as_key(by_id[link].get(key))
        found = link if link in keep and by_id[link].get('scene_token') == scene else None
        nearest[key].update(dict.fromkeys(way, found))
        return found

    def written(link: Any, found: Key) -> Any:
        """The found frame's id in the way the link was written."""
        if found is None:
            return end
        own = by_id[found][id_key]
        return str(own) if isinstance(link, str) else own

    result = []
    for record in kept:
        found = {key: find(record, key) for key in _LINKS if key in record}
        moved = {key: link for key, link in found.items() if as_key(record[key]) != link}
        links = {key: written(record[key], link) for key, link in moved.items()}
        changed = {key: link for key, link in links.items() if record[key] != link}
        result.append({**record, **changed} if changed else record)
    return result


def _link_style(records: Sequence[Mapping[str, Any]]) -> tuple[str, Any]:
    """What links name frames by, ``'token'`` or ``'sample_idx'``, and what stands for no frame."""
    links = [record[key] for record in records for key in _LINKS if key in record]
    ids = {
        key: {as_key(record.get(key)) for record in records} - {None}
        for key in ('token', 'sample_idx')
    }
    hits = {key: sum(as_key(link) in known for link in links) for key, known in ids.items()}
    id_key = 'sample_idx' if hits['sample_idx'] > hits['token'] else 'token'
    ends = Counter(link for link in links if link in _NO_LINK and as_key(link) not in ids[id_key])
    return id_key, ends.most_common(1)[0][0] if ends else ''
