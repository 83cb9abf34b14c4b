"""Find the redundant part of a detection dataset and train on the rest."""

__version__ = '0.1.0'
