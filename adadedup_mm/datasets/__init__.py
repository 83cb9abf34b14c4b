"""From a training config to its samples, and back to a config that trains on some of them."""

from .outlines import read_outlines
from .pruned_dataset import PrunedDataset
from .reading import read_pool
from .sources import Source, pruned_config, subset_config, write_pruned

__all__ = [
    'PrunedDataset',
    'Source',
    'pruned_config',
    'read_outlines',
    'read_pool',
    'subset_config',
    'write_pruned',
]
