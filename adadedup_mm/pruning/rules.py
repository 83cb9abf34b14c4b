"""What a selection must keep whatever the strategy says: the floors of classes, whole scenes, gaps in time."""

import numpy as np

from ..selection import Selection
from ..selection.class_floor import classes_below, keep_class_floor
from ..selection.scenes import keep_groups, preference, spread_frames
from ..strategies.run import Run


def apply_class_floor(run: Run, selection: Selection) -> list[str]:
    """For strategies that know how redundant a sample is; returns the classes whose floor cannot be met."""
    ratio = run.options.guards.min_class_ratio * run.options.keep_ratio
    if not selection.has_scores or not ratio or selection.update:
        return []
    locked = run.unreadable | ~run.pool.labelled
    selection.kept, missed = keep_class_floor(
        run.pool, selection.kept, selection.margin, ratio, locked
    )
    return missed


def apply_scenes(
    run: Run, selection: Selection, scenes: np.ndarray, added: np.ndarray
) -> list[str]:
    """``group_by`` or ``min_gap``; ``added`` came in for the class floor. Returns the classes below their floor."""
    options, n, budget = run.options, len(run.pool), int(selection.kept.sum())
    usable = ~run.dropped
    first = added | (named_unreadable(run, selection) & usable)
    redundancy = np.zeros(n) if selection.score is None else -selection.score
    places = preference(
        selection.kept,
        selection.margin if selection.has_scores else redundancy,
        run.generator('scenes'),
        first,
    )
    if options.group_by:
        selection.kept = keep_groups(scenes, selection.kept, places, usable)
        count = len(np.unique(scenes[selection.kept]))
        selection.notes.append(
            f"group_by='scene': {count} of {scenes.max() + 1} scenes stay, with "
            f'{selection.kept.sum()} samples for a budget of {budget}.'
        )
    else:
        spread = spread_frames(scenes, selection.kept, places, usable, options.min_gap)
        selection.kept = spread.kept
        met = f'kept frames of a scene have at least {spread.gap} others between them'
        selection.notes.append(
            f'min_gap={options.min_gap}: {met}.'
            if spread.room >= budget
            else (
                f'min_gap={options.min_gap} cannot be met, which has room for {spread.room} '
                f'samples while {budget} are '
                f'kept: {met}.'
            )
        )
    floor_ratio = options.guards.min_class_ratio * options.keep_ratio
    return classes_below(run.pool, selection.kept, floor_ratio) if selection.has_scores else []


def named_unreadable(run: Run, selection: Selection) -> np.ndarray:
    """(N,) bool, the samples about which their image alone decided: nothing else is known of it."""
    if not run.image_stages.looked_at_images:
        return np.zeros(len(run.pool), bool)
    is_ranked = selection.has_scores or selection.score is not None
    return run.unreadable if is_ranked else run.dropped
