"""Image files made small and of one size, so that pictures of several sizes can be compared."""

import cv2
import numpy as np
import simplejpeg

from ..images import Reader, is_plain_jpeg, read_file, read_pixels
from .pixels import SIDE


def read_small(path: str, reader: Reader) -> np.ndarray:
    """An image as the training reads it, ``SIDE`` pixels wide and high whatever its shape.

    Args:
        path: of an image file.
        reader: of the training.

    Returns:
        (SIDE, SIDE, 3) uint8, blue, green and red.

    Raises:
        BadImage: the training cannot read it.
    """
    data = read_file(path)
    pixels = _small_jpeg(data, reader)
    if pixels is None:
        pixels = read_pixels(data, reader)
    smaller = max(pixels.shape[:2]) > SIDE
    how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return cv2.resize(pixels, (SIDE, SIDE), interpolation=how)


def _small_jpeg(data: bytes, reader: Reader) -> np.ndarray | None:
    """A JPEG decoded at a fraction of its size; None where that is not safe or it is damaged."""
    may_be_turned = reader.turns and b'Exif\0\0' in data[: 2**17]
    if may_be_turned or not is_plain_jpeg(data, reader):
        return None
    try:
        return simplejpeg.decode_jpeg(data, 'BGR', min_height=SIDE, min_width=SIDE)
    except ValueError:
        return None
