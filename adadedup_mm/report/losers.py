"""Classes and scenes that lose much more than the average: sentences for *Worth knowing*."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import binom

from ..base import words
from ..workdir.finished import FinishedRun

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


def loser_notes(run: FinishedRun, scenes: Sequence[dict[str, object]]) -> list[str]:
    """A sentence on the classes and one on the scenes that lose much; none where none does.

    Args:
        run: the finished run.
        scenes: rows with the scene, its samples and the kept ones.
    """
    average = run.manifest.kept / run.manifest.samples
    classes = run.classes
    class_note = _note(
        'classes',
        'objects',
        classes['class'],
        classes['instances'],
        classes['instances_kept'],
        classes['images'],
        average,
    )
    sizes = np.array([row['samples'] for row in scenes], np.int64)
    scene_note = _note(
        'scenes',
        'samples',
        np.array([row['scene'] for row in scenes], object),
        sizes,
        np.array([row['kept'] for row in scenes], np.int64),
        sizes,
        average,
    )
    return [note for note in (class_note, scene_note) if note]


def _note(
    groups: str,
    members: str,
    names: np.ndarray,
    count: np.ndarray,
    kept: np.ndarray,
    draws: np.ndarray,
    average: float,
) -> str:
    """The groups that lose much, the hardest hit first; '' where none does."""
    share = kept / np.maximum(count, 1)
    share[count == 0] = np.nan
    found = np.flatnonzero(loses_much(share, draws, average))
    if not len(found):
        return ''
    hardest_first = found[np.argsort(share[found], kind='stable')]
    told = []
    for index in hardest_first[:NAMED]:
        of_all = f'{words.count(kept[index])} of {words.count(count[index])} {members}'
        told.append(f'{names[index]} {words.share(share[index])} ({of_all})')
    more = len(found) - len(told)
    rest = f' and {more} more' if more else ''
    kept_words = words.share(average)
    return (
        f'Some {groups} keep much less than the average of {kept_words}: {", ".join(told)}{rest}.'
    )
