"""What a leakage run found, in numbers."""

from pathlib import Path

import msgspec

from ..base.errors import UserError

FOLDER = 'leakage'


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


class Summary(msgspec.Struct):
    """All splits.

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


def read_summary(work_dir: Path) -> Summary | None:
    """What a leakage run beside a pruning run found; None if there was none.

    Raises:
        UserError: its summary cannot be read.
    """
    path = work_dir / FOLDER / 'summary.json'
    try:
        return msgspec.json.decode(path.read_bytes(), type=Summary)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise UserError(
            f'{path} cannot be read ({error}): run tools/leakage.py again, or remove the folder'
        ) from error
