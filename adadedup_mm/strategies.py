"""The ways to choose samples. Every strategy is a function from a ``Run`` to a ``Selection`` that meets the budget."""

from typing import TYPE_CHECKING

import numpy as np

from .feedback import adaptive_set, cluster_gaps, initial_set, keep_count, shrink
from .selection import Selection

if TYPE_CHECKING:
    from .run import Run


def random(run: 'Run') -> Selection:
    """A uniform random subset."""
    n = len(run.pool)
    kept = np.zeros(n, bool)
    kept[run.generator('random').choice(n, keep_count(run.options.keep_ratio, n), replace=False)] = True
    return Selection.without_features(kept)


def uniform_stride(run: 'Run') -> Selection:
    """Samples at equal distances in the dataset's order: every n-th frame, for any ratio."""
    n = len(run.pool)
    count = keep_count(run.options.keep_ratio, n)
    kept = np.zeros(n, bool)
    kept[np.arange(count) * n // count] = True
    return Selection.without_features(kept)
