"""Near-duplicates across splits: validation and test samples that resemble training samples."""

from .pairs import Pairs, similar_pairs
from .summary import SplitSummary, Summary, read_summary

__all__ = ['Pairs', 'SplitSummary', 'Summary', 'read_summary', 'similar_pairs']
