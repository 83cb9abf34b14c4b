"""A config's dataset, built without its pipeline and loaded; what goes wrong there as one line."""

import contextlib
import copy
import difflib
import inspect
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, DefaultScope

from ..annotations.infos import check_pictures, info_records, record_fault
from ..annotations.pickles import collector_paused, plain_pickles
from ..base.errors import UserError
from ..base.words import error_words, some
from .frames import check_kind, show_cameras
from .originals import check_size_cache, data_folders, untouched
from .sources import Source, dotted, value_at

# Keys of a data info: the position of the record that it was made from, and how many infos that
# record gave.
RECORD, ITEMS = NOTED = ('adadedup_record', 'adadedup_items')
# Attribute of a dataset: ``metainfo`` of its pickled annotation file, which that of the config has
# replaced.
FILE_METAINFO = 'adadedup_file_metainfo'


def build_dataset(settings: Mapping[str, Any], where: str) -> Any:
    """The dataset without pipeline; the annotations of a ``BaseDataset`` are still to be loaded."""
    settings = copy.deepcopy(settings)
    kind = dataset_class(settings, where)
    parameters = inspect.signature(kind).parameters
    takes_more = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    changes = (
        dict(pipeline=[], lazy_init=True)
        if inspect.isclass(kind) and issubclass(kind, BaseDataset)
        else {}
    )
    changes = {name: value for name, value in changes.items() if takes_more or name in parameters}
    try:
        with untouched(folder for folder in data_folders(settings) if folder.is_dir()):
            dataset = DATASETS.build({**settings, **changes})
    except Exception as error:
        known = (getattr(kind, 'METAINFO', None) or {}).get('classes') or ()
        metainfo = settings.get('metainfo')
        given = metainfo.get('classes') if isinstance(metainfo, Mapping) else None
        unknown = (
            [name for name in given if name not in known]
            if isinstance(given, (list, tuple))
            else []
        )
        if unknown and known:
            raise UserError(
                f'{where} does not know the classes {some(unknown)} of its metainfo, but '
                f'{some(known)}: use these names, or the dataset type that the annotations are for'
            ) from error

        raise UserError(f'{where} cannot be built: {error_words(error)}') from error

    show_cameras(dataset, settings.get('data_prefix') or {})

    return dataset


def dataset_class(settings: Mapping[str, Any], where: str) -> Callable[..., Any]:
    """The class that a dataset's dict is for; raises UserError if it is not registered."""
    kind = settings.get('type')
    if callable(kind):
        return kind

    with DATASETS.switch_scope_and_registry(settings.get('_scope_')) as registry:
        found = None
        # A name with dots is imported, which may raise anything.
        with contextlib.suppress(Exception):
            found = registry.get(kind) if isinstance(kind, str) else None
        if found is None:
            guess = difflib.get_close_matches(str(kind), registry.module_dict, n=1)
            hint = (
                f'did you mean {guess[0]!r}?' if guess else 'check default_scope and custom_imports'
            )
            raise UserError(f'{where}: the dataset type {kind!r} is not registered; {hint}')

    return found


def annotation_file(dataset: Any, where: str) -> Path | None:
    """Absolute; None if the dataset has none. Raises UserError if it does not exist."""
    ann_file = getattr(dataset, 'ann_file', None)
    if not ann_file:
        return None
    if not os.path.isfile(ann_file):
        raise UserError(
            f'annotation file {ann_file} does not exist here (ann_file and data_root of {where})'
        )
    return Path(ann_file).absolute()


def load_dataset(dataset: Any, where: str, ann_file: Path | None, trust: bool) -> None:
    """Loads a dataset's annotations; each data info then has what ``NOTED`` names."""
    if not isinstance(dataset, BaseDataset):
        return

    # Serialising saves memory for data loading workers, of which there are none.
    dataset.serialize_data = False
    _watch_records(dataset)

    def check(content: Any) -> None:
        metainfo = content.get('metainfo') if isinstance(content, Mapping) else None
        if isinstance(metainfo, Mapping):
            setattr(dataset, FILE_METAINFO, metainfo)
        if hasattr(dataset, 'box_type_3d'):
            info_records(content, ann_file or '')
            if 'infos' in content:
                raise UserError(
                    f'{where} cannot read {ann_file}, which holds older infos: use '
                    "BEVFormerDataset for it, or make infos with mmdet3d's tools/create_data.py"
                )

            check_kind(dataset, content, where, ann_file)
            check_pictures(content['data_list'], ann_file or '')

    # Beside an annotation file that is no pickle, only a file of proposals can be one.
    is_pickle = ann_file is not None and ann_file.suffix in ('.pkl', '.pickle')
    pickled = ann_file if is_pickle else getattr(dataset, 'proposal_file', None) or ann_file
    folders = [*data_folders(vars(dataset)), Path(ann_file or '').parent]
    try:
        with (
            naming(where, ann_file),
            plain_pickles(pickled or '', trust, check),
            untouched(folder for folder in folders if folder.is_dir()),
        ):
            check_size_cache(dataset, where, ann_file)
            _init(dataset, where, ann_file)
    finally:
        # It refers to the dataset, whose gigabytes would wait for the garbage collector.
        del dataset.parse_data_info


