"""Comparing ways to prune: trainings from one config, and what follows from their results.

Follow the data: ``config`` (what to compare) -> ``data`` (what it is compared on) -> ``jobs`` (one
training each) -> ``schedule`` (several at a time, shown by ``overview``) -> ``hook`` (what a
training reports) -> ``results`` (one row each) -> ``statistics`` -> ``tables`` and ``plots``.
"""

from .hook import BenchmarkHook

__all__ = ['BenchmarkHook']
