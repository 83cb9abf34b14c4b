"""The ways to choose samples: each a function from a ``Run`` to a ``Selection`` that meets the budget."""

from . import adadedup, baselines, captions, scores

__all__ = ['adadedup', 'baselines', 'captions', 'scores']
