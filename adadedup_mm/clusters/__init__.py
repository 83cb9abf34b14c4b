"""Groups of similar samples."""

from .fixed import FixedClusterer
from .kmeans import SphericalKMeans

__all__ = ['FixedClusterer', 'SphericalKMeans']
