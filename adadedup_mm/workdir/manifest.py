"""``manifest.json``: what a run was, what it cost, and what it decided."""

import importlib.metadata
import json
import math
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from ..base.errors import UserError
from ..base.files import write_json
from ..images import Reader
from .conflicts import ConflictCounts
from .damage import missing_file, unreadable_file

VERSIONS = (
    'torch',
    'numpy',
    'mmengine',
    'mmcv',
    'mmdet',
    'mmdet3d',
    'faiss-cpu',
    'timm',
    'open_clip_torch',
)

# Below this share of what goes, pruning removes distinct samples.
FEW_NEAR_DUPLICATES = 0.05

# Of seconds, bytes and counts; NaN, infinity and numbers of hundreds of digits are damage.
_AMOUNT = msgspec.Meta(ge=0, le=2**63 - 1)
Count = Annotated[int, _AMOUNT]
Seconds = Annotated[float, _AMOUNT]


class StageCost(msgspec.Struct):
    """What a stage took.

    Attributes:
        seconds: of computing it, also if another run did that.
        bytes: on disk.
    """

    seconds: Seconds
    bytes: Count


class BreakEven(msgspec.Struct, kw_only=True):
    """When pruning pays back.

    Attributes:
        pruning_seconds: what the selection took.
        training_seconds: one training on all samples; None where unknown.
        training_seconds_source: where that number comes from, in words.
        saved_seconds_per_training: None where unknown.
        trainings: after how many it has paid back; None where unknown or never.
        text: all this as a sentence.
    """

    pruning_seconds: float | None = None
    training_seconds: float | None = None
    training_seconds_source: str | None = None
    saved_seconds_per_training: float | None = None
    trainings: float | None = None
    text: str


class CurvePoint(msgspec.Struct):
    """The global threshold that keeps this share."""

    keep_ratio: float
    threshold: float | None


class InputFile(msgspec.Struct):
    """A file the run has read."""

    path: str
    sha256: str


class FilePair(msgspec.Struct):
    """A file of the dataset and its rewritten counterpart.

    Attributes:
        input: path; None for datasets without an annotation file, which get a list of ids.
        output: path.
        records: how many the input has.
        kept: how many the output has.
        outside: objects of frames that are not in the training set; of ground-truth databases only.
        sha256: of the output; empty where the run did not say.
    """

    input: str | None
    output: str
    records: Count
    kept: Count
    outside: int | UnsetType = UNSET
    sha256: str = ''


class GapReliability(msgspec.Struct):
    """How much of the gaps is signal; see ``feedback.shrink``, and None for what is unknown."""

    clusters: Count | None = None
    between_variance: float | None = None
    noise_variance: float | None = None
    signal_share: float | None = None
    split_half: float | None = None


class FeedbackFacts(msgspec.Struct):
    """What asking the probe or a proxy changed, and what it cost.

    Attributes:
        decisions_changed: how many samples the strategy keeps that would go without it, in place
            of as many others.
        seconds: of training and asking it.
        signal_share: how much of the gaps is signal, see ``GapReliability``; None where unknown.
        signal: who was asked: ``'probe'``, ``'proxy'`` or ``'both'``.
    """

    decisions_changed: Count
    seconds: Seconds
    signal_share: float | None = None
    signal: str = 'proxy'

    @property
    def who(self) -> str:
        """Who was asked, in words."""
        return 'probe and proxy' if self.signal == 'both' else self.signal


class NearDuplicates(msgspec.Struct):
    """How much of what went was really redundant.

    Attributes:
        bound: image similarity from which the embedder calls two samples near-duplicates.
        share: of the pruned samples with a partner, those whose partner is a near-duplicate; None
            where the features cannot tell, or nothing went.
        highest: image similarity of the most similar pair; None likewise.
    """

    bound: float
    share: float | None = None
    highest: float | None = None

    @property
    def are_few(self) -> bool:
        """Whether next to nothing of what went was redundant; not where that is unknown."""
        return self.share is not None and self.share < FEW_NEAR_DUPLICATES


class ReaderFacts(msgspec.Struct):
    """How the training reads its images, as far as thumbnails follow; see ``Reader``."""

    color_type: str = Reader.color_type
    backend: str = Reader.backend


