"""How redundant each sample is inside its cluster, and which kept sample stands for a pruned one."""

from .partners import nearest_kept
from .scores import KCenter, SemDeDup, kcenter_scores, semdedup_scores

__all__ = ['KCenter', 'SemDeDup', 'kcenter_scores', 'nearest_kept', 'semdedup_scores']
