"""How redundant each sample is inside its cluster, and which kept sample stands for it."""

from ..vectors.nearest import most_similar
from .greedy import greedy_budget, greedy_keep
from .layout import joint_blocks, joint_features, layout_blocks, layout_features
from .method import ClusterDensityMethod, DensityMethod
from .partners import nearest_kept
from .scores import KCenter, SemDeDup, kcenter_scores, semdedup_scores

__all__ = [
    'ClusterDensityMethod',
    'DensityMethod',
    'KCenter',
    'SemDeDup',
    'greedy_budget',
    'greedy_keep',
    'joint_blocks',
    'joint_features',
    'kcenter_scores',
    'layout_blocks',
    'layout_features',
    'most_similar',
    'nearest_kept',
    'semdedup_scores',
]