class UpdateFacts(msgspec.Struct):
    """What an update took over, and what it decided.

    Attributes:
        of: work dir of the older run.
        full_samples: how many samples the last full run had.
        old: samples whose decisions stay.
        new: samples that were decided about.
        new_kept: how many of these stay.
        gone: samples of the older run that are not in the dataset any more.
        far: new samples far from all clusters.
        growth: of the data since the last full run, a share.
        full_run_due: why a full run is due; empty if none is.
    """

    of: str
    full_samples: int
    old: int
    new: int
    new_kept: int
    gone: int
    far: int
    growth: float
    full_run_due: list[str]


class Manifest(msgspec.Struct, kw_only=True):
    """``manifest.json``, in the order of its keys; older runs may lack what has a default.

    Attributes:
        adadedup_mm: version of this package.
        key: hash of the run's identity, see ``finished_manifest``.
        versions: of other packages.
        strategy: its registered name.
        keep_ratio: that was asked for.
        seed: of every random choice.
        samples: how many there are, of which ``kept`` stay and ``pruned`` go.
        options: all of the ``adadedup`` dict that can change the selection.
        inputs: files that were read.
        facts: what else must be the same for the run to be used again, by name.
        layout: share of the label layout in the density scores; None where the run did not say.
        files: annotation files, and ground-truth databases behind them.
        stages: costs by name, in their order.
        seconds: of the whole run.
        break_even: when that pays back.
        notes: sentences for the report.
        gap_reliability: None for strategies without gaps.
        feedback: of runs that asked a proxy only.
        near_duplicates: of strategies with density scores only; older runs did not say.
        reader: of images.
        threshold_curve: by rising keep ratio; empty for strategies without density scores.
        started: ISO 8601, in UTC; ``finished`` likewise.
        update: of updates only.
        conflicts: contradicting labels; None for older runs.
    """

    adadedup_mm: str
    key: str = ''
    versions: dict[str, str]
    strategy: str
    keep_ratio: float
    seed: int
    samples: Annotated[int, msgspec.Meta(ge=1)]
    kept: int
    pruned: int
    options: dict[str, Any]
    inputs: list[InputFile]
    facts: dict[str, Any] = {}
    layout: float | None = None
    files: list[FilePair]
    stages: dict[str, StageCost]
    seconds: Seconds
    break_even: BreakEven | None
    notes: list[str]
    gap_reliability: GapReliability | None
    feedback: FeedbackFacts | UnsetType | None = UNSET
    near_duplicates: NearDuplicates | UnsetType | None = UNSET
    reader: ReaderFacts = msgspec.field(default_factory=ReaderFacts)
    threshold_curve: list[CurvePoint] | None
    started: str
    finished: str
    update: UpdateFacts | UnsetType | None = UNSET
    conflicts: ConflictCounts | None = None

    @property
    def image_reader(self) -> Reader:
        """Reads images as the training does."""
        return Reader(self.reader.color_type, self.reader.backend)

    @property
    def full_samples(self) -> int:
        """How many samples the last full run had: this one, or the one before all updates."""
        return self.update.full_samples if self.update else self.samples

    @property
    def full_run_due(self) -> list[str]:
        """Why a full run is due; empty if none is, and for full runs."""
        return self.update.full_run_due if self.update else []

    @property
    def idle_seconds(self) -> float:
        """What a proxy took that changed no decision; 0 without one, and where it changed some."""
        if not self.feedback or self.feedback.decisions_changed:
            return 0.0
        return self.feedback.seconds

    @property
    def used_layout(self) -> float:
        """``layout``, or what the options of older runs say; NaN where these are damaged."""
        if self.layout is not None:
            return self.layout
        if self.strategy != 'adadedup':
            return 0.0
        feedback = self.options.get('feedback')
        if not isinstance(feedback, dict):
            return math.nan
        layout = feedback.get('layout', 0.0)
        return layout if isinstance(layout, (int, float)) else math.nan


def manifest_path(work_dir: Path) -> Path:
    """Where a finished run's manifest is; nothing is there before."""
    return work_dir / 'manifest.json'


