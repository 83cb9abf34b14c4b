"""Resumable stages, and the processes that work on them together."""

from .peers import PROCESSES, Patience
from .store import ReadingStore, StageStore

__all__ = ['PROCESSES', 'Patience', 'ReadingStore', 'StageStore']
