"""What is known of other people's detectors: losses of each sample, heads, checkpoints, configs, isolation."""

from . import anchor_heads, point_heads, query_heads, region_heads

# Importing them makes their heads known.
__all__ = ['anchor_heads', 'point_heads', 'query_heads', 'region_heads']
