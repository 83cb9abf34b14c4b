"""In which order the page shows clusters."""

import numpy as np

from ..workdir.finished import FinishedRun


def telling_gaps(run: FinishedRun) -> np.ndarray:
    """(K,) the clusters' gaps; all NaN where these hold no signal, so that nothing goes by them."""
    gap = run.clusters['gap']
    reliability = run.manifest.gap_reliability
    if reliability is None or not reliability.signal_share:
        return np.full(len(gap), np.nan)
    return gap


def most_pruned_first(size: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """(K,) indices of clusters by falling share of pruned samples, then by their falling count.

    Args:
        size: (K,) int, samples of each cluster.
        kept: (K,) int, those that stay.
    """
    pruned = size - kept
    share = pruned / np.maximum(size, 1)
    return np.lexsort((np.arange(len(size)), -pruned, -share))


def highest_gap_first(gap: np.ndarray, size: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """(K,) indices of clusters by falling gap, those without one last, the most pruned first.

    Args:
        gap: (K,) float, NaN where unknown.
        size: (K,) int, samples of each cluster.
        kept: (K,) int, those that stay.
    """
    order = most_pruned_first(size, kept)
    by_gap = np.argsort(-gap[order], kind='stable')
    return order[by_gap]
