"""Which samples stay, and the rules that a selection must keep: floors of classes, whole scenes, gaps in time."""

from .selection import Selection, Update

__all__ = ['Selection', 'Update']
