"""Samples whose labels may be wrong."""

import numpy as np


def label_suspects(
    loss: np.ndarray, partner: np.ndarray, quantile: float = 0.98, cutoff: float = 3.5
) -> np.ndarray:
    """Samples with a very high loss that no similar sample shares.

    What is hard to detect is hard in similar samples as well; a wrong label is not.

    Very high: above the quantile, and a robust z-score (median and MAD; 3.5 after Iglewicz and
    Hoaglin 1993) above the cutoff. Shared: a similar sample has more than half the cutoff. Similar
    are a sample's partner and the samples whose partner it is, each if it has a loss.

    Args:
        loss: (N,) float, NaN where none was computed.
        partner: (N,) int64 sample index, -1 for none.
        quantile: at most ``1 - quantile`` of the losses are suspects.
        cutoff: of the robust z-score.

    Returns:
        (N,) bool.
    """
    suspects = np.zeros(len(loss), bool)
    known = np.isfinite(loss)
    if not known.any():
        return suspects
    z = _robust_z(loss, known)
    very_high = loss[known] > np.quantile(loss[known], quantile)
    suspects[known] = very_high & (z[known] > cutoff)

    high = z > cutoff / 2
    paired = np.flatnonzero(partner >= 0)
    high_paired = paired[high[paired]]
    shared = np.zeros(len(loss), bool)
    shared[paired] = high[partner[paired]]
    shared[partner[high_paired]] = True

    return suspects & ~shared


def _robust_z(loss: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Distance from the median in robust standard deviations.

    Args:
        loss: (N,) float.
        known: (N,) bool, which losses count; at least one.

    Returns:
        (N,) float64; 0 where unknown or where all are equal.
    """
    z = np.zeros(len(loss))
    distance = loss[known] - np.median(loss[known])
    deviation = np.abs(distance)
    scale = 1.4826 * np.median(deviation)
    if scale == 0:
        # Over half the losses are equal.
        scale = 1.2533 * deviation.mean()

    if scale > 0:
        z[known] = distance / scale
    return z
