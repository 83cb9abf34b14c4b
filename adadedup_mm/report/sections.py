"""What each section of the page says, from a run's tables; None where it has no such data."""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from ..base import words
from ..workdir.finished import Columns, FinishedRun
from ..workdir.manifest import CurvePoint
from . import plots
from .ranking import highest_gap_first, telling_gaps

MAP_POINTS = 6000
GAP_POINTS = 1000
# Of a table; more would make the page slow and nobody reads them.
ROWS = 1500
# Thresholds of clusters that differ by less are one threshold, rounded.
_LEAST_SPREAD = 5e-4
# What is less shows as 0.
LEAST_SHIFT = 5e-4

Row = dict[str, Any]


def reason_rows(run: FinishedRun) -> list[Row]:
    """How many samples went or stayed for which reason, kept ones first, by falling count."""
    table = pa.table(dict(kept=run.samples['kept'], reason=run.reasons))
    groups = table.group_by(['kept', 'reason'])
    counts = groups.aggregate([([], 'count_all')])
    rows = []
    for group in counts.to_pylist():
        row = dict(
            kept=group['kept'],
            reason=group['reason'] or 'unknown',
            samples=group['count_all'],
        )
        rows.append(row)

    return sorted(rows, key=_kept_and_frequent_first)


def _kept_and_frequent_first(row: Row) -> tuple[bool, int, str]:
    is_pruned = not row['kept']
    return is_pruned, -row['samples'], row['reason']


def keep_ratio_note(run: FinishedRun) -> str:
    """Why an update keeps another share than its keep ratio; '' for full runs."""
    manifest = run.manifest
    if not manifest.update:
        return ''
    asked = words.share(manifest.keep_ratio)
    of_all = words.share(manifest.kept / manifest.samples)
    new_kept = words.count(manifest.update.new_kept)
    new = words.count(manifest.update.new)
    return (
        f"Keep ratio {asked} is the last full run's; this update kept {new_kept} of {new} new "
        f'samples by its thresholds and left older decisions as they were: {of_all} in all.'
    )


def glossary(run: FinishedRun) -> list[tuple[str, str]]:
    """The kinds of similarity on the page and what each means; none without density scores."""
    if not len(run.clusters['cluster']):
        return []
    layout = run.manifest.used_layout
    is_blended = math.isfinite(layout) and layout > 0
    blend = 'the image similarity'
    if is_blended:
        image_part = words.share(1 - layout, 0)
        blend = f'{image_part} image similarity, {words.share(layout, 0)} labels'
    found = run.manifest.near_duplicates
    bound = f', {words.number(found.bound, 2)}' if found else ''
    return [
        ('Density score', f'how much a sample resembles one that its cluster has ({blend})'),
        ('Image similarity', 'cosine of the image features'),
        ('Near-duplicate bound', f'image similarity from which two samples are copies{bound}'),
    ]


def similarity_word(run: FinishedRun) -> str:
    """What the figures on pictures are: older runs did not keep the image similarity of a blend."""
    is_known = np.isfinite(run.samples['image_similarity']).any()
    is_the_same = run.manifest.used_layout == 0
    return 'image similarity' if is_known or is_the_same else 'density score'


def keep_ratio_curve(run: FinishedRun) -> dict[str, Any] | None:
    """The keep-ratio curve: its plot and a short table; None without thresholds."""
    manifest = run.manifest
    points = [point for point in manifest.threshold_curve or () if _is_threshold(point)]
    if len(points) < 2:
        return None
    curve = sorted((point.keep_ratio, point.threshold) for point in points)
    ratios, thresholds = np.array(curve, float).T
    chosen = threshold = None
    # A ratio below the curve's first point leaves fewer samples than there are clusters; no
    # threshold says that.
    if manifest.keep_ratio >= ratios[0]:
        chosen = manifest.keep_ratio
        threshold = float(np.interp(chosen, ratios, thresholds))

    return dict(
        plot=plots.curve_plot(ratios, thresholds, chosen, threshold),
        rows=_curve_rows(ratios, thresholds, chosen, manifest.samples),
        threshold=threshold,
        spread=_threshold_spread(run.clusters['threshold']),
    )


def _is_threshold(point: CurvePoint) -> bool:
    """Whether a point of the curve is a density score that samples can have."""
    threshold = point.threshold
    if threshold is None or not math.isfinite(threshold):
        return False
    return threshold > -1


def _curve_rows(
    ratios: np.ndarray, thresholds: np.ndarray, chosen: float | None, samples: int
) -> list[Row]:
    """A row for every tenth, and for the chosen ratio, as far as the curve goes."""
    shown = {round(0.1 * step, 1) for step in range(1, 11)}
    shown.add(chosen or 1.0)
    rows = []
    for ratio in sorted(shown):
        if ratios[0] <= ratio <= ratios[-1]:
            threshold = float(np.interp(ratio, ratios, thresholds))
            rows.append(
                dict(
                    keep_ratio=ratio,
                    threshold=threshold,
                    kept=ratio * samples,
                    chosen=ratio == chosen,
                )
            )

    return rows


def _threshold_spread(thresholds: np.ndarray) -> tuple[float, float] | None:
    """The lowest and the highest threshold of the clusters; None if they have the same one."""
    known = thresholds[np.isfinite(thresholds)]
    if not len(known):
        return None
    lowest = float(known.min())
    highest = float(known.max())
    if highest - lowest <= _LEAST_SPREAD:
        return None
    return lowest, highest


