"""Assembles the report page from a run's tables."""

import base64
import hashlib
import json
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
from ..workdir.probe import JudgedCurve, read_judged_curve
from . import sections
from .conflicts import conflict_section
from .examples import cluster_examples, suspect_rows
from .html import page_style, page_template
from .losers import loser_notes
from .pictures import make_pictures, usual_aspect
from .quality import quality_section
from .ranking import telling_gaps
from .verdict import conclude

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
    ('conflicts', 'Label conflicts', 'conflicts'),
    ('suspects', 'Label suspects', 'has_losses'),
    ('map', 'Feature map', 'map'),
)
# What a strategy has to have computed for a section, and which sections those are; a run has the
# others whatever its strategy, or only with data or a tool of its own.
MADE_FROM = (
    ('density scores', ('curve', 'clusters', 'map')),
    ('the losses of a proxy or probe', ('gaps', 'suspects')),
)


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
        read_conflicts(work_dir),
        str(work_dir),
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
    conflicts: pa.Table | None = None,
    work_dir: str = 'WORK_DIR',
) -> str:
    """The page as HTML.

    Args:
        run: a finished run.
        leakage: of a run beside it, if there was one.
        probed: a probe's curve beside it, likewise.
        conflicts: ``conflicts.parquet``; None for runs of older versions.
        work_dir: what to call it in commands.
    """
    content = _content(run)
    content['verdict'] = conclude(run, probed, work_dir)
    content['leakage'] = leakage
    content['quality'] = quality_section(probed)
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
    pictures = make_pictures(run, suspects + shown)
    scenes = sections.scene_rows(run)

    return dict(
        run=run.manifest,
        finished=sections.moment(run.manifest.finished),
        keep_ratio_note=sections.keep_ratio_note(run),
        notes=run.manifest.notes + loser_notes(run, scenes),
        glossary=sections.glossary(run),
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
        go_by_gap=bool(np.isfinite(telling_gaps(run)).any()),
        least_shift=sections.LEAST_SHIFT,
        has_shifts=sections.has_shifts(run),
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
        similarity_word=sections.similarity_word(run),
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
    """The table of contents, and what is not in it, with the reason."""
    present = [(section, title) for section, title, key in OPTIONAL_SECTIONS if content[key]]
    missing = {section: title for section, title, key in OPTIONAL_SECTIONS if not content[key]}
    absent = []
    for material, made in MADE_FROM:
        titles = [missing[section].lower() for section in made if section in missing]
        if titles:
            absent.append((words.joined(titles), material))
    present.insert(0, ('overview', 'Overview'))
    present.append(('files', 'Files and options'))
    return dict(sections=present, absent=absent)
