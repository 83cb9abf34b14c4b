"""The formats of annotation files that pruning can rewrite; each registers itself in its own file.

Add your own with ``@FORMATS.register_module()`` and a ``custom_imports`` entry in the config,
beside the dataset class that reads such files.
"""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from mmengine.registry import Registry

FORMATS = Registry('format', scope='adadedup_mm', locations=['adadedup_mm.annotations'])


class Counts(NamedTuple):
    """How many records a file holds, and how many of them were kept."""

    records: int
    kept: int


class Lines(NamedTuple):
    """The L lines that a dataset has loaded from its annotation file: an image or a frame each.

    Attributes:
        dataset: loaded, without pipeline.
        file: the annotation file, absolute.
        infos: L data infos, as the dataset stores them; of a frame in several items the first.
        names: L sample ids.
        records: L positions in what the dataset's ``load_data_list`` parsed; None where it parses
            nothing.
        are_frames: whether they are frames with several cameras, from a dataset of mmdet3d's kind.
    """

    dataset: Any
    file: Path
    infos: Sequence[Mapping[str, Any]]
    names: Sequence[str]
    records: Sequence[int | None]
    are_frames: bool


class Format(Protocol):
    """A format of annotation files. It is made anew, without arguments, for each file.

    What a format does not have to care for: datasets without annotation file, with proposals beside
    it, or whose ``indices`` repeat lines are not rewritten but wrapped in ``PrunedDataset``, as are
    those that no format recognises.
    """

    def recognises(self, lines: Lines) -> bool:
        """Whether a dataset has read a file of this format, so that ``rewrite`` can prune it."""
        ...

    def addresses(self, lines: Lines) -> Sequence[Hashable]:
        """What tells the lines apart in the file: L ids or positions, in the order of the lines."""
        ...

    def rewrite(
        self, source: Path, target: Path, keep: Sequence[Any], temporal: str, trust: bool
    ) -> Counts:
        """Writes the file with the records of some lines only; all else in it stays as it is.

        Args:
            source: the annotation file.
            target: the file to write, atomically (see ``atomic_open``).
            keep: ``addresses`` of the lines that stay, at least one.
            temporal: what becomes of links between frames: ``'relink'`` or ``'keep'``.
            trust: whether pickles may hold more than plain data.

        Raises:
            UserError: the file changed since it was read.
        """
        ...


def recognise(lines: Lines) -> str | None:
    """The name of the format of a dataset's file; None if no format recognises it.

    Formats are asked in the reverse order of their registration, a user's own ones first.
    """
    FORMATS.import_from_location()
    for name in reversed(FORMATS.module_dict):
        if format_of(name).recognises(lines):
            return name
    return None


def format_of(name: str) -> Format:
    """The format of that name."""
    FORMATS.import_from_location()
    found: Format = FORMATS.module_dict[name]()
    return found