def _init(dataset: BaseDataset, where: str, ann_file: Path | None) -> None:
    try:
        dataset.full_init()
    except IndexError as error:
        # They are what is applied last, to the samples that are there by then.
        if dataset._indices is None or not dataset.data_list:
            raise
        raise UserError(
            f'{where}: its indices name samples beyond the {len(dataset.data_list)} of {ann_file} '
            'that pass its filter_cfg'
        ) from error


@contextlib.contextmanager
def naming(where: str, ann_file: Path | None) -> Iterator[None]:
    """Turns what goes wrong with the content of an annotation file into one line."""
    try:
        yield
    except UserError:
        raise
    except BadRecord as error:
        raise UserError(
            f'{where} cannot read the record with {error.name} of {ann_file}: '
            f'{record_fault(error.__cause__)}{_line_hint(error.__cause__, ann_file)}'
        ) from error
    except FileNotFoundError as error:
        raise UserError(f'{where} needs a file that does not exist: {error.filename!r}') from error
    except json.JSONDecodeError as error:
        raise UserError(f'{ann_file} is not valid JSON: {error}; restore the file') from error
    except Exception as error:
        # What odd values raise depends on the class that meets them.
        raise UserError(f'{where} cannot read {ann_file}: {error_words(error)}') from error


def _line_hint(error: BaseException | None, ann_file: Path | None) -> str:
    """Why the file of an image id may be missing: mmdet takes all of a line for the id."""
    name = Path(str(getattr(error, 'filename', None) or '')).stem
    odd = name != name.strip() or '\ufeff' in name or len(name.split()) > 1
    if not isinstance(error, FileNotFoundError) or not odd or not ann_file:
        return ''
    return (
        f'; a whole line of {ann_file.name}, here {name!r}, is the name: leave nothing else on '
        'it, also no blanks and no byte order mark'
    )


class BadRecord(Exception):
    """A record of an annotation file that its dataset cannot read; the cause says why."""

    def __init__(self, name: Any) -> None:
        super().__init__(name)
        self.name = name


def _watch_records(dataset: BaseDataset) -> None:
    """Makes the dataset note in each data info the position of its record, and name a bad one."""
    parse, positions = dataset.parse_data_info, itertools.count()

    def parse_and_note(raw: Any, *args: Any, **kwargs: Any) -> Any:
        position = next(positions)
        try:
            parsed = parse(raw, *args, **kwargs)
        except Exception as error:
            raise BadRecord(record_name(raw, position)) from error

        items = parsed if isinstance(parsed, list) else [parsed]
        for info in items:
            if isinstance(info, dict):
                info[RECORD] = position
                info[ITEMS] = len(items)

        return parsed

    dataset.parse_data_info = parse_and_note


def record_name(raw: Any, position: int) -> str:
    """What to call a record in a message."""
    if isinstance(raw, Mapping):
        raw = raw.get('raw_img_info', raw)
        for key in ('token', 'sample_idx', 'xml_path', 'file_name', 'img_path', 'img_id'):
            if isinstance(raw.get(key), (str, int)):
                return f'{key} {raw[key]}'
    return f'number {position}'


def read_again(config: Config, source: Source) -> Any:
    """The inner dataset of a source of ``read_pool``, loaded once more and without pipeline."""
    settings, where = value_at(config, source.path), dotted(source.path)
    with DefaultScope.overwrite_default_scope(config.get('default_scope')), collector_paused():
        dataset = build_dataset(settings, where)
        load_dataset(dataset, where, source.ann_file, source.trust)
    return dataset
