"""Which clusters and samples the page shows: a few that say most, out of up to millions."""

from dataclasses import dataclass

import numpy as np

from ..workdir.finished import FinishedRun
from .ranking import highest_gap_first, most_pruned_first, telling_gaps

# Clusters by highest gap, by lowest gap, and by share of pruned samples.
HIGH, LOW, MOST = 8, 4, 4
# Shown unfolded: the first ones, and of the most pruned ones as many.
UNFOLDED = 3
# Of a cluster: kept partners, and kept samples that are no partner.
GROUPS, ALONE = 4, 4
# Of a partner, pruned samples, which with it fill a line of four pictures, or two lines where there
# are few partners.
ONE_LINE, TWO_LINES = 3, 7
FEW_PARTNERS = 2


@dataclass(frozen=True)
class Group:
    """A kept sample and pruned ones that it stands for.

    Attributes:
        partner: row of the kept sample, -1 for pruned samples without a partner.
        pruned: rows, the least similar first.
        total: number of pruned samples of this cluster that have this partner.
    """

    partner: int
    pruned: list[int]
    total: int


@dataclass(frozen=True)
class Example:
    """A cluster worth looking at.

    Attributes:
        index: row in clusters.parquet.
        why: what it stands out by, empty if all clusters are shown.
        groups: the largest ones.
        partners_total: how many kept samples stand for pruned ones.
        alone: rows of kept samples that are no pruned sample's partner.
        alone_total: how many there are.
        is_open: whether its pictures are seen at once.
    """

    index: int
    why: str
    groups: list[Group]
    partners_total: int
    alone: list[int]
    alone_total: int
    is_open: bool

    @property
    def rows(self) -> list[int]:
        """All samples shown."""
        rows = []
        for group in self.groups:
            if group.partner >= 0:
                rows.append(group.partner)
            rows += group.pruned
        return rows + self.alone


def choose_clusters(
    gap: np.ndarray,
    size: np.ndarray,
    kept: np.ndarray,
    high: int = HIGH,
    low: int = LOW,
    most: int = MOST,
) -> dict[int, str]:
    """Picks clusters with pruned samples: extreme gaps first, then those that lost most.

    Args:
        gap: (K,) float, NaN where unknown.
        size: (K,) int, number of samples.
        kept: (K,) int, number of kept samples.
        high: how many of the highest gaps.
        low: how many of the lowest gaps.
        most: how many of the rest with the largest share of pruned samples.

    Returns:
        Index of each chosen cluster and why it was chosen, by falling gap, unknown gaps last, the
        most pruned first. If no more qualify than asked for, all of them, without a reason; without
        any gap there is no other reason than that order either.
    """
    has_pruned = kept < size
    ranked = highest_gap_first(gap, size, kept)
    order = ranked[has_pruned[ranked]]
    places = high + low + most
    if len(order) <= places:
        return dict.fromkeys(order.tolist(), '')

    has_gap = np.isfinite(gap[order])
    if not has_gap.any():
        return dict.fromkeys(order[:places].tolist(), '')
    known = order[has_gap].tolist()
    chosen = dict.fromkeys(known[:high], 'among the highest gaps')
    lowest_from = max(high, len(known) - low)
    for index in known[lowest_from:]:
        chosen[index] = 'among the lowest gaps'

    # Without gaps their places go to the clusters that lost most.
    left = places - len(chosen)
    by_pruned = most_pruned_first(size, kept)
    rest = [index for index in by_pruned.tolist() if has_pruned[index] and index not in chosen]
    for index in rest[:left]:
        chosen[index] = 'among the most pruned'
    return {index: chosen[index] for index in order.tolist() if index in chosen}


def group_by_partner(rows: np.ndarray, partner: np.ndarray, similarity: np.ndarray) -> list[Group]:
    """Groups pruned samples by their partner, the largest group first, those without one last.

    Args:
        rows: rows of pruned samples.
        partner: (N,) int, row of each sample's partner or -1.
        similarity: (N,) float, of each sample to its partner.
    """
    partners, inverse, counts = np.unique(partner[rows], return_inverse=True, return_counts=True)
    shown = ONE_LINE if len(partners) > FEW_PARTNERS else TWO_LINES
    groups = []
    largest_first = np.lexsort((partners, -counts, partners < 0))
    for index in largest_first:
        members = rows[inverse == index]
        by_similarity = np.lexsort((members, similarity[members]))
        group = Group(
            partner=int(partners[index]),
            pruned=members[by_similarity][:shown].tolist(),
            total=int(counts[index]),
        )
        groups.append(group)

    return groups


def cluster_examples(run: FinishedRun) -> list[Example]:
    """The clusters that the page shows with pictures, by falling gap, or the most pruned first."""
    clusters = run.clusters
    size, kept = clusters['size'], clusters['kept']
    chosen = choose_clusters(telling_gaps(run), size, kept)
    shown = list(chosen)
    by_pruned = [index for index in most_pruned_first(size, kept).tolist() if index in chosen]
    unfolded = {*shown[:UNFOLDED], *by_pruned[:UNFOLDED]}
    return [_example(run, index, why, index in unfolded) for index, why in chosen.items()]


def _example(run: FinishedRun, index: int, why: str, is_open: bool) -> Example:
    samples = run.samples
    similarity = shown_similarity(run)
    cluster = run.clusters['cluster'][index]
    rows = np.flatnonzero(samples['cluster'] == cluster)
    is_kept = samples['kept'][rows]
    pruned = rows[~is_kept]
    groups = group_by_partner(pruned, run.partner, similarity)
    alone = np.setdiff1d(rows[is_kept], run.partner[pruned])

    return Example(
        index=index,
        why=why,
        groups=groups[:GROUPS],
        partners_total=sum(group.partner >= 0 for group in groups),
        alone=_spread(alone, ALONE),
        alone_total=len(alone),
        is_open=is_open,
    )


def shown_similarity(run: FinishedRun) -> np.ndarray:
    """(N,) of pairs, what stands on their pictures: image similarity, in older runs density score.

    Without a share of the labels, the two are the same.
    """
    image_similarity = run.samples['image_similarity']
    if np.isfinite(image_similarity).any():
        return image_similarity
    return run.samples['partner_similarity']


def _spread(rows: np.ndarray, count: int) -> list[int]:
    """At most this many of the rows, at equal distances."""
    count = min(count, len(rows))
    positions = np.linspace(0, len(rows) - 1, count)
    positions = np.unique(positions.round().astype(int))
    return rows[positions].tolist()


def suspect_rows(run: FinishedRun, limit: int = 24) -> tuple[list[int], int]:
    """Rows of the label suspects with the highest loss, and how many suspects there are."""
    rows = np.flatnonzero(run.samples['label_suspect'])
    loss = run.samples['loss'][rows]
    by_loss = np.lexsort((rows, -loss))
    shown = rows[by_loss][:limit]
    return shown.tolist(), len(rows)
