"""Find the redundant part of a detection dataset and train on the rest."""

import sys

from .base.moved import OldNames

__version__ = '0.1.0'

sys.meta_path.append(OldNames())
