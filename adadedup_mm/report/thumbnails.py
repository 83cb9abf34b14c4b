"""Small pictures for the page, as data URIs."""

import base64
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image, ImageOps

# Pillow also opens formats that start other programs (EPS) or that browsers' users do not expect; datasets use these.
FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'TIFF', 'GIF', 'PPM', 'JPEG2000')


def make_thumbnail(path: str, side: int = 240, quality: int = 60) -> tuple[str, float] | None:
    """Reads an image and makes a WebP data URI of it.

    Args:
        path: an image file.
        side: pixels of the longer side.
        quality: of the WebP encoder, 0 to 100.

    Returns:
        The URI and the ratio width / height; None if there is no such file or it cannot be read as an image.
    """
    if not os.path.isfile(path):
        return None
    try:
        with Image.open(path, formats=FORMATS) as image:
            image.draft('RGB', (2 * side, 2 * side))
            image.thumbnail((side, side), reducing_gap=2)
            small = ImageOps.exif_transpose(image).convert('RGB')
    # Pillow's readers raise nearly anything on a damaged file, and a picture is never worth the page.
    except Exception:
        return None
    target = io.BytesIO()
    small.save(target, 'WEBP', quality=quality)
    return f'data:image/webp;base64,{base64.b64encode(target.getvalue()).decode()}', small.width / small.height


def make_thumbnails(paths: Sequence[str], workers: int | None = None) -> list[tuple[str, float] | None]:
    """``make_thumbnail`` for many files, in order, on several threads."""
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(make_thumbnail, paths))
