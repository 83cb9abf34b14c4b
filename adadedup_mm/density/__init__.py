"""How redundant each sample is inside its cluster, and which kept sample stands for a pruned one."""

from ..vectors.nearest import most_similar
from .greedy import greedy_budget, greedy_keep
from .layout import joint_blocks, joint_features, layout_blocks, layout_features
from .partners import nearest_kept
from .scores import KCenter, SemDeDup, kcenter_scores, semdedup_scores

__all__ = [
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
