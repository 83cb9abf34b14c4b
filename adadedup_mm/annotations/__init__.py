"""Writing annotation files that hold only some of the samples; all else in them stays as it was."""

from .formats import FORMATS, Counts, Format, Lines, format_of, recognise

# In the reverse of the order in which they are asked.
from .infos import InfosFormat  # isort: skip
from .data_list import DataListFormat  # isort: skip
from .image_set import ImageSetFormat  # isort: skip
from .coco import CocoFormat  # isort: skip

__all__ = [
    'FORMATS',
    'CocoFormat',
    'Counts',
    'DataListFormat',
    'Format',
    'ImageSetFormat',
    'InfosFormat',
    'Lines',
    'format_of',
    'recognise',
]
