"""Which samples stay, and rules for selections: floors of classes, whole scenes, gaps in time."""

from .selection import Selection, Update

__all__ = ['Selection', 'Update']
