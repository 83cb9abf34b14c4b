"""Resumable stages, and the processes that work on them together."""

from .engine import Engine
from .ledger import Ledger
from .peers import PROCESSES, Patience
from .shards import Done, Shards, Together, Work, only_share
from .store import ReadingStore, StageStore

__all__ = [
    'PROCESSES',
    'Done',
    'Engine',
    'Ledger',
    'Patience',
    'ReadingStore',
    'Shards',
    'StageStore',
    'Together',
    'Work',
    'only_share',
]
