"""What the labels of a training set say, for the stages that compare or count them."""

from collections.abc import Sequence

import numpy as np

from ..base.files import sha256_items, sha256_value
from ..pool import Pool, choose_views, pool_key
from .sources import Source
from .view_samples import view_objects


def labelled_boxes(
    pool: Pool, sources: Sequence[Source], views: str | list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The labelled boxes as ``layout_blocks`` takes them: owner, label, box and size of its image.

    Args:
        pool: the samples.
        sources: the datasets that they come from.
        views: see ``choose_views``; of frames, the cameras whose boxes count.

    Returns:
        (M,) int64, (M,) int32, (M, 4) float32 pixels and (M, 2) height and width.
    """
    if sources[0].objects is not None:
        return view_objects(pool, sources, choose_views(pool.views, views))
    owner = np.repeat(np.arange(len(pool)), np.diff(pool.offsets))
    return owner, pool.labels, pool.boxes, pool.image_sizes[owner]


def objects_key(pool: Pool, sources: Sequence[Source]) -> str:
    """Hash of the pool with the sizes of its images, and of what all cameras of its frames show."""
    shown = []
    for source in sources:
        if source.objects is not None:
            shown.append([sha256_items(values) for values in vars(source.objects).values()])
    return sha256_value([pool_key(pool), sha256_items(pool.image_sizes), shown])


def records_key(sources: Sequence[Source]) -> str:
    """Hash of everything that the datasets have loaded, of which the pool is only a part."""
    return sha256_value([source.records for source in sources])
