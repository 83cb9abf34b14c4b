"""Near-duplicates across splits: validation and test samples that resemble training samples."""

from .pairs import Pairs, similar_pairs

__all__ = ['Pairs', 'similar_pairs']
