"""Info files of 3D datasets.

Those of mmdet3d 1.x have ``metainfo`` and ``data_list``, BEVFormer's ``infos`` and ``metadata``.
"""

import contextlib
import pickle
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..base.errors import UserError
from ..base.files import atomic_open
from ..base.words import error_words
from .formats import FORMATS, Counts, Lines
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
    for key in ('token', 'sample_idx'):
        name = record.get(key)
        if name is not None:
            return str(name)
    return None


def as_key(value: Any) -> Key:
    """A frame's number or name, to be compared with others.

    Numbers and texts of digits (KITTI's '000042') become numbers, other texts stay as they are;
    None for anything else.
    """
    if isinstance(value, (int, np.integer)):
        return int(value)
    if not isinstance(value, str):
        return None

    has_digits_only = value.isascii() and value.isdigit()
    if has_digits_only and len(value) <= _MOST_DIGITS:
        return int(value)

    return str(value)


def record_fault(error: BaseException | None) -> str:
    """What reading a record ran into, and what to do, in words."""
    missing = None
    if isinstance(error, KeyError) and error.args:
        missing = error.args[0]
    if isinstance(missing, str) and missing in _DISPENSABLE:
        return f'{_DISPENSABLE[missing]}, or complete it'
    return f'{error_words(error)}; correct it there, or take it out'


@contextlib.contextmanager
def naming_frame(place: str) -> Iterator[None]:
    """Turns what the values of a frame raise into a ``UserError`` that begins with ``place``."""
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
    list_key = _list_key(content, path)
    records = content[list_key]
    if not isinstance(records, list):
        raise UserError(f'{path}: {list_key!r} is a {type(records).__name__} instead of a list')

    for position, record in enumerate(records):
        _check_record(record, position, list_key, path)

    counts = Counter(map(record_id, records))
    repeated = [name for name, count in counts.items() if count > 1]
    if repeated:
        raise UserError(
            f'{path}: {len(repeated)} ids appear more than once, first {repeated[0]}; give every '
            'frame an id of its own'
        )

    return records


def _list_key(content: Any, path: str | Path) -> str:
    """Under which key an info file has its records."""
    keys = []
    found = f'a {type(content).__name__}'
    if isinstance(content, Mapping):
        keys = [key for key in ('data_list', 'infos') if key in content]
        found = f'a dict with {", ".join(map(str, content)) or "nothing"}'

    if len(keys) != 1:
        raise UserError(
            f"{path} holds {found} instead of 'data_list' (mmdet3d 1.x) or 'infos' (BEVFormer): "
            "make it with mmdet3d's tools/create_data.py, or convert it with its "
            'update_infos_to_v2.py'
        )

    return keys[0]


def _check_record(record: Any, position: int, list_key: str, path: str | Path) -> None:
    # Either generation names its cameras' dict in its own way.
    key_of_others = 'images' if list_key == 'infos' else 'cams'
    if not isinstance(record, Mapping) or key_of_others in record:
        raise UserError(
            f'{path}: record {position} of {list_key!r} is not of the same generation as the '
            'file: do not mix infos of mmdet3d 1.x with older ones'
        )
    if record_id(record) is None:
        raise UserError(
            f"{path}: record {position} of {list_key!r} has neither 'token' nor 'sample_idx'"
        )

    for key in ('token', 'sample_idx', 'scene_token', *_LINKS):
        value = record.get(key)
        if value is not None and not isinstance(value, (str, int, np.integer)):
            raise UserError(
                f'{path}: {key!r} of record {position} of {list_key!r} is a '
                f'{type(value).__name__}, but must be a text or a whole number'
            )


@FORMATS.register_module('infos')
class InfosFormat:
    """Pickled infos of frames."""

    def recognises(self, lines: Lines) -> bool:
        """Whether frames were read from a pickle."""
        return lines.are_frames and lines.file.suffix in ('.pkl', '.pickle')

    def addresses(self, lines: Lines) -> Sequence[str]:
        """The names of the frames (see ``record_id``)."""
        return lines.names

    def rewrite(
        self, source: Path, target: Path, keep: Sequence[str], temporal: str, trust: bool
    ) -> Counts:
        """See ``Format`` and ``rewrite_infos``."""
        return rewrite_infos(source, target, keep, temporal, trust)


@collector_paused()
def rewrite_infos(
    source: str | Path,
    target: str | Path,
    keep_ids: Collection[str],
    temporal: str = 'relink',
    trust: bool = False,
) -> Counts:
    """Writes an info file with only some of its frames, in the file's order.

    All else stays as it is.

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
    chains = _Chains(records, kept)
    result = []
    for record in kept:
        changed = {}
        for key in _LINKS:
            if key not in record:
                continue
            link = chains.new_link(record, key)
            if link != record[key]:
                changed[key] = link

        result.append({**record, **changed} if changed else record)

    return result


class _Chains:
    """The chains of links through all frames, of which only some stay."""

    def __init__(self, records: Sequence[dict[str, Any]], kept: Sequence[dict[str, Any]]) -> None:
        self.id_key, self.end = _link_style(records)
        self.by_id = {as_key(record.get(self.id_key)): record for record in records}
        self.keep = {as_key(record.get(self.id_key)) for record in kept}
        # For every frame that was passed, by the name of the link: where that leads.
        self.nearest: dict[str, dict[Key, Key]] = {key: {} for key in _LINKS}

    def new_link(self, record: dict[str, Any], key: str) -> Any:
        """The link of a frame, as it was where it still holds."""
        link = record[key]
        found = self.find(record, key)
        if as_key(link) == found:
            return link
        if found is None:
            return self.end

        # Written in the way that the link was.
        own = self.by_id[found][self.id_key]

        return str(own) if isinstance(link, str) else own

    def find(self, record: dict[str, Any], key: str) -> Key:
        """Follows links, and remembers for every frame on the way where they lead."""
        nearest = self.nearest[key]
        way: list[Key] = []
        visited = {as_key(record.get(self.id_key))}
        link = as_key(record[key])
        while link in self.by_id and link not in self.keep and link not in visited:
            if link in nearest:
                link = nearest[link]
                break

            visited.add(link)
            way.append(link)
            link = as_key(self.by_id[link].get(key))

        found = None
        if link in self.keep:
            is_same_scene = self.by_id[link].get('scene_token') == record.get('scene_token')
            found = link if is_same_scene else None

        nearest.update(dict.fromkeys(way, found))

        return found


def _link_style(records: Sequence[Mapping[str, Any]]) -> tuple[str, Any]:
    """What links name frames by, ``'token'`` or ``'sample_idx'``, and what stands for no frame."""
    links = [record[key] for record in records for key in _LINKS if key in record]
    tokens = _known_ids(records, 'token')
    numbers = _known_ids(records, 'sample_idx')
    id_key, known = 'token', tokens
    if _count_hits(links, numbers) > _count_hits(links, tokens):
        id_key, known = 'sample_idx', numbers

    ends = Counter(link for link in links if link in _NO_LINK and as_key(link) not in known)
    if not ends:
        return id_key, ''

    [(end, _)] = ends.most_common(1)

    return id_key, end


def _known_ids(records: Sequence[Mapping[str, Any]], key: str) -> set[Key]:
    return {as_key(record.get(key)) for record in records} - {None}


def _count_hits(links: Iterable[Any], known: Collection[Key]) -> int:
    return sum(as_key(link) in known for link in links)
