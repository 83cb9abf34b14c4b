"""Which near-identical images have labels that contradict each other, and which of them is right?"""

from .labels import KINDS, Boxes
from .stage import ConflictStages, Conflicts

__all__ = ['KINDS', 'Boxes', 'ConflictStages', 'Conflicts']
