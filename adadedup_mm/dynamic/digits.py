"""Scikit-learn's hand-written digits, real images that come without a download."""

from typing import Any, ClassVar

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS

from ..base.checks import choose
from ..base.errors import UserError


@DATASETS.register_module()
class Digits(BaseDataset):
    """1797 grey 8 x 8 images of ten classes.

    The first four fifths are for training, the rest, of other writers, for tests. A sample has
    ``img``, (8, 8) uint8, ``gt_label`` and ``img_id``, as the pipelines of MMPretrain want them.

    Args:
        split: ``'train'`` (1438 images) or ``'test'`` (359).
        kwargs: of mmengine's BaseDataset.

    Raises:
        UserError: the split is unknown, or scikit-learn is missing.
    """

    METAINFO: ClassVar[dict[str, Any]] = dict(classes=tuple('0123456789'))

    def __init__(self, split: str = 'train', **kwargs: Any) -> None:
        choose(split, ('train', 'test'), 'the split of Digits')
        self.split = split
        is_test = split == 'test'
        super().__init__(test_mode=is_test, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise UserError(
                'the dataset Digits comes with scikit-learn: pip install scikit-learn'
            ) from error

        data = load_digits()
        # Values of 0 to 16.
        images = np.minimum(data.images * 16, 255).astype(np.uint8)
        samples = []
        for i, image in enumerate(images):
            label = int(data.target[i])
            samples.append(
                dict(
                    img=image,
                    gt_label=label,
                    img_id=i,
                )
            )

        border = len(samples) * 4 // 5 + 1
        if self.split == 'train':
            return samples[:border]
        return samples[border:]
