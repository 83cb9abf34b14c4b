"""Pruning again and again while a model trains."""

from .digits import Digits
from .hook import DynamicPruningHook
from .losses import SampleLosses
from .policies import Policy, ScoreState, build_policy
from .runner import DynamicPruningRunner, apply_dynamic
from .sampler import DynamicPruningSampler, IndexedDataset

__all__ = [
    'Digits',
    'DynamicPruningHook',
    'DynamicPruningRunner',
    'DynamicPruningSampler',
    'IndexedDataset',
    'Policy',
    'SampleLosses',
    'ScoreState',
    'apply_dynamic',
    'build_policy',
]
