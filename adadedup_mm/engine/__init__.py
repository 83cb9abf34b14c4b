"""The edge to mmengine: launchers, the Runner and its hook."""

from .distributed import rank_and_world, take_gpu, use_gloo_without_gpu
from .hook import AdaDeDupHook
from .runner import AdaDeDupRunner, prune_first

__all__ = ['AdaDeDupHook', 'AdaDeDupRunner', 'prune_first', 'rank_and_world', 'take_gpu', 'use_gloo_without_gpu']
