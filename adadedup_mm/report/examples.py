"""Which clusters and samples the page shows: a few that say most, out of up to millions."""

from dataclasses import dataclass

import numpy as np

from ..workdir.finished import FinishedRun

# Clusters by highest gap, by lowest gap, and by number of pruned samples.
HIGH, LOW, MOST = 8, 4, 4
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
    """

    index: int
    why: str
    groups: list[Group]
    partners_total: int
    alone: list[int]
    alone_total: int

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
    gap: np.ndarray, pruned: np.ndarray, high: int = HIGH, low: int = LOW, most: int = MOST
) -> dict[int, str]:
    """Picks clusters with pruned samples: extreme gaps first, then those that lost most.

    Args:
        gap: (K,) float, NaN where unknown.
        pruned: (K,) int, number of pruned samples.
        high: how many of the highest gaps.
        low: how many of the lowest gaps.
        most: how many of the rest with the most pruned samples.

    Returns:
        Index of each chosen cluster and why it was chosen, by falling gap, unknown gaps last by
        falling number of pruned samples. If no more qualify than asked for, all of them, without a
        reason.
    """
    candidates = np.flatnonzero(pruned > 0)
    least_pruned_last = -pruned[candidates]
    lowest_gap_last = -gap[candidates]
    by_gap = np.lexsort((candidates, least_pruned_last, lowest_gap_last))
    order = candidates[by_gap]
    places = high + low + most
    if len(order) <= places:
        return dict.fromkeys(order.tolist(), '')

    has_gap = np.isfinite(gap[order])
    known = order[has_gap].tolist()
    chosen = dict.fromkeys(known[:high], 'among the highest gaps')
    lowest_from = max(high, len(known) - low)
    for index in known[lowest_from:]:
        chosen[index] = 'among the lowest gaps'

    # Without gaps their places go to the clusters that lost most.
    left = places - len(chosen)
    rest = np.setdiff1d(order, list(chosen))
    by_pruned = np.lexsort((rest, -pruned[rest]))
    most_pruned = rest[by_pruned][:left]
    for index in most_pruned.tolist():
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
    """The clusters that the page shows with pictures, by falling gap."""
    clusters = run.clusters
    gap = clusters['gap']
    pruned = clusters['size'] - clusters['kept']
    chosen = choose_clusters(gap, pruned)
    return [_example(run, index, why) for index, why in chosen.items()]


def _example(run: FinishedRun, index: int, why: str) -> Example:
    samples = run.samples
    similarity = samples['partner_similarity']
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
    )


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
