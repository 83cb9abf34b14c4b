"""``conflicts.parquet``: what near-identical images say differently about the same place."""

from collections import Counter
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa

from ..conflicts import KINDS, Conflicts
from ..pool import Pool
from .parquet import TableFile

CONFLICTS = TableFile(
    'conflicts.parquet',
    pa.schema(
        [
            ('sample_a', pa.string()),
            ('sample_b', pa.string()),
            ('kind', pa.string()),
            ('similarity', pa.float32()),
            ('class_a', pa.string()),
            ('class_b', pa.string()),
            ('x1', pa.float32()),
            ('y1', pa.float32()),
            ('x2', pa.float32()),
            ('y2', pa.float32()),
            ('copies', pa.bool_()),
            ('better', pa.string()),
            ('kept_a', pa.bool_()),
            ('kept_b', pa.bool_()),
        ]
    ),
)


class ConflictCounts(msgspec.Struct):
    """What the manifest says of contradicting labels.

    Attributes:
        pairs: of near-identical samples whose labels contradict each other.
        copies: how many of these pairs differ in nothing else.
        samples: how many samples are in such a pair.
        boxes: contradicting boxes by kind.
    """

    pairs: int
    copies: int
    samples: int
    boxes: dict[str, int]


def conflict_counts(conflicts: Conflicts) -> ConflictCounts:
    """Counts pairs, samples and boxes."""
    pairs = conflicts.pairs
    copies = np.stack([conflicts.first, conflicts.second], axis=1)[conflicts.copies]
    kinds = Counter(KINDS[kind] for kind in conflicts.kind.tolist())
    return ConflictCounts(
        pairs=len(pairs),
        copies=len(np.unique(copies, axis=0)),
        samples=len(np.unique(pairs)),
        boxes=dict(sorted(kinds.items())),
    )


def conflicts_table(pool: Pool, conflicts: Conflicts, kept: np.ndarray) -> pa.Table:
    """``conflicts.parquet``: a row a contradicting box, pairs of copies first.

    ``x1`` to ``y2`` are pixels of the sample that has the box, of ``sample_a`` where both have one.
    The class is null on the side without a box. ``better`` is the sample of the two whose labels
    are rather right, null where that is neither or cannot be told.

    Args:
        pool: N samples.
        conflicts: among them.
        kept: (N,) bool.
    """
    order = np.lexsort(
        (conflicts.box_b, conflicts.box_a, conflicts.second, conflicts.first, ~conflicts.copies)
    )
    first, second = conflicts.first[order], conflicts.second[order]
    box_a, box_b = conflicts.box_a[order], conflicts.box_b[order]
    boxes = pool.boxes[np.where(box_a >= 0, box_a, box_b)]
    ids = np.array(pool.sample_ids, object)
    copies = conflicts.copies[order]
    better = np.full(len(order), -1, np.int64)
    for right, wrong in ((first, second), (second, first)):
        is_right = copies & (conflicts.better[right] < 0) & (conflicts.better[wrong] >= 0)
        better[is_right] = right[is_right]

    return CONFLICTS.table(
        {
            'sample_a': ids[first],
            'sample_b': ids[second],
            'kind': [KINDS[kind] for kind in conflicts.kind[order].tolist()],
            'similarity': conflicts.similarity[order],
            'class_a': _class_names(pool, box_a),
            'class_b': _class_names(pool, box_b),
            'x1': boxes[:, 0],
            'y1': boxes[:, 1],
            'x2': boxes[:, 2],
            'y2': boxes[:, 3],
            'copies': copies,
            'better': pa.array(ids[better], pa.string(), mask=better < 0),
            'kept_a': kept[first],
            'kept_b': kept[second],
        }
    )


def _class_names(pool: Pool, boxes: np.ndarray) -> pa.Array:
    """The classes of (C,) rows of the pool's boxes; null for -1."""
    names = np.array([*pool.classes, ''], object)
    labels = np.where(boxes >= 0, pool.labels[boxes], len(pool.classes))
    return pa.array(names[labels], pa.string(), mask=boxes < 0)


def read_conflicts(work_dir: Path) -> pa.Table | None:
    """The table of a finished run; None where there is none, as in older work dirs.

    Raises:
        UserError: it cannot be read.
    """
    if not CONFLICTS.path(work_dir).is_file():
        return None
    return CONFLICTS.read(work_dir)
