"""``manifest.json``: what a run was, what it cost, and what it decided."""

import importlib.metadata
import json
from pathlib import Path
from typing import Annotated, Any

import msgspec

from ..base.errors import UserError
from ..base.files import write_json
from ..base.words import one_line
from ..images import Reader

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


def record_training(work_dir: Path, seconds: float) -> None:
    """Writes the measured seconds of a training on the pruned set into the manifest."""
    manifest = json.loads((work_dir / 'manifest.json').read_text(encoding='utf-8'))
    share = manifest['kept'] / manifest['samples']
    manifest['break_even'] = break_even(
        manifest['seconds'], share, seconds / share, 'measured on the pruned set'
    )
    write_json(work_dir / 'manifest.json', manifest)


def break_even(
    pruning_seconds: float,
    kept_share: float,
    training_seconds: float | None = None,
    source: str | None = None,
) -> dict[str, Any]:
    """After how many trainings the pruning pays back.

    Args:
        pruning_seconds: what the selection took.
        kept_share: kept / all; training time is taken to be proportional to it.
        training_seconds: one training on all samples; None where unknown.
        source: where that number comes from.
    """
    saved = None if training_seconds is None else training_seconds * (1 - kept_share)
    trainings = None if not saved else round(pruning_seconds / saved, 3)
    if kept_share == 1:
        text = 'Nothing was pruned, so nothing is saved.'
    elif trainings is None:
        text = (
            f'Pays back in the first training if that takes longer than '
            f'{pruning_seconds / (1 - kept_share) / 60:.1f} minutes on all samples.'
        )
    else:
        text = (
            f'Pays back after {trainings:.2f} trainings: each one saves {saved:.0f} of '
            f'{training_seconds:.0f} '
            'seconds.'
        )
    return dict(
        pruning_seconds=round(pruning_seconds, 3),
        training_seconds=training_seconds,
        training_seconds_source=source,
        saved_seconds_per_training=saved,
        trainings=trainings,
        text=text,
    )


def installed_versions() -> dict[str, str]:
    """Versions of the packages that results may depend on."""
    installed = {}
    for name in VERSIONS:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


AGAIN = 'make the tables again with tools/prune.py'

# Of seconds, bytes and counts; NaN, infinity and numbers of hundreds of digits are damage.
_AMOUNT = msgspec.Meta(ge=0, le=2**63 - 1)

USUAL = Reader()


class StageCost(msgspec.Struct):
    """What a stage took."""

    seconds: Annotated[float, _AMOUNT]
    bytes: Annotated[int, _AMOUNT]


class BreakEven(msgspec.Struct):
    """When pruning pays back."""

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
    """An annotation file and its rewritten counterpart; datasets without a file get a list of ids."""

    input: str | None
    output: str
    records: Annotated[int, _AMOUNT]
    kept: Annotated[int, _AMOUNT]


class GapReliability(msgspec.Struct):
    """How much of the gaps is signal."""

    split_half: float | None = None
    signal_share: float | None = None
    clusters: Annotated[int, _AMOUNT] | None = None


class Manifest(msgspec.Struct):
    """The part of ``manifest.json`` that the page shows."""

    adadedup_mm: str
    versions: dict[str, str]
    strategy: str
    keep_ratio: float
    seed: int
    samples: int
    kept: int
    pruned: int
    options: dict[str, Any]
    inputs: list[InputFile]
    files: list[FilePair]
    stages: dict[str, StageCost]
    seconds: Annotated[float, _AMOUNT]
    break_even: BreakEven | None
    notes: list[str]
    threshold_curve: list[CurvePoint] | None
    gap_reliability: GapReliability | None
    started: str
    finished: str
    reader: Reader = USUAL


def read_manifest(path: Path) -> Manifest:
    """Reads and checks a manifest.

    Raises:
        UserError: there is none, or it is damaged.
    """
    try:
        return msgspec.convert(json.loads(path.read_text(encoding='utf-8')), Manifest)
    except FileNotFoundError:
        raise UserError(
            f'{path} is missing: name the work dir of a finished tools/prune.py run'
        ) from None
    except (OSError, ValueError, RecursionError, msgspec.ValidationError) as error:
        raise UserError(f'{path} cannot be read ({one_line(error, 200)}): {AGAIN}') from None
