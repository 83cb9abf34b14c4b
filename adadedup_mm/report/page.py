"""Assembles the report page from a run's tables."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from ..base.errors import UserError
from ..base.files import atomic_open
from ..workdir.finished import FinishedRun, read_finished_run
from ..workdir.leakage import LeakageSummary, read_summary
from ..workdir.probe import JudgedCurve, read_judged_curve
from . import sections
from .examples import cluster_examples, suspect_rows
from .html import page_style, page_template
from .pictures import make_pictures, usual_aspect
from .quality import quality_section

HERE = Path(__file__).parent
SCRIPTS = ('sort.js', 'enlarge.js')
# Sections between the overview and the files: id, title, and what of the page's content fills it.
OPTIONAL_SECTIONS = (
    ('quality', 'Predicted quality', 'quality'),
    ('curve', 'Keep-ratio curve', 'curve'),
    ('clusters', 'Clusters', 'clusters'),
    ('gaps', 'Gaps', 'gaps'),
    ('classes', 'Classes', 'classes'),
    ('scenes', 'Scenes', 'scenes'),
    ('leakage', 'Leakage', 'leakage'),
    ('suspects', 'Label suspects', 'has_losses'),
    ('map', 'Feature map', 'map'),
)
# What a run has whatever its strategy, or only with data or a tool of its own.
NOT_OF_THE_STRATEGY = ('quality', 'classes', 'scenes', 'leakage')


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
    page = report_page(
        read_finished_run(work_dir),
        read_summary(work_dir),
        read_judged_curve(work_dir),
    )
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
    run: FinishedRun,
    leakage: LeakageSummary | None = None,
    probed: JudgedCurve | None = None,
) -> str:
    """The page as HTML, with sections about leakage and about a probe beside the run, if any."""
    content = _content(run)
    content['leakage'] = leakage
    content['quality'] = quality_section(probed)
    content |= _contents(content)
    content |= _style_and_script()
    return page_template(HERE / 'template.html.j2').render(content)


def _content(run: FinishedRun) -> dict[str, Any]:
    """What the template shows of the run."""
    examples = cluster_examples(run)
    example_clusters = sections.plain_rows(run.clusters, [example.index for example in examples])
    suspects, suspects_total = suspect_rows(run)
    shown = [row for example in examples for row in example.rows]
    pictures = make_pictures(run, suspects + shown)
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
        aspect=usual_aspect(pictures),
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
        suspects_labelled=any(pictures[row].labels for row in suspects),
        has_losses=bool(np.isfinite(run.samples['loss']).any()),
        map=sections.feature_map(run),
    )


def _style_and_script() -> dict[str, str]:
    """The style sheet, the script, and its digest: the page's policy lets no other script run."""
    scripts = [(HERE / name).read_text(encoding='utf-8') for name in SCRIPTS]
    script = '\n'.join(scripts)
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
