"""Scores of samples from short trainings or from their annotations, and choosing the highest.

``numerics`` is plain NumPy; ``observe`` and ``measure`` ask models; ``trainings`` are the stages of
a run.
"""

from .numerics import (
    class_shares,
    error_norms,
    forgetting_counts,
    keep_highest,
    last_layer_gradient_norms,
    per_object,
    run_agreement,
    shape_complexity,
    sum_per_sample,
)

__all__ = [
    'class_shares',
    'error_norms',
    'forgetting_counts',
    'keep_highest',
    'last_layer_gradient_norms',
    'per_object',
    'run_agreement',
    'shape_complexity',
    'sum_per_sample',
]
