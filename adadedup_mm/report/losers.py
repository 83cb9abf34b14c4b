"""Classes and scenes that lose much more than the average: sentences for *Worth knowing*."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import binom

from ..base import words
from ..workdir.finished import Columns, FinishedRun

# Chance that a table names anything although all of it is pruned at random.
LEVEL = 0.01
# What keeps less than this share of the average loses much.
MUCH_LESS = 0.9
# Named in a sentence; the table further down has all.
NAMED = 5


def loses_much(kept_share: np.ndarray, draws: np.ndarray, average: float) -> np.ndarray:
    """Which groups keep much less than the average, by more than chance.

    The bound is the binomial one, for all groups together (Bonferroni): with random pruning, at
    least one of them is found in at most ``LEVEL`` of all cases. Small groups are so named only
    where they lose nearly everything.

    Args:
        kept_share: (G,) float in [0, 1] of each group, NaN for empty ones.
        draws: (G,) int, how many samples each group has. Of objects this is the number of their
            images, since those of an image stay or go together.
        average: share of all samples that stays.

    Returns:
        (G,) bool.
    """
    is_known = (draws > 0) & np.isfinite(kept_share)
    share = np.where(is_known, kept_share, 1)
    kept = np.ceil(share * draws - 1e-9)
    chance = binom.cdf(kept, draws, average)
    is_rare = chance * max(int(is_known.sum()), 1) < LEVEL
    return is_known & is_rare & (share <= MUCH_LESS * average)


def loser_notes(run: FinishedRun, scenes: Sequence[dict[str, Any]]) -> list[str]:
    """A sentence on the classes and one on the scenes that lose much; none where none does.

    Args:
        run: the finished run.
        scenes: rows as of ``scene_rows``.
    """
    average = run.manifest.kept / run.manifest.samples
    notes = [_class_note(run.classes, average), _scene_note(scenes, average)]
    return [note for note in notes if note]


def _class_note(classes: Columns, average: float) -> str:
    """On the classes that lose many objects; '' where none does."""
    count, kept = classes['instances'], classes['instances_kept']
    found = _losers(count, kept, classes['images'], average)
    told = [_told(classes['class'][at], kept[at], count[at], 'objects') for at in found[:NAMED]]
    return _sentence('classes', average, told, len(found))


def _scene_note(scenes: Sequence[dict[str, Any]], average: float) -> str:
    """On the scenes that lose many samples, and whether these were copies; '' where none does."""
    count = np.array([row['samples'] for row in scenes], np.int64)
    kept = np.array([row['kept'] for row in scenes], np.int64)
    found = _losers(count, kept, count, average)
    if not len(found):
        return ''
    told = [_told(scenes[at]['scene'], kept[at], count[at], 'samples') for at in found[:NAMED]]
    copies = np.array([row['copies'] for row in scenes], np.int64)
    of_lost = copies[found].sum() / (count - kept)[found].sum()
    text = _sentence('scenes', average, told, len(found))
    if not copies.any():
        return text
    share = words.share(float(of_lost), 0)
    return f'{text} Of what these lost, {share} has a near-duplicate among what stayed.'


def _losers(count: np.ndarray, kept: np.ndarray, draws: np.ndarray, average: float) -> np.ndarray:
    """Indices of the groups that lose much, the hardest hit first."""
    share = kept / np.maximum(count, 1)
    share[count == 0] = np.nan
    found = np.flatnonzero(loses_much(share, draws, average))
    return found[np.argsort(share[found], kind='stable')]


def _told(name: str, kept: int, count: int, members: str) -> str:
    """A group with its numbers."""
    of_all = f'{words.count(kept)} of {words.count(count)} {members}'
    return f'{name} {words.share(kept / count)} ({of_all})'


def _sentence(groups: str, average: float, told: Sequence[str], total: int) -> str:
    if not told:
        return ''
    more = total - len(told)
    rest = f' and {more} more' if more else ''
    kept = words.share(average)
    return f'Some {groups} keep much less than the average of {kept}: {", ".join(told)}{rest}.'
