"""Assembles the report page from a run's tables."""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
from markupsafe import Markup

from ..base import words
from ..base.errors import UserError
from ..base.files import atomic_open
from ..leakage import Summary, read_summary
from ..workdir.reading import Run, read_run
from . import plots
from .examples import cluster_examples, label_suspects
from .thumbnails import make_thumbnails

HERE = Path(__file__).parent
MAP_POINTS = 6000
GAP_POINTS = 1000
ROWS = 1500  # of a table; more would make the page slow and nobody reads them


@dataclass(frozen=True)
class Picture:
    """A sample with its thumbnail; ``source`` is None where the image is not there any more."""

    sample_id: str
    path: str
    kept: bool
    similarity: float
    loss: float
    source: str | None
    aspect: float

    @property
    def name(self) -> str:
        """What to call it in a caption."""
        return words.short_name(self.path or self.sample_id)


def build_report(work_dir: Path) -> Path:
    """Writes ``report.html`` into a pruning run's work dir, from the tables there; atomically.

    Args:
        work_dir: holds samples.parquet, clusters.parquet, classes.parquet and manifest.json.
            Thumbnails are made from the images that samples.parquet names, where they still exist.

    Returns:
        The page: one file that asks for nothing else.

    Raises:
        UserError: a table is missing or broken, or the page cannot be written.
    """
    page = render(read_run(Path(work_dir)), read_summary(Path(work_dir)))
    path = Path(work_dir) / 'report.html'
    try:
        with atomic_open(path) as file:
            file.write(page.encode(errors='backslashreplace'))
    except OSError as error:
        raise UserError(
            f'{path} cannot be written ({error.strerror}): make room or give write permission'
        ) from None
    return path


def render(run: Run, leakage: Summary | None = None) -> str:
    """The page as HTML, with a section about leakage if there was a run beside it."""
    examples = cluster_examples(run)
    suspects, suspects_total = label_suspects(run)
    pictures = _pictures(run, [row for example in examples for row in example.rows] + suspects)
    scenes = _scene_rows(run)
    context = dict(
        run=run.manifest,
        finished=_moment(run.manifest.finished),
        options=_options(run),
        reasons=_reasons(run),
        pictures=pictures,
        aspect=_aspect(pictures),
        curve=_curve(run),
        clusters=_cluster_rows(run),
        clusters_total=len(run.clusters['cluster']),
        examples=list(
            zip(_rows(run.clusters, [example.index for example in examples]), examples, strict=True)
        ),
        gaps=_gaps(run),
        reliability=_reliability(run),
        classes=_class_rows(run),
        classes_total=len(run.classes['class']),
        scenes=scenes[:ROWS],
        scenes_total=len(scenes),
        leakage=leakage,
        suspects=suspects,
        suspects_total=suspects_total,
        has_losses=bool(np.isfinite(run.samples['loss']).any()),
        map=_map(run),
    )
    return (
        _environment()
        .get_template('template.html.j2')
        .render(context | _contents(context) | _style_and_script())
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        count=words.count,
        share=words.share,
        number=words.number,
        duration=words.duration,
        size=words.size,
    )
    return environment


def _style_and_script() -> dict[str, str]:
    """The style sheet, the script, and the script's digest: the page's policy lets no other script run."""
    style, script = ((HERE / name).read_text(encoding='utf-8') for name in ('style.css', 'sort.js'))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return dict(style=Markup(style), script=Markup(script), script_digest=digest)


def _contents(context: dict[str, Any]) -> dict[str, Any]:
    """The table of contents, and the titles of sections that every run with features and losses would have."""
    optional = [
        ('curve', 'Keep-ratio curve', 'curve'),
        ('clusters', 'Clusters', 'clusters'),
        ('gaps', 'Gaps', 'gaps'),
        ('classes', 'Classes', 'classes'),
        ('scenes', 'Scenes', 'scenes'),
        ('leakage', 'Leakage', 'leakage'),
        ('suspects', 'Label suspects', 'has_losses'),
        ('map', 'Feature map', 'map'),
    ]
    present = [(section, title) for section, title, key in optional if context[key]]
    absent = [
        title
        for section, title, key in optional
        if not context[key] and section not in ('classes', 'scenes', 'leakage')
    ]
    return dict(
        sections=[('overview', 'Overview'), *present, ('files', 'Files and options')], absent=absent
    )


