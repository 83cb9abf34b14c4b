"""What is known of other people's detectors: losses of samples, heads, checkpoints and configs."""

from . import anchor_heads, point_heads, query_heads, region_heads

# Importing them makes their heads known.
__all__ = ['anchor_heads', 'point_heads', 'query_heads', 'region_heads']
