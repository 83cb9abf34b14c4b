"""Samples whose labels may be wrong."""

import numpy as np

from ..vectors.rows import cluster_members, read_rows, snap


def label_suspects(
    loss: np.ndarray,
    assignment: np.ndarray,
    partner: np.ndarray,
    features: np.ndarray | None = None,
    quantile: float = 0.98,
    cutoff: float = 3.5,
) -> np.ndarray:
    """Samples with a very high loss that no similar sample shares.

    What is hard to detect is hard in similar samples as well; a wrong label is not.

    Very high: above the quantile, and a robust z-score (median and MAD; 3.5 after Iglewicz and
    Hoaglin 1993) above the cutoff. Shared: a similar sample has more than half the cutoff. Similar
    are a sample's partner, the samples whose partner it is, and with ``features`` also its nearest
    neighbour in the cluster, each if it has a loss.

    Args:
        loss: (N,) float, NaN where none was computed.
        assignment: (N,) int32, labels 0..K-1.
        partner: (N,) int64 sample index, -1 for none.
        features: (N, d) float32 or float16, optional.
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
    suspects[known] = (loss[known] > np.quantile(loss[known], quantile)) & (z[known] > cutoff)
    high = z > cutoff / 2

    paired = np.flatnonzero(partner >= 0)
    shared = np.zeros(len(loss), bool)
    shared[paired] = high[partner[paired]]
    shared[partner[paired[high[paired]]]] = True
    if features is not None:
        neighbour = _nearest_neighbour(np.asarray(features), assignment, known, suspects)
        found = np.flatnonzero(neighbour >= 0)
        shared[found] |= high[neighbour[found]]
    return suspects & ~shared


def _robust_z(loss: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(N,) float64 distance from the median in robust standard deviations; 0 where unknown or where all are equal."""
    z = np.zeros(len(loss))
    distance = loss[known] - np.median(loss[known])
    # Where over half the losses are equal, the MAD is zero and the mean deviation takes its place.
    scale = 1.4826 * np.median(np.abs(distance)) or 1.2533 * np.abs(distance).mean()
    if scale > 0:
        z[known] = distance / scale
    return z


def _nearest_neighbour(
    features: np.ndarray, assignment: np.ndarray, known: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
    """(N,) int64 for the wanted samples: the most similar other sample of the cluster with a loss; otherwise -1."""
    neighbour = np.full(len(assignment), -1, np.int64)
    clusters = cluster_members(assignment)
    for cluster in np.unique(assignment[wanted]):
        members = clusters[cluster][known[clusters[cluster]]]
        rows, blank = read_rows(features, members)
        for position in np.flatnonzero(wanted[members] & ~blank):
            similarity = snap(rows @ rows[position])
            similarity[blank] = -2
            similarity[position] = -2
            if similarity.max() > -2:
                neighbour[members[position]] = members[similarity.argmax()]
    return neighbour
