"""Groups of similar samples."""

from .clusterer import Assign, CentroidClusterer, Clusterer
from .fixed import FixedClusterer
from .kmeans import SphericalKMeans

__all__ = ['Assign', 'CentroidClusterer', 'Clusterer', 'FixedClusterer', 'SphericalKMeans']