def cluster_rows(run: FinishedRun) -> list[Row]:
    """Clusters by falling gap; the most pruned first where the gaps hold no signal."""
    clusters = run.clusters
    order = highest_gap_first(telling_gaps(run), clusters['size'], clusters['kept'])
    return plain_rows(clusters, order)


def has_shifts(run: FinishedRun) -> bool:
    """Whether the threshold of any cluster was moved, as far as three decimals show it."""
    shift = run.clusters['shift']
    return bool((np.abs(shift) >= LEAST_SHIFT).any())


def plain_rows(columns: Columns, order: Sequence[int] | np.ndarray) -> list[Row]:
    """The first rows of a table in this order, as dicts of plain values."""
    shown = np.array(order[:ROWS], np.int64)
    table = pa.table({name: column[shown] for name, column in columns.items()})
    return table.to_pylist()


def gap_section(run: FinishedRun) -> dict[str, Any] | None:
    """Gap against pruning rate; None without gaps."""
    clusters = run.clusters
    has_gap = np.isfinite(clusters['gap'])
    known = np.flatnonzero(has_gap & (clusters['size'] > 0))
    if not len(known):
        return None
    largest_first = np.argsort(-clusters['size'][known], kind='stable')
    shown = known[largest_first][:GAP_POINTS]
    number = clusters['cluster'][shown]
    gap = clusters['gap'][shown]
    gap_se = clusters['gap_se'][shown]
    size = clusters['size'][shown]
    rate = 1 - clusters['kept'][shown] / size
    figures = zip(number, gap, gap_se, rate, size, strict=True)
    names = [_dot_name(*row) for row in figures]
    plot = plots.gap_plot(gap, gap_se, rate, size, names)

    return dict(
        plot=plot,
        shown=len(shown),
        total=len(known),
    )


def _dot_name(cluster: int, gap: float, gap_se: float, rate: float, size: int) -> str:
    """What the dot of a cluster says when it is pointed at."""
    gap_text = words.number(gap)
    error_text = words.number(gap_se)
    share_text = words.share(rate)
    size_text = words.count(size)
    return (
        f'cluster {cluster}: gap {gap_text} \u00b1 {error_text}, {share_text} of {size_text} pruned'
    )


def reliability_sentence(run: FinishedRun) -> str | None:
    """How far the gaps can be trusted; None where that is unknown."""
    given = run.manifest.gap_reliability
    if given is None:
        return None
    facts = []
    if _is_known(given.split_half):
        correlation = words.number(given.split_half, 2)
        facts.append(f'the gaps of two random halves of the samples correlate at {correlation}')

    if _is_known(given.signal_share):
        signal = words.share(given.signal_share, 0)
        facts.append(
            f'{signal} of the variance between the gaps is signal, '
            'the rest is noise of the measurement'
        )

    if not facts:
        return None
    clusters = 'all'
    if given.clusters is not None:
        clusters = words.count(given.clusters)
    what = ' and '.join(facts)

    return (
        f'Over {clusters} clusters, {what}. '
        'The noisier the gaps, the closer the thresholds stay to plain density.'
    )


def _is_known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def class_rows(run: FinishedRun) -> list[Row]:
    """Classes by falling number of instances."""
    classes = run.classes
    names = classes['class'].astype(str)
    order = np.lexsort((names, -classes['instances']))
    return plain_rows(classes, order)


def scene_rows(run: FinishedRun) -> list[Row]:
    """Samples of each scene, the most pruned first; none without scenes.

    Beside all and the kept ones: ``copies``, pruned ones with a near-duplicate among what stayed.
    """
    kept = run.samples['kept'].astype(np.int64)
    found = run.manifest.near_duplicates
    bound = found.bound if found else math.inf
    is_copy = run.samples['image_similarity'] >= bound
    copies = is_copy.astype(np.int64)
    table = pa.table(dict(scene=run.scenes, kept=kept, copies=copies)).drop_null()
    groups = table.group_by('scene')
    counts = groups.aggregate([('kept', 'count'), ('kept', 'sum'), ('copies', 'sum')])
    rows = []
    for group in counts.to_pylist():
        row = dict(
            scene=group['scene'],
            samples=group['kept_count'],
            kept=group['kept_sum'],
            copies=group['copies_sum'],
        )
        rows.append(row)

    return sorted(rows, key=_most_pruned_first)


def _most_pruned_first(row: Row) -> tuple[float, str]:
    share_kept = row['kept'] / row['samples']
    return share_kept, row['scene']


def feature_map(run: FinishedRun) -> dict[str, Any] | None:
    """The 2-D map of the features, of a random choice if there are too many samples.

    None without features.
    """
    x = run.samples['map_x']
    y = run.samples['map_y']
    kept = run.samples['kept']
    is_known = np.isfinite(x) & np.isfinite(y)
    known = np.flatnonzero(is_known)
    if not len(known):
        return None
    shown = known
    if len(known) > MAP_POINTS:
        generator = np.random.default_rng(0)
        shown = generator.choice(known, MAP_POINTS, replace=False)

    plot = plots.map_plot(x[shown], y[shown], kept[shown])

    return dict(
        plot=plot,
        shown=len(shown),
        total=len(known),
    )


def moment(text: str) -> str:
    """An ISO time as people read it; anything else as it is."""
    try:
        return f'{datetime.fromisoformat(text):%Y-%m-%d %H:%M} UTC'
    except ValueError:
        return text
