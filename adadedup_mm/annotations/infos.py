"""Info files of 3D datasets: mmdet3d 1.x (``metainfo``, ``data_list``) and BEVFormer's (``infos``, ``metadata``)."""

import pickle
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..files import atomic_open
from .json_records import Counts
from .pickles import collector_paused, load_pickle

# Python 3.4 reads it, and so do all code bases that read info files.
PROTOCOL = 4


def record_id(record: Mapping[str, Any]) -> str | None:
    """What a frame is called: ``token``, else ``sample_idx``; None if it has neither."""
    named = [record[key] for key in ('token', 'sample_idx') if record.get(key) is not None]
    return str(named[0]) if named else None


def info_records(content: Any, path: str | Path) -> list[dict[str, Any]]:
    """The records of an info file's content: its ``data_list``, or its ``infos``.

    Raises:
        UserError: it is no info file, of an older generation, of two at once, an id is no text or number, or two
            records have the same one.
    """
    keys = [key for key in ('data_list', 'infos') if isinstance(content, Mapping) and key in content]
    if len(keys) != 1:
        found = f'a dict with {", ".join(map(str, content)) or "nothing"}' if isinstance(content, Mapping) else (
            f'a {type(content).__name__}')
        raise UserError(f"{path} holds {found} instead of 'data_list' (mmdet3d 1.x) or 'infos' (BEVFormer): make it "
                        "with mmdet3d's tools/create_data.py, or convert it with its update_infos_to_v2.py")
    records = content[keys[0]]
    if not isinstance(records, list):
        raise UserError(f'{path}: {keys[0]!r} is a {type(records).__name__} instead of a list')
    legacy = keys[0] == 'infos'
    for position, record in enumerate(records):
        # Either generation names its cameras' dict in its own way.
        if not isinstance(record, Mapping) or ('images' if legacy else 'cams') in record:
            raise UserError(f'{path}: record {position} of {keys[0]!r} is not of the same generation as the file: do '
                            'not mix infos of mmdet3d 1.x with older ones')
        if record_id(record) is None:
            raise UserError(f"{path}: record {position} of {keys[0]!r} has neither 'token' nor 'sample_idx'")
        for key in ('token', 'sample_idx', 'prev', 'next'):
            if not isinstance(record.get(key), (str, int, np.integer, type(None))):
                raise UserError(f'{path}: {key!r} of record {position} of {keys[0]!r} is a {type(record[key]).__name__}'
                                ', but must be a text or a whole number')
    repeated = [name for name, count in Counter(map(record_id, records)).items() if count > 1]
    if repeated:
        raise UserError(f'{path}: {len(repeated)} ids appear more than once, first {repeated[0]}; give every frame an '
                        'id of its own')
    return records


@collector_paused()
def rewrite_infos(source: str | Path, target: str | Path, keep_ids: Collection[str], temporal: str = 'relink',
                  trust: bool = False) -> Counts:
    """Writes an info file with only some of its frames, in the file's order; all else stays as it is.

    Args:
        source: the info file.
        target: the file to write, atomically.
        keep_ids: the frames that stay (see ``record_id``).
        temporal: what becomes of ``prev`` and ``next`` in files that have them: ``'relink'`` repairs them (see
            ``relink``), ``'keep'`` leaves them.
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
        raise UserError(f'{source} has {len(kept)} frames for {len(keep)} ids to keep: it changed since it was read')
    if temporal == 'relink':
        kept = relink(records, kept)
    key = 'infos' if 'infos' in content else 'data_list'
    with atomic_open(target) as file:
        pickle.dump({**content, key: kept}, file, protocol=PROTOCOL)
    return Counts(len(records), len(kept))


def relink(records: Sequence[dict[str, Any]], kept: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Joins the chains of ``prev`` and ``next`` over the frames that are gone.

    A link leads to the nearest kept frame in its direction within the scene, and is empty where there is none; no link
    leads out of the file. ``frame_idx`` still says where in the scene a frame was.

    Args:
        records: all frames.
        kept: those that stay, some of ``records``.

    Returns:
        The kept frames; those whose links change are copies.
    """
    by_token = {record.get('token'): record for record in records}
    keep = {record.get('token') for record in kept}
    nearest: dict[str, dict[Any, str]] = {key: {} for key in ('prev', 'next')}

    def find(record: dict[str, Any], key: str) -> str:
        """Follows links, and remembers for every frame on the way where they lead."""
        way: list[Any] = []
        scene, token, visited = record.get('scene_token'), record[key], {record.get('token')}
        while token and token not in keep and token not in visited and token in by_token:
            if token in nearest[key]:
                token = nearest[key][token]
                break
            visited.add(token)
            way.append(token)
            token = by_token[token].get(key, '')
        end = token if token in keep and by_token[token].get('scene_token') == scene else ''
        nearest[key].update(dict.fromkeys(way, end))
        return end

    result = []
    for record in kept:
        links: dict[str, Any] = {key: find(record, key) for key in ('prev', 'next') if key in record}
        changed = any(record[key] != link for key, link in links.items())
        result.append({**record, **links} if changed else record)
    return result
