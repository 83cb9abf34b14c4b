"""Near-duplicates across splits: validation and test samples that resemble training samples."""

from ..workdir.leakage import SplitSummary, Summary, read_summary
from .pairs import Pairs, similar_pairs

__all__ = ['Pairs', 'SplitSummary', 'Summary', 'read_summary', 'similar_pairs']