def _pictures(run: Run, rows: list[int]) -> dict[int, Picture]:
    """Thumbnails of the first view of each sample, by row."""
    rows = sorted(set(rows))
    taken = pa.array(rows, pa.int64())
    paths = [(views or [''])[0] or '' for views in run.image_paths.take(taken).to_pylist()]
    ids = run.sample_ids.take(taken).to_pylist()
    columns = run.samples
    thumbnails = make_thumbnails(paths, run.manifest.reader)
    return {
        row: Picture(
            sample_id or '',
            path,
            bool(columns['kept'][row]),
            float(columns['partner_similarity'][row]),
            float(columns['loss'][row]),
            *(thumbnail or (None, 4 / 3)),
        )
        for row, sample_id, path, thumbnail in zip(rows, ids, paths, thumbnails, strict=True)
    }


def _aspect(pictures: dict[int, Picture]) -> float:
    """Width / height of the frames around the thumbnails: that of most images, within reason."""
    known = [picture.aspect for picture in pictures.values() if picture.source]
    return round(min(max(float(np.median(known)), 0.75), 2), 3) if known else 4 / 3


def _reasons(run: Run) -> list[dict[str, Any]]:
    """How many samples went or stayed for which reason, kept ones first, by falling count."""
    table = pa.table(dict(kept=run.samples['kept'], reason=run.reasons))
    counts = table.group_by(['kept', 'reason']).aggregate([([], 'count_all')]).to_pylist()
    rows = [
        dict(kept=row['kept'], reason=row['reason'] or 'unknown', samples=row['count_all'])
        for row in counts
    ]
    return sorted(rows, key=lambda row: (not row['kept'], -row['samples'], row['reason']))


def _curve(run: Run) -> dict[str, Any] | None:
    """The keep-ratio curve: its plot and a short table; None without thresholds."""
    manifest = run.manifest
    points = sorted(
        (point.keep_ratio, point.threshold)
        for point in manifest.threshold_curve or ()
        if point.threshold is not None and np.isfinite(point.threshold) and point.threshold > -1
    )
    if len(points) < 2:
        return None
    ratios, thresholds = np.array(points, float).T
    own = run.clusters['threshold'][np.isfinite(run.clusters['threshold'])]
    spread = (float(own.min()), float(own.max())) if len(own) and np.ptp(own) > 5e-4 else None
    # A ratio below the curve's first point leaves fewer samples than there are clusters; no
    # threshold says that.
    chosen = manifest.keep_ratio if manifest.keep_ratio >= ratios[0] else None
    shown = {round(0.1 * step, 1) for step in range(1, 11)} | {chosen or 1.0}
    rows = [
        dict(
            keep_ratio=ratio,
            threshold=float(np.interp(ratio, ratios, thresholds)),
            kept=ratio * manifest.samples,
            chosen=ratio == chosen,
        )
        for ratio in sorted(shown)
        if ratios[0] <= ratio <= ratios[-1]
    ]
    threshold = None if chosen is None else float(np.interp(chosen, ratios, thresholds))
    return dict(
        plot=plots.curve_plot(ratios, thresholds, chosen, threshold),
        rows=rows,
        threshold=threshold,
        spread=spread,
    )


def _cluster_rows(run: Run) -> list[dict[str, Any]]:
    """Clusters by falling gap, then by falling number of pruned samples."""
    clusters = run.clusters
    order = np.lexsort((clusters['cluster'], clusters['kept'] - clusters['size'], -clusters['gap']))
    return _rows(clusters, order)


