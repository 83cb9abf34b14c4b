"""What holds whatever the strategy says: right labels, class floors, scenes, gaps in time."""

import numpy as np

from ..base.words import listed
from ..selection import Selection
from ..selection.better_labels import keep_better_labels
from ..selection.class_floor import classes_below, keep_class_floor
from ..selection.scenes import keep_groups, preference, spread_frames
from ..strategies.run import Run


def apply_rules(run: Run, selection: Selection) -> None:
    """Copies with contradicting labels, then the floors of classes, ``group_by`` or ``min_gap``.

    Notes say what could not be met.
    """
    _apply_better_labels(run, selection)
    chosen = selection.kept
    missed = _apply_class_floor(run, selection)
    scenes = run.scenes
    if scenes is not None and selection.update is not None:
        selection.notes.append(
            'group_by and min_gap are left aside: an update does not revise older decisions.'
        )
    elif scenes is not None:
        missed = _apply_scenes(run, selection, scenes, added=selection.kept & ~chosen)

    if missed:
        in_its_way = '' if scenes is None else ', or the rule for scenes is in its way'
        selection.notes.append(
            f'The class floor of {listed(missed)} cannot be met: '
            f'the keep ratio is too small{in_its_way}.'
        )


def _apply_better_labels(run: Run, selection: Selection) -> None:
    """For strategies that go by density scores: of contradicting copies the better ones stay."""
    is_asked = run.options.guards.conflicts and selection.update is None
    better = run.conflicts.better
    if not is_asked or not selection.has_scores or not (better >= 0).any():
        return
    locked = run.unreadable | ~run.pool.labelled
    result = keep_better_labels(selection.kept, selection.margin, better, locked)
    why_pruned = 'its labels contradict a better copy'
    selection.change(result.swapped, 'has better labels than its copy', why_pruned)
    selection.change(result.kept, 'in place of a contradicting copy', why_pruned)


def _apply_class_floor(run: Run, selection: Selection) -> list[str]:
    """For strategies that know how redundant a sample is; returns the classes below their floor."""
    ratio = _floor_ratio(run)
    if not selection.has_scores or not ratio or selection.update is not None:
        return []
    locked = run.unreadable | ~run.pool.labelled
    kept, missed = keep_class_floor(run.pool, selection.kept, selection.margin, ratio, locked)
    selection.change(kept, 'class floor', 'made room for the class floor')
    return missed


def _floor_ratio(run: Run) -> float:
    """The share of its samples that every class keeps."""
    options = run.options
    return options.guards.min_class_ratio * options.keep_ratio


def _apply_scenes(
    run: Run, selection: Selection, scenes: np.ndarray, added: np.ndarray
) -> list[str]:
    """``group_by`` or ``min_gap``; returns the classes below their floor.

    Args:
        run: the pruning run.
        selection: is changed.
        scenes: (N,) int32 labels.
        added: (N,) bool, samples that came in for the class floor.
    """
    usable = ~run.dropped
    places = _places(run, selection, added, usable)
    if run.options.group_by:
        _keep_scenes(selection, scenes, places, usable)
    else:
        _keep_gaps(selection, scenes, places, usable, run.options.min_gap)
    if not selection.has_scores:
        return []
    return classes_below(run.pool, selection.kept, _floor_ratio(run))


def _places(run: Run, selection: Selection, added: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """(N,) int64, see ``preference``; samples that do not compete by redundancy go first."""
    first = added | (named_unreadable(run, selection) & usable)
    redundancy = np.zeros(len(run.pool))
    if selection.has_scores:
        redundancy = selection.margin
    elif selection.score is not None:
        redundancy = -selection.score
    return preference(selection.kept, redundancy, run.generator('scenes'), first)


def _keep_scenes(
    selection: Selection, scenes: np.ndarray, places: np.ndarray, usable: np.ndarray
) -> None:
    budget = selection.kept.sum()
    kept = keep_groups(scenes, selection.kept, places, usable)
    selection.change(kept, 'kept with its scene', 'pruned with its scene')
    total = scenes.max() + 1
    stays = len(np.unique(scenes[kept]))
    selection.notes.append(
        f"group_by='scene': {stays} of {total} scenes stay, "
        f'with {kept.sum()} samples for a budget of {budget}.'
    )


def _keep_gaps(
    selection: Selection, scenes: np.ndarray, places: np.ndarray, usable: np.ndarray, min_gap: int
) -> None:
    budget = selection.kept.sum()
    spread = spread_frames(scenes, selection.kept, places, usable, min_gap)
    selection.change(spread.kept, 'chosen for the gap', 'made room for the gap')
    wanted = f'min_gap={min_gap}'
    if spread.room < budget:
        wanted += (
            f' cannot be met, which has room for {spread.room} samples while {budget} are kept'
        )

    met = f'kept frames of a scene have at least {spread.gap} others between them'
    selection.notes.append(f'{wanted}: {met}.')


def name_unreadable(run: Run, selection: Selection) -> None:
    """Says of the samples about which their image decided that it did."""
    unreadable = named_unreadable(run, selection)
    if selection.update is not None:
        # Older decisions keep their reasons.
        unreadable = unreadable & selection.unexplained
    selection.reason[unreadable] = 'unreadable image'


def named_unreadable(run: Run, selection: Selection) -> np.ndarray:
    """(N,) bool, samples about which their image alone decided: nothing else is known of them."""
    if not run.image_stages.looked_at_images:
        return np.zeros(len(run.pool), bool)
    is_ranked = selection.has_scores or selection.score is not None
    return run.unreadable if is_ranked else run.dropped
