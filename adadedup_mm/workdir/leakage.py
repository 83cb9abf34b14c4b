"""What a leakage run leaves in ``leakage/`` of a work dir: its figures and its pairs."""

from pathlib import Path

import msgspec
import pyarrow as pa

from ..base.errors import UserError
from ..base.files import write_json
from .parquet import TableFile

FOLDER = 'leakage'
PAIRS = TableFile(
    'pairs.parquet',
    pa.schema(
        [
            ('split', pa.string()),
            ('sample_id', pa.string()),
            ('image_path', pa.string()),
            ('train_sample_id', pa.string()),
            ('train_image_path', pa.string()),
            ('similarity', pa.float32()),
            ('rank', pa.int32()),
            ('matches', pa.int64()),
        ]
    ),
)


class SplitSummary(msgspec.Struct):
    """One split against the training set.

    Attributes:
        split: ``'val'``, ``'test'``, or ``'val and test'`` where both are the same images.
        samples: how many it has.
        leaked: how many of them have a near-duplicate in the training set.
        identical: how many have one with the same features, up to rounding.
        same_file: how many have an image file that is also in the training set.
        highest: similarity of the most similar pair; None without a readable image.
        unreadable: how many could not be compared.
    """

    split: str
    samples: int
    leaked: int
    identical: int
    same_file: int
    highest: float | None
    unreadable: int


class LeakageSummary(msgspec.Struct):
    """``summary.json``: all splits.

    Attributes:
        threshold: similarity from which a pair counts.
        embedder: its type.
        train_samples: size of the training set.
        splits: one for each other split.
    """

    threshold: float
    embedder: str
    train_samples: int
    splits: list[SplitSummary]


def write_summary(work_dir: Path, summary: LeakageSummary) -> None:
    """Writes the figures beside a pruning run, atomically."""
    content = msgspec.to_builtins(summary)
    write_json(_summary_path(work_dir), content)


def read_summary(work_dir: Path) -> LeakageSummary | None:
    """What a leakage run beside a pruning run found; None if there was none.

    Raises:
        UserError: its summary cannot be read.
    """
    path = _summary_path(work_dir)
    try:
        return msgspec.json.decode(path.read_bytes(), type=LeakageSummary)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise UserError(
            f'{path} cannot be read ({error}): run tools/leakage.py again, or remove the folder'
        ) from error


def _summary_path(work_dir: Path) -> Path:
    return work_dir / FOLDER / 'summary.json'
