"""The edge to mmengine: launchers, the Runner and its hook."""

from .distributed import open_group, rank_and_world, take_gpu
from .hook import AdaDeDupHook
from .runner import AdaDeDupRunner, build_runner, prune_first

__all__ = ['AdaDeDupHook', 'AdaDeDupRunner', 'build_runner', 'open_group', 'prune_first', 'rank_and_world', 'take_gpu']
