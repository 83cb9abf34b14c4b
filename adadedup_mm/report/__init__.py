"""The report page of a pruning run: what went, what stayed, and why."""

from .page import build_report

__all__ = ['build_report']
