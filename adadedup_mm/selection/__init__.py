"""Which samples stay, and the rules for that: class floors, whole scenes, gaps in time."""

from .selection import Selection

__all__ = ['Selection']
