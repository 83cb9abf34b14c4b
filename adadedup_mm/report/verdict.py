"""What a run means for its user, and what to do next: the first lines of the page. Pure."""

import shlex
from dataclasses import dataclass

from ..base import words
from ..workdir.finished import FinishedRun
from ..workdir.manifest import Manifest
from ..workdir.probe import JudgedCurve

# From this share of near-duplicates on, what went was mostly copies.
MANY_NEAR_DUPLICATES = 0.5
# Sentences on the page; the sections say the rest.
MOST = 3


@dataclass(frozen=True)
class Conclusion:
    """What to make of a run.

    Attributes:
        sentences: one to three.
        steps: what to do next, in words, each with its command.
    """

    sentences: tuple[str, ...]
    steps: tuple[tuple[str, str], ...]


def conclude(
    run: FinishedRun, probed: JudgedCurve | None = None, work_dir: str = 'WORK_DIR'
) -> Conclusion:
    """The verdict on a run: the probe's first, then what was redundant, then what is to be done.

    Args:
        run: the finished run.
        probed: the curve of a probe beside it, and its verdict.
        work_dir: of the run, for the commands.
    """
    manifest = run.manifest
    suspects = int(run.samples['label_suspect'].sum())
    probe_sentence = probed[1].sentences[0] if probed else ''
    sentences = [
        probe_sentence,
        _redundancy(run, is_measured=bool(probed)),
        _due(manifest),
        _suspects(suspects),
    ]
    said = [sentence for sentence in sentences if sentence]
    steps = [*_first_steps(manifest, probed, work_dir), _training(work_dir)]
    return Conclusion(tuple(said[:MOST]), tuple(steps))


def _redundancy(run: FinishedRun, is_measured: bool) -> str:
    """How much of what went was redundant, and what to expect of that unless it was measured."""
    manifest = run.manifest
    if not manifest.pruned:
        return 'Nothing was pruned: this is a training on all samples.'
    found = manifest.near_duplicates
    if not found or found.share is None:
        why = _why_unknown(run)
        return f'How much of what went was redundant is not known: {why}.'
    share = words.share(found.share, 0)
    text = (
        f'Of the {words.count(manifest.pruned)} samples that went, {share} have a near-duplicate '
        'among what stayed'
    )
    if found.share >= MANY_NEAR_DUPLICATES:
        return f'{text}: mostly copies went.'
    if is_measured:
        return f'{text}.'
    if not found.are_few:
        return f'{text}; the others are distinct images, which a detector may miss.'
    return (
        f'{text}: pruning removes distinct images here. Train on all of them, or expect to lose '
        'what random pruning loses.'
    )


def _why_unknown(run: FinishedRun) -> str:
    if run.manifest.near_duplicates:
        return 'the features can hardly tell these images apart'
    if len(run.clusters['cluster']):
        return 'the run was made by an older version, which did not record it'
    return f'the strategy {run.manifest.strategy} does not compare images'


def _due(manifest: Manifest) -> str:
    """An update's demand for a full run; '' where there is none."""
    due = '; '.join(manifest.full_run_due)
    return f'A full run is due: {due}.' if due else ''


def _suspects(count: int) -> str:
    if not count:
        return ''
    plural = 's' if count > 1 else ''
    return f'{words.count(count)} label suspect{plural} should be looked at before training.'


def _first_steps(
    manifest: Manifest, probed: JudgedCurve | None, work_dir: str
) -> list[tuple[str, str]]:
    """What comes before a training on what stayed."""
    steps = []
    if manifest.full_run_due:
        steps.append(('A full run', 'python tools/prune.py CONFIG --work-dir NEW_WORK_DIR'))
    if probed:
        verdict = probed[1]
        this_run = (manifest.strategy, manifest.keep_ratio)
        if (verdict.strategy, verdict.keep_ratio) != this_run:
            steps.append(('By the probe', verdict.next_step))
    elif _is_doubtful(manifest):
        command = shlex.join(['python', 'tools/probe.py', 'CONFIG', '--work-dir', work_dir])
        steps.append(('What pruning costs, without a training', command))
    return steps


def _is_doubtful(manifest: Manifest) -> bool:
    """Whether it is not plain that mostly copies went."""
    if not manifest.pruned:
        return False
    found = manifest.near_duplicates
    return not found or found.share is None or found.share < MANY_NEAR_DUPLICATES


def _training(work_dir: str) -> tuple[str, str]:
    command = shlex.join(['python', 'tools/train.py', f'{work_dir}/config.py'])
    return 'Train on what stayed', command
