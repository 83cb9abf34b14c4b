"""Assembles the report page from a run's tables."""

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from markupsafe import Markup

from ..base import words
from ..base.errors import UserError
from ..base.files import atomic_open
from ..workdir.conflicts import read_conflicts
from ..workdir.finished import FinishedRun, read_finished_run
from ..workdir.leakage import LeakageSummary, read_summary
from . import sections
from .conflicts import conflict_section
from .examples import cluster_examples, suspect_rows
from .html import page_style, page_template
from .thumbnails import make_thumbnails

HERE = Path(__file__).parent
# Width / height of pictures where no image tells.
USUAL_ASPECT = 4 / 3
# Sections between the overview and the files: id, title, and what of the page's content fills it.
OPTIONAL_SECTIONS = (
    ('curve', 'Keep-ratio curve', 'curve'),
    ('clusters', 'Clusters', 'clusters'),
    ('gaps', 'Gaps', 'gaps'),
    ('classes', 'Classes', 'classes'),
    ('scenes', 'Scenes', 'scenes'),
    ('leakage', 'Leakage', 'leakage'),
    ('conflicts', 'Label conflicts', 'conflicts'),
    ('suspects', 'Label suspects', 'has_losses'),
    ('map', 'Feature map', 'map'),
)
# What a run has whatever its strategy, or only with data or a tool of its own.
NOT_OF_THE_STRATEGY = ('classes', 'scenes', 'leakage', 'conflicts')


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
        name = self.path or self.sample_id
        return words.short_name(name)


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
    work_dir = Path(work_dir)
    run = read_finished_run(work_dir)
    page = report_page(run, read_summary(work_dir), read_conflicts(work_dir))
    path = work_dir / 'report.html'
    try:
        with atomic_open(path) as file:
            file.write(page.encode(errors='backslashreplace'))
    except OSError as error:
        raise UserError(
            f'{path} cannot be written ({error.strerror}): make room or give write permission'
        ) from None

    return path


def report_page(
    run: FinishedRun, leakage: LeakageSummary | None = None, conflicts: pa.Table | None = None
) -> str:
    """The page as HTML.

    Args:
        run: a finished run.
        leakage: of a run beside it, if there was one.
        conflicts: ``conflicts.parquet``; None for runs of older versions.
    """
    content = _content(run)
    content['leakage'] = leakage
    content['conflicts'] = conflict_section(run, conflicts)
    content |= _contents(content)
    content |= _style_and_script()
    return page_template(HERE / 'template.html.j2').render(content)


def _content(run: FinishedRun) -> dict[str, Any]:
    """What the template shows of the run."""
    examples = cluster_examples(run)
    example_clusters = sections.plain_rows(run.clusters, [example.index for example in examples])
    suspects, suspects_total = suspect_rows(run)
    shown = [row for example in examples for row in example.rows]
    pictures = _pictures(run, shown + suspects)
    scenes = sections.scene_rows(run)

    return dict(
        run=run.manifest,
        finished=sections.moment(run.manifest.finished),
        options=json.dumps(
            run.manifest.options,
            indent=2,
            ensure_ascii=False,
            default=str,
        ),
        reasons=sections.reason_rows(run),
        pictures=pictures,
        aspect=_aspect(pictures),
        curve=sections.keep_ratio_curve(run),
        clusters=sections.cluster_rows(run),
        clusters_total=len(run.clusters['cluster']),
        examples=list(zip(example_clusters, examples, strict=True)),
        gaps=sections.gap_section(run),
        reliability=sections.reliability_sentence(run),
        classes=sections.class_rows(run),
        classes_total=len(run.classes['class']),
        scenes=scenes[: sections.ROWS],
        scenes_total=len(scenes),
        suspects=suspects,
        suspects_total=suspects_total,
        has_losses=bool(np.isfinite(run.samples['loss']).any()),
        map=sections.feature_map(run),
    )


def _style_and_script() -> dict[str, str]:
    """The style sheet, the script, and its digest: the page's policy lets no other script run."""
    script = (HERE / 'sort.js').read_text(encoding='utf-8')
    digest = hashlib.sha256(script.encode()).digest()
    return dict(
        style=page_style(),
        script=Markup(script),
        script_digest=base64.b64encode(digest).decode(),
    )


def _contents(content: dict[str, Any]) -> dict[str, Any]:
    """The table of contents, and titles of sections that a run of another strategy would have."""
    present, absent = [], []
    for section, title, key in OPTIONAL_SECTIONS:
        if content[key]:
            present.append((section, title))
        elif section not in NOT_OF_THE_STRATEGY:
            absent.append(title)
    present.insert(0, ('overview', 'Overview'))
    present.append(('files', 'Files and options'))
    return dict(sections=present, absent=absent)


def _pictures(run: FinishedRun, rows: list[int]) -> dict[int, Picture]:
    """Thumbnails of the first view of each sample, by row."""
    rows = sorted(set(rows))
    taken = pa.array(rows, pa.int64())
    ids = run.sample_ids.take(taken).to_pylist()
    paths = [_first_path(views) for views in run.image_paths.take(taken).to_pylist()]
    thumbnails = make_thumbnails(paths, run.manifest.image_reader)
    columns = run.samples
    pictures = {}
    for row, sample_id, path, thumbnail in zip(rows, ids, paths, thumbnails, strict=True):
        source, aspect = thumbnail or (None, USUAL_ASPECT)
        pictures[row] = Picture(
            sample_id=sample_id or '',
            path=path,
            kept=bool(columns['kept'][row]),
            similarity=float(columns['partner_similarity'][row]),
            loss=float(columns['loss'][row]),
            source=source,
            aspect=aspect,
        )

    return pictures


def _first_path(views: list[str] | None) -> str:
    """Of the first view; empty for images that are no files."""
    return views[0] if views else ''


def _aspect(pictures: dict[int, Picture]) -> float:
    """Width / height of the frames around thumbnails: that of most images, within reason."""
    known = [picture.aspect for picture in pictures.values() if picture.source]
    if not known:
        return USUAL_ASPECT
    median = float(np.median(known))
    within_reason = min(max(median, 0.75), 2)
    return round(within_reason, 3)
