"""The ways to choose samples: functions from a ``Run`` to a ``Selection``."""

from . import adadedup, auto, baselines, captions, scores
from .needs import Needs, Strategy, says

__all__ = ['Needs', 'Strategy', 'adadedup', 'auto', 'baselines', 'captions', 'says', 'scores']
