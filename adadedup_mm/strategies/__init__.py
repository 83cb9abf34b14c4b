"""The ways to choose samples: functions from a ``Run`` to a ``Selection``."""

from . import adadedup, baselines, captions, scores
from .needs import Needs, Strategy, says

__all__ = ['Needs', 'Strategy', 'adadedup', 'baselines', 'captions', 'says', 'scores']
