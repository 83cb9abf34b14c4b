"""BEVFormer and BEVFormer-S for mmdet3d 1.x (Li et al., ECCV 2022, arXiv 2203.17270).

Importing this package registers the detector, its dataset, transforms, sampler and metric in
mmengine's registries. Parameter names and shapes are those of the official code, so its published
weights load as they are.
"""

from .dataset import BEVFormerDataset, BEVFormerNuScenesMetric, ContiguousSampler
from .detector import BEVFormer
from .head import BEVFormerHead
from .transformer import BEVFormerTransformer
from .transforms import LoadMultiViewImages, MultiViewPhotometricDistortion, MultiViewScale

__all__ = [
    'BEVFormer',
    'BEVFormerDataset',
    'BEVFormerHead',
    'BEVFormerNuScenesMetric',
    'BEVFormerTransformer',
    'ContiguousSampler',
    'LoadMultiViewImages',
    'MultiViewPhotometricDistortion',
    'MultiViewScale',
]
