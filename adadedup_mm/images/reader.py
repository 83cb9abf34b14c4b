"""Image files as a training reads them: by mmcv, with the settings of its pipeline's loader."""

import io
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from ..base.words import first_line

# Networks resize the longer side to at least this, in general; our smallest proxies do.
SHORTEST_RESIZE = 320
# The decoders that read JPEG without more ado, and their limits to the number of pixels.
_PILLOWS_LIMIT = 2 * (Image.MAX_IMAGE_PIXELS or 2**29)
_MOST_PIXELS = {'cv2': 2**30, 'pillow': _PILLOWS_LIMIT}
_IN_COLOUR = ('color', 'color_ignore_orientation', 'unchanged')
# Pillow may start other programs to read what is none of these.
_HARMLESS = ('JPEG', 'MPO', 'PNG', 'WEBP', 'BMP', 'TIFF', 'GIF', 'PPM', 'JPEG2000', 'AVIF')


class BadImage(Exception):
    """An image file is missing, or the training cannot read it; the message says why."""


@dataclass(frozen=True)
class Reader:
    """How a training reads its images; the defaults are those of mmcv's ``LoadImageFromFile``.

    Attributes:
        color_type: mmcv's flag: ``'color'``, ``'grayscale'``, ``'unchanged'``, or the first two
            with ``_ignore_orientation`` behind.
        backend: of mmcv: ``'cv2'``, ``'pillow'``, ``'turbojpeg'`` or ``'tifffile'``.
        longest: the smallest number of pixels that the longer side of a picture is resized to
            while its aspect ratio stays; None if any shape will do.
    """

    color_type: str = 'color'
    backend: str = 'cv2'
    longest: int | None = None

    @property
    def key(self) -> dict[str, Any]:
        """What differs from the usual reading, for the keys of stages; empty if nothing does."""
        usual = Reader(longest=SHORTEST_RESIZE)
        return {name: value for name, value in vars(self).items() if value != getattr(usual, name)}

    @property
    def turns(self) -> bool:
        """Whether pictures are turned as their EXIF orientation says."""
        return self.color_type in ('color', 'grayscale') and self.backend in ('cv2', 'pillow')

    def as_stored(self) -> 'Reader':
        """The same, but with pictures as they are stored, whatever their EXIF orientation says."""
        if not self.turns:
            return self
        return Reader(f'{self.color_type}_ignore_orientation', self.backend, self.longest)


def read_file(path: str | Path) -> bytes:
    """The content of an image file.

    Raises:
        BadImage: there is no such file, or it is empty.
    """
    try:
        kind = Path(path).stat().st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
            raise BadImage('a pipe or device, no ordinary file')
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise BadImage(getattr(error, 'strerror', None) or str(error)) from error

    if not data:
        raise BadImage('the file is empty')

    return data


def read_pixels(data: bytes, reader: Reader) -> np.ndarray:
    """The pixels that a training gets, as a picture.

    Grey becomes three equal channels and further channels (alpha) are left out. Values of 8 bits
    stay; what else a reader may yield (16 bits, floating point) is stretched from its own range to
    0..255, so that it can be looked at.

    Args:
        data: of an image file.
        reader: of the training.

    Returns:
        (H, W, 3) uint8, blue, green and red.

    Raises:
        BadImage: the training cannot read it.
    """
    pixels = _read_as_mmcv(data, reader)
    if pixels.ndim not in (2, 3) or not pixels.size:
        raise BadImage(f'an array of shape {pixels.shape}, which is no picture')
    if pixels.ndim == 3:
        pixels = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., 0]

    pixels = _eight_bits(pixels)
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], 3, axis=2)

    return np.ascontiguousarray(pixels)


def is_plain_jpeg(data: bytes, reader: Reader) -> bool:
    """Whether a file is an ordinary JPEG, of which every decoder makes the same pixels."""
    if reader.backend not in _MOST_PIXELS or reader.color_type not in _IN_COLOUR:
        return False
    if not data.startswith(b'\xff\xd8'):
        return False

    try:
        height, width, colour, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return False

    return colour in ('YCbCr', 'Gray') and height * width <= _MOST_PIXELS[reader.backend]


def image_size(path: str | Path, reader: Reader) -> tuple[int, int]:
    """Height and width of an image as a training reads it.

    Raises:
        BadImage: it cannot be read.
    """
    data = read_file(path)
    may_be_turned = reader.turns and b'Exif\0\0' in data[: 2**17]
    if is_plain_jpeg(data, reader) and not may_be_turned:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        return height, width

    height, width = read_pixels(data, reader).shape[:2]
    return height, width


def check_shape(height: int, width: int, reader: Reader) -> None:
    """Raises BadImage if resizing, as mmcv rounds it, leaves nothing of the shorter side."""
    if reader.longest is not None and vanishes(np.array([height, width]), reader.longest):
        raise BadImage(
            f'{width} x {height} pixels: resized to {reader.longest} pixels, nothing is '
            'left of its shorter side'
        )


def check_whole(data: bytes) -> None:
    """Raises BadImage for a truncated JPEG: some releases of OpenCV make the missing part grey."""
    if not data.startswith(b'\xff\xd8'):
        return

    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except Image.DecompressionBombError:
        return
    except MemoryError:
        raise
    except Exception as error:
        raise BadImage(_words(error)) from error


def vanishes(sizes: np.ndarray, longest: int) -> np.ndarray:
    """Whether resizing, as mmcv rounds it, leaves nothing of a picture's shorter side.

    Args:
        sizes: (..., 2) int height and width in pixels, 0 where unknown.
        longest: what the longer side becomes.

    Returns:
        (...) bool, False where a size is unknown.
    """
    shorter, longer = sizes.min(axis=-1), np.maximum(sizes.max(axis=-1), 1)
    return (shorter > 0) & (shorter * longest / longer + 0.5 < 1)


def _read_as_mmcv(data: bytes, reader: Reader) -> np.ndarray:
    # Here, so that those who have JPEGs only need no mmcv.
    import mmcv

    try:
        pixels = mmcv.imfrombytes(data, flag=reader.color_type, backend=reader.backend)
    except MemoryError:
        raise
    except cv2.error:
        pixels = None
    except Image.UnidentifiedImageError as error:
        raise BadImage('not an image in a known format') from error
    except Exception as error:  # decoders raise whatever a damaged file makes them stumble over
        raise BadImage(_words(error)) from error

    if pixels is None:
        raise BadImage(_why_unread(data, reader))

    return pixels


def _why_unread(data: bytes, reader: Reader) -> str:
    """What a file is that a reader could make nothing of."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            kind = image.format
            if kind in _HARMLESS:
                image.load()
            flag = reader.color_type.removesuffix('_ignore_orientation')
            return (
                f"a {kind} image of Pillow's mode {image.mode}, which the training cannot read "
                f'(imdecode_backend={reader.backend!r}, color_type={flag!r})'
            )
    except Image.UnidentifiedImageError:
        return 'not an image in a known format'
    except Exception as error:  # Pillow's readers raise nearly anything too
        return _words(error)


def _words(error: Exception) -> str:
    return first_line(error) or type(error).__name__


def _eight_bits(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * 255

    values = pixels.astype(np.float64)
    known = values[np.isfinite(values)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 0.0)
    values = np.nan_to_num(
        values,
        nan=low,
        posinf=high,
        neginf=low,
    )
    if low == high:
        return np.clip(values, 0, 255).astype(np.uint8)

    return ((values - low) * (255 / (high - low))).round().astype(np.uint8)