def write_manifest(work_dir: Path, manifest: Manifest) -> None:
    """Writes a manifest, atomically; from then on the run counts as finished."""
    content = msgspec.to_builtins(manifest, enc_hook=_plain)
    write_json(manifest_path(work_dir), content)


def _plain(value: Any) -> Any:
    """What JSON can hold, of numbers and texts of numpy's types."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, str):
        return str(value)
    raise NotImplementedError(f'{type(value).__name__} in a manifest')


def read_manifest(work_dir: Path) -> Manifest:
    """Reads and checks a manifest.

    Raises:
        UserError: there is none, or it is damaged.
    """
    return _read(work_dir)[0]


def known_manifest(work_dir: Path) -> Manifest | None:
    """The manifest of a work dir; None where there is none, or a damaged one."""
    try:
        return read_manifest(work_dir)
    except UserError:
        return None


def _read(work_dir: Path) -> tuple[Manifest, dict[str, Any]]:
    """A manifest, and the same as it is in the file."""
    path = manifest_path(work_dir)
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        return msgspec.convert(content, Manifest), content
    except FileNotFoundError:
        raise missing_file(path) from None
    except (OSError, ValueError, RecursionError, msgspec.ValidationError) as error:
        raise unreadable_file(path, error) from None


def record_training(work_dir: Path, seconds: float) -> None:
    """Writes the measured seconds of a training on the pruned set into the manifest.

    The rest of the file stays as it is.

    Raises:
        UserError: there is no manifest, or it is damaged.
    """
    manifest, content = _read(work_dir)
    share = manifest.kept / manifest.samples
    measured = break_even(
        manifest.seconds,
        share,
        seconds / share,
        'measured on the pruned set',
        manifest.idle_seconds,
    )
    content['break_even'] = msgspec.to_builtins(measured)
    write_json(manifest_path(work_dir), content)


def break_even(
    pruning_seconds: float,
    kept_share: float,
    training_seconds: float | None = None,
    source: str | None = None,
    idle_seconds: float = 0.0,
) -> BreakEven:
    """After how many trainings the pruning pays back.

    Args:
        pruning_seconds: what the selection took.
        kept_share: kept / all; training time is taken to be proportional to it.
        training_seconds: one training on all samples; None where unknown.
        source: where that number comes from.
        idle_seconds: of ``pruning_seconds``, what feedback took that changed no decision.
    """
    saved = None if training_seconds is None else training_seconds * (1 - kept_share)
    trainings = None if not saved else round(pruning_seconds / saved, 3)
    needed_seconds = pruning_seconds - idle_seconds
    if kept_share == 1:
        text = 'Nothing was pruned, so nothing is saved.'
    elif not saved:
        one_minute = 60 * (1 - kept_share)
        without = _without_feedback(needed_seconds / one_minute, 1) if idle_seconds else ''
        text = (
            'Pays back in the first training if that takes longer than '
            f'{pruning_seconds / one_minute:.1f} minutes on all samples{without}.'
        )
    else:
        without = _without_feedback(needed_seconds / saved, 2) if idle_seconds else ''
        text = (
            f'Pays back after {trainings:.2f} trainings{without}: '
            f'each one saves {saved:.0f} of {training_seconds:.0f} seconds.'
        )

    return BreakEven(
        pruning_seconds=round(pruning_seconds, 3),
        training_seconds=training_seconds,
        training_seconds_source=source,
        saved_seconds_per_training=saved,
        trainings=trainings,
        text=text,
    )


def _without_feedback(amount: float, digits: int) -> str:
    return f' ({amount:.{digits}f} without feedback, which changed no decision)'


def feedback_words(manifest: Manifest) -> str:
    """What the feedback changed and cost, as a clause; '' where a run asked for none."""
    feedback = manifest.feedback
    if not feedback:
        return ''
    took = f'took {feedback.seconds:.0f} of {manifest.seconds:.0f} s'
    changed = feedback.decisions_changed
    if not changed:
        return (
            f'the {feedback.who} changed 0 of {manifest.samples} decisions and {took}: '
            'adadedup.feedback.beta=0 does without it'
        )
    return f'the {feedback.who} kept {changed} samples in place of {changed} others and {took}'


def installed_versions() -> dict[str, str]:
    """Versions of the packages that results may depend on."""
    installed = {}
    for name in VERSIONS:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed
