"""What the proxy's losses say about the clusters, and the thresholds that follow."""

from .gaps import Gaps, cluster_gaps, shrink, standardise, weighted_gaps
from .suspects import label_suspects
from .thresholds import AdaptiveSet, adaptive_set, initial_set, keep_count, threshold_curve

__all__ = [
    'AdaptiveSet',
    'Gaps',
    'adaptive_set',
    'cluster_gaps',
    'initial_set',
    'keep_count',
    'label_suspects',
    'shrink',
    'standardise',
    'threshold_curve',
    'weighted_gaps',
]
