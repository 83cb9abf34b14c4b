"""Comparing ways to prune: trainings from one config, and what follows from their results.

Follow the data: ``config`` (what to compare) -> ``data`` (what it is compared on) -> ``jobs`` (one
training or selection each) -> ``schedule`` (several trainings at a time, shown by ``overview``) ->
``hook`` (what a training reports), or ``probes`` (selections, measured together) -> ``results``
(one row each) -> ``statistics`` -> ``tables``, ``plots`` and ``verdict``.
"""

from .hook import BenchmarkHook

__all__ = ['BenchmarkHook']
