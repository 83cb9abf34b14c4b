"""Which clusters and samples the page shows: a few that say most, out of up to millions."""

from dataclasses import dataclass

import numpy as np

from ..workdir.reading import Run

HIGH, LOW, MOST = 8, 4, 4  # clusters by highest gap, by lowest gap, by number of pruned samples
GROUPS, ALONE = 4, 4  # per cluster: kept partners, and kept samples that are no partner


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
        rows = [row for group in self.groups for row in (group.partner, *group.pruned) if row >= 0]
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
    order = candidates[np.lexsort((candidates, -pruned[candidates], -gap[candidates]))]
    if len(order) <= high + low + most:
        return dict.fromkeys(order.tolist(), '')
    known = order[np.isfinite(gap[order])].tolist()
    chosen = dict.fromkeys(known[:high], 'among the highest gaps')
    for index in known[max(high, len(known) - low) :]:
        chosen[index] = 'among the lowest gaps'
    rest = sorted(set(order.tolist()) - set(chosen), key=lambda index: (-pruned[index], index))
    # Without gaps their places go to the clusters that lost most.
    for index in rest[: high + low + most - len(chosen)]:
        chosen[index] = 'among the most pruned'
    return {index: chosen[index] for index in order.tolist() if index in chosen}


def group_by_partner(rows: np.ndarray, partner: np.ndarray, similarity: np.ndarray) -> list[Group]:
    """Groups pruned samples by their partner, the largest group first, those without a partner last.

    Args:
        rows: rows of pruned samples.
        partner: (N,) int, row of each sample's partner or -1.
        similarity: (N,) float, of each sample to its partner.
    """
    partners, inverse, counts = np.unique(partner[rows], return_inverse=True, return_counts=True)
    most = (
        3 if len(partners) > 2 else 7
    )  # with the partner that fills one or two lines of four pictures
    groups = []
    for index in np.lexsort((partners, -counts, partners < 0)):
        members = rows[inverse == index]
        shown = members[np.lexsort((members, similarity[members]))][:most]
        groups.append(Group(int(partners[index]), shown.tolist(), int(counts[index])))
    return groups


def cluster_examples(run: Run) -> list[Example]:
    """The clusters that the page shows with pictures, by falling gap."""
    clusters, kept = run.clusters, run.samples['kept']
    examples = []
    for index, why in choose_clusters(clusters['gap'], clusters['size'] - clusters['kept']).items():
        rows = np.flatnonzero(run.samples['cluster'] == clusters['cluster'][index])
        pruned = rows[~kept[rows]]
        groups = group_by_partner(pruned, run.partner, run.samples['partner_similarity'])
        alone = np.setdiff1d(rows[kept[rows]], run.partner[pruned])
        spread = np.unique(
            np.linspace(0, len(alone) - 1, min(ALONE, len(alone))).round().astype(int)
        )
        partners = sum(group.partner >= 0 for group in groups)
        examples.append(
            Example(index, why, groups[:GROUPS], partners, alone[spread].tolist(), len(alone))
        )
    return examples


def label_suspects(run: Run, limit: int = 24) -> tuple[list[int], int]:
    """Rows of the label suspects with the highest loss, and how many suspects there are."""
    rows = np.flatnonzero(run.samples['label_suspect'])
    order = rows[np.lexsort((rows, -run.samples['loss'][rows]))]
    return order[:limit].tolist(), len(rows)
