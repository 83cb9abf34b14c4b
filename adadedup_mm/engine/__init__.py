"""The edge to mmengine: launchers, the Runner and its hook."""

from .hook import AdaDeDupHook
from .launchers import open_group, rank_and_world, take_gpu
from .runner import AdaDeDupRunner, build_runner, prune_first

__all__ = [
    'AdaDeDupHook',
    'AdaDeDupRunner',
    'build_runner',
    'open_group',
    'prune_first',
    'rank_and_world',
    'take_gpu',
]
