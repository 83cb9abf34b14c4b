"""Near-identical images whose labels contradict each other, and which of them is rather right."""

from .found import Conflicts
from .labels import KINDS

__all__ = ['KINDS', 'Conflicts']
