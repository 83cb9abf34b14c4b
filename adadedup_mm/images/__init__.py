"""Can this file be read, and as which pixels? As the user's training reads it, in every room."""

from .reader import (
    BadImage,
    Reader,
    check_shape,
    check_whole,
    image_size,
    is_plain_jpeg,
    read_file,
    read_pixels,
    vanishes,
)

__all__ = [
    'BadImage',
    'Reader',
    'check_shape',
    'check_whole',
    'image_size',
    'is_plain_jpeg',
    'read_file',
    'read_pixels',
    'vanishes',
]
