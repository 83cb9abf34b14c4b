"""The samples that a training set offers: what every stage works on."""

from .groups import class_membership, label
from .pool import Pool, pool_key, print_notes
from .views import choose_views

__all__ = ['Pool', 'choose_views', 'class_membership', 'label', 'pool_key', 'print_notes']
