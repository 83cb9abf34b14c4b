"""Selections that follow scenes: whole ones, or frames at a distance from each other."""

from bisect import bisect, insort
from typing import NamedTuple, TypeVar

import numpy as np

from ..base.errors import UserError
from ..pool import Pool, label

Length = TypeVar('Length', int, np.ndarray)
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
        what = 'no scenes'
        if len(without) < len(pool):
            what = f'no scene for {len(without)} of {len(pool)} samples, first {without[0]}'
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
    count = len(kept)
    order = np.lexsort((generator.permutation(count), redundancy, ~kept, ~first))
    places = np.empty(count, np.int64)
    places[order] = np.arange(count)
    return places


def keep_groups(
    groups: np.ndarray, kept: np.ndarray, places: np.ndarray, usable: np.ndarray
) -> np.ndarray:
    """Turns a choice of samples into one of whole groups.

    Groups are wanted in the order of the share of their samples that was chosen, ties by the mean
    place of their samples. They are taken in this order; which of the 64 on the edge of the
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
    chosen_sizes = np.bincount(groups, kept & usable, len(sizes))
    sums_of_places = np.bincount(groups, places * usable, len(sizes))
    exists = np.flatnonzero(sizes)
    share = chosen_sizes[exists] / sizes[exists]
    mean_place = sums_of_places[exists] / sizes[exists]
    order = exists[np.lexsort((mean_place, -share))]
    ordered_sizes = sizes[order].astype(int)
    taken = _take(ordered_sizes.tolist(), int(kept.sum()))
    chosen = np.zeros(len(sizes), bool)
    chosen[order[taken]] = True

    return chosen[groups] & usable


def _take(sizes: list[int], budget: int) -> list[int]:
    """Positions of the groups to keep.

    Args:
        sizes: of the groups, in the order in which they are wanted.
        budget: how many samples they should have together.
    """
    fitting = int(np.searchsorted(np.cumsum(sizes), budget, side='right'))
    start = max(0, fitting - _EDGE // 2)
    edge = sizes[start : start + _EDGE]
    reach = _reachable(edge)
    wanted = budget - sum(sizes[:start])
    least = 1 if budget and not start else 0

    def distance(total: int) -> tuple[int, int]:
        return abs(total - wanted), total

    possible = range(least, reach[0].bit_length())
    totals = [total for total in possible if _has_bit(reach[0], total)]
    left = min(totals, key=distance, default=0)
    taken = list(range(start))
    for i, size in enumerate(edge):
        if size <= left and _has_bit(reach[i + 1], left - size):
            taken.append(start + i)
            left -= size

    return taken


def _has_bit(number: int, bit: int) -> bool:
    return bool(number >> bit & 1)


def _reachable(sizes: list[int]) -> list[int]:
    """Bit b of item i: some of the groups from i on have b samples together."""
    reach = [1]
    for size in reversed(sizes):
        without = reach[-1]
        reach.append(without | without << size)
    reach.reverse()
    return reach


def spread_frames(
    scenes: np.ndarray, kept: np.ndarray, places: np.ndarray, usable: np.ndarray, min_gap: int
) -> Spread:
    """Moves a choice of frames so that kept ones of a scene are not near; their number stays.

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
    timelines = [frames[usable[frames]] for frames in _members(scenes)]
    lengths = np.array([len(frames) for frames in timelines])
    budget = int(kept.sum())
    wanted = min(min_gap, int(lengths.max(initial=0)))
    gap = _largest_gap(lengths, wanted, budget)
    position = np.zeros(len(kept), np.int64)
    for frames in timelines:
        position[frames] = np.arange(len(frames))

    # How many frames the room is larger than the budget.
    spare = int(_room(lengths, gap).sum()) - budget
    taken: list[list[int]] = [[] for _ in timelines]
    result = np.zeros(len(kept), bool)
    by_place = np.argsort(places)
    for frame in by_place[usable[by_place]].tolist():
        if budget == 0:
            break
        scene, here = scenes[frame], int(position[frame])
        first, last = _free(taken[scene], here, int(lengths[scene]), gap)
        if not first <= here <= last:
            continue
        lost = _lost_room(first, here, last, gap)
        if lost <= spare:
            spare -= lost
            insort(taken[scene], here)
            result[frame] = True
            budget -= 1

    return Spread(
        kept=result,
        gap=gap,
        room=int(_room(lengths, wanted).sum()),
    )


def _largest_gap(lengths: np.ndarray, wanted: int, budget: int) -> int:
    """The largest gap, at most the wanted one, with which scenes have room for the budget."""
    gap = wanted
    while _room(lengths, gap).sum() < budget:
        gap -= 1
    return gap


def _lost_room(first: int, here: int, last: int, gap: int) -> int:
    """How many frames less fit into the stretch from ``first`` to ``last`` once ``here`` is taken.

    A frame may take the place of two.
    """
    end_before, start_after = here - gap, here + gap
    whole = _room(last - first + 1, gap)
    before = _room(max(end_before - first, 0), gap)
    after = _room(max(last - start_after, 0), gap)
    return whole - before - after - 1


def _members(labels: np.ndarray) -> list[np.ndarray]:
    """The indices of each label's samples, in order."""
    order = np.argsort(labels, kind='stable')
    ends = np.cumsum(np.bincount(labels))
    return np.split(order, ends[:-1])


def _room(length: Length, gap: int) -> Length:
    """How many frames with a gap fit into a stretch of frames, or into each of several."""
    return -(-length // (gap + 1))


def _free(taken: list[int], here: int, length: int, gap: int) -> tuple[int, int]:
    """First and last position around ``here`` that are far enough from those taken."""
    first, last = 0, length - 1
    index = bisect(taken, here)
    if index > 0:
        first = taken[index - 1] + gap + 1
    if index < len(taken):
        last = taken[index] - gap - 1
    return first, last
