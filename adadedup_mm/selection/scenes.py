"""Selections that follow the scenes that samples come from: whole scenes, or frames at a distance from each other."""

from bisect import bisect
from typing import NamedTuple

import numpy as np

from ..base.errors import UserError
from ..pool import Pool, label

# How many groups on the edge of a decision are combined to meet the budget.
_EDGE = 64


class Spread(NamedTuple):
    """What ``spread_frames`` found.

    Attributes:
        kept: (N,) bool.
        gap: how many frames lie between kept frames of a scene at least.
        room: how many frames the wanted gap leaves room for.
    """

    kept: np.ndarray
    gap: int
    room: int


def scene_labels(pool: Pool, option: str) -> np.ndarray:
    """(N,) int32, the scene of each sample, numbered by first occurrence.

    Raises:
        UserError: the annotations name no scenes, or not for all samples; the message names
            ``option``.
    """
    scenes = pool.scenes or ('',) * len(pool)
    without = [name for name, scene in zip(pool.sample_ids, scenes, strict=True) if not scene]
    if without:
        what = (
            'no scenes'
            if len(without) == len(pool)
            else (f'no scene for {len(without)} of {len(pool)} samples, first {without[0]}')
        )
        raise UserError(
            f'adadedup.{option} needs scenes, but the annotation files name {what}: use infos '
            "with 'scene_token' or 'context_name', put nuScenes' tables into data_root, give "
            f"COCO images a 'scene' or 'video_id', or take {option} out"
        )
    return label(scenes)


def preference(
    kept: np.ndarray, redundancy: np.ndarray, generator: np.random.Generator, first: np.ndarray
) -> np.ndarray:
    """How much a strategy wants each sample.

    Args:
        kept: (N,) bool, its choice.
        redundancy: (N,) float, larger goes first; ties are broken at random.
        generator: for the ties.
        first: (N,) bool, samples that go before all others.

    Returns:
        (N,) int64 places 0..N-1; 0 is wanted most.
    """
    order = np.lexsort((generator.permutation(len(kept)), redundancy, ~kept, ~first))
    places = np.empty(len(kept), np.int64)
    places[order] = np.arange(len(kept))
    return places


def keep_groups(
    groups: np.ndarray, kept: np.ndarray, places: np.ndarray, usable: np.ndarray
) -> np.ndarray:
    """Turns a choice of samples into one of whole groups.

    Groups are wanted in the order of the share of their samples that was chosen, ties by the mean
    place of their samples. They are taken in this order; which of the ``64`` on the edge of the
    decision are taken is settled so that the number of kept samples comes as near to the one before
    as these allow (the lower one of two equally near).

    Args:
        groups: (N,) int32 labels 0..G-1.
        kept: (N,) bool, the choice.
        places: (N,) int64, from ``preference``.
        usable: (N,) bool, samples that may be kept at all.

    Returns:
        (N,) bool; a group's usable samples are all kept or none. At least one group is kept if any
        sample was.
    """
    sizes = np.bincount(groups, usable)
    exists = np.flatnonzero(sizes)
    share = np.bincount(groups, kept & usable, len(sizes))[exists] / sizes[exists]
    place = np.bincount(groups, places * usable, len(sizes))[exists] / sizes[exists]
    order = exists[np.lexsort((place, -share))]
    chosen = np.zeros(len(sizes), bool)
    chosen[order[_take(sizes[order].astype(int).tolist(), int(kept.sum()))]] = True
    return chosen[groups] & usable


def _take(sizes: list[int], budget: int) -> list[int]:
    """Positions of the groups to keep, of groups in the order in which they are wanted."""
    whole = int(np.searchsorted(np.cumsum(sizes), budget, side='right'))
    start = max(0, whole - _EDGE // 2)
    edge = sizes[start : start + _EDGE]
    # Bit b of reach[i]: some of the groups from i on have b samples together.
    reach = [1]
    for size in reversed(edge):
        reach.append(reach[-1] | reach[-1] << size)
    reach.reverse()
    left = budget - sum(sizes[:start])
    least = 1 if budget and not start else 0
    totals = [total for total in range(least, reach[0].bit_length()) if reach[0] >> total & 1]
    left = min(totals, key=lambda total: (abs(total - left), total), default=0)
    taken = list(range(start))
    for i, size in enumerate(edge):
        if size <= left and reach[i + 1] >> left - size & 1:
            taken.append(start + i)
            left -= size
    return taken


def spread_frames(
    scenes: np.ndarray, kept: np.ndarray, places: np.ndarray, usable: np.ndarray, min_gap: int
) -> Spread:
    """Moves a choice of frames so that kept frames of a scene are not near each other; their number stays.

    Frames are taken in the order of their places, unless one that is taken already is too near, or
    the budget could not be met any more. The gap is ``min_gap`` if the scenes have room for the
    budget then, otherwise the largest that they have room with, in all scenes alike.

    Args:
        scenes: (N,) int32 labels; the frames of a scene in the order of time.
        kept: (N,) bool, the choice.
        places: (N,) int64, from ``preference``.
        usable: (N,) bool, frames that may be kept at all; the others count neither as kept nor as
            lying between.
        min_gap: how many frames are to lie between two kept frames of a scene.
    """
    members = [group[usable[group]] for group in _members(scenes)]
    lengths = np.array([len(group) for group in members])
    budget = int(kept.sum())
    wanted = min(min_gap, int(lengths.max(initial=0)))
    gap = next(gap for gap in range(wanted, -1, -1) if _room(lengths, gap).sum() >= budget)
    position = np.zeros(len(kept), np.int64)
    for group in members:
        position[group] = np.arange(len(group))
    spare = int(_room(lengths, gap).sum()) - budget
    taken: list[list[int]] = [[] for _ in members]
    result = np.zeros(len(kept), bool)
    for sample in np.argsort(places)[usable[np.argsort(places)]].tolist():
        if budget == 0:
            break
        scene, here = scenes[sample], int(position[sample])
        before, after = _free(taken[scene], here, int(lengths[scene]), gap)
        if not before <= here <= after:
            continue
        parts = np.array([after - before + 1, here - gap - before, after - gap - here])
        whole, left, right = _room(parts.clip(0), gap).tolist()
        # A frame may take the place of two.
        if whole - left - right - 1 <= spare:
            spare -= whole - left - right - 1
            taken[scene].insert(bisect(taken[scene], here), here)
            result[sample] = True
            budget -= 1
    return Spread(result, gap, int(_room(lengths, wanted).sum()))


def _members(labels: np.ndarray) -> list[np.ndarray]:
    """The indices of each label's samples, in order."""
    order = np.argsort(labels, kind='stable')
    return np.split(order, np.cumsum(np.bincount(labels))[:-1])


def _room(lengths: np.ndarray, gap: int) -> np.ndarray:
    """How many frames with a gap fit into each stretch of frames."""
    return -(-lengths // (gap + 1))


def _free(taken: list[int], here: int, length: int, gap: int) -> tuple[int, int]:
    """First and last position around ``here`` that are far enough from those taken."""
    index = bisect(taken, here)
    before = taken[index - 1] + gap + 1 if index else 0
    after = taken[index] - gap - 1 if index < len(taken) else length - 1
    return before, after