def _rows(
    columns: dict[str, np.ndarray], order: Sequence[int] | np.ndarray
) -> list[dict[str, Any]]:
    """The first rows of a table in this order, as dicts of plain values."""
    return [
        {
            name: column[index].item() if isinstance(column[index], np.generic) else column[index]
            for name, column in columns.items()
        }
        for index in order[:ROWS]
    ]


def _gaps(run: Run) -> dict[str, Any] | None:
    """Gap against pruning rate; None without gaps."""
    clusters = run.clusters
    known = np.flatnonzero(np.isfinite(clusters['gap']) & (clusters['size'] > 0))
    if not len(known):
        return None
    shown = known[np.argsort(-clusters['size'][known], kind='stable')][:GAP_POINTS]
    columns = {name: column[shown] for name, column in clusters.items()}
    rate = 1 - columns['kept'] / columns['size']
    names = [
        f'cluster {columns["cluster"][i]}: gap {words.number(columns["gap"][i])} \u00b1 '
        f'{words.number(columns["gap_se"][i])}, {words.share(rate[i])} of '
        f'{words.count(columns["size"][i])} pruned'
        for i in range(len(shown))
    ]
    plot = plots.gap_plot(columns['gap'], columns['gap_se'], rate, columns['size'], names)
    return dict(plot=plot, shown=len(shown), total=len(known))


def _reliability(run: Run) -> str | None:
    """One sentence on how far the gaps can be trusted."""
    given = run.manifest.gap_reliability
    if given is None:
        return None
    facts = []
    if given.split_half is not None and np.isfinite(given.split_half):
        facts.append(
            'the gaps of two random halves of the samples correlate at '
            f'{words.number(given.split_half, 2)}'
        )
    if given.signal_share is not None and np.isfinite(given.signal_share):
        facts.append(
            f'{words.share(given.signal_share, 0)} of the variance between the gaps is signal, the '
            'rest is '
            'noise of the measurement'
        )
    if not facts:
        return None
    where = (
        'Over all clusters'
        if given.clusters is None
        else f'Over {words.count(given.clusters)} clusters'
    )
    return f'{where}, {" and ".join(facts)}. The noisier the gaps, the closer the thresholds stay to plain density.'


def _class_rows(run: Run) -> list[dict[str, Any]]:
    """Classes by falling number of instances."""
    classes = run.classes
    return _rows(classes, np.lexsort((classes['class'].astype(str), -classes['instances'])))


def _scene_rows(run: Run) -> list[dict[str, Any]]:
    """Samples and kept samples of each scene, the most pruned first; empty where scenes are unknown."""
    table = pa.table(dict(scene=run.scenes, kept=run.samples['kept'].astype(np.int64))).drop_null()
    counts = table.group_by('scene').aggregate([('kept', 'count'), ('kept', 'sum')]).to_pylist()
    rows = [
        dict(scene=row['scene'], samples=row['kept_count'], kept=row['kept_sum']) for row in counts
    ]
    return sorted(rows, key=lambda row: (row['kept'] / row['samples'], row['scene']))


def _map(run: Run) -> dict[str, Any] | None:
    """The 2-D map of the features, of a random choice if there are too many samples; None without features."""
    x, y = run.samples['map_x'], run.samples['map_y']
    known = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    if not len(known):
        return None
    shown = (
        known
        if len(known) <= MAP_POINTS
        else np.random.default_rng(0).choice(known, MAP_POINTS, replace=False)
    )
    return dict(
        plot=plots.map_plot(x[shown], y[shown], run.samples['kept'][shown]),
        shown=len(shown),
        total=len(known),
    )


def _moment(text: str) -> str:
    """An ISO time as people read it; anything else as it is."""
    try:
        return f'{datetime.fromisoformat(text):%Y-%m-%d %H:%M} UTC'
    except ValueError:
        return text


def _options(run: Run) -> str:
    return json.dumps(run.manifest.options, indent=2, ensure_ascii=False, default=str)
