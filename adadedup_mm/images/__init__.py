"""Can this file be read, and as which pixels? What the user's training will read is the answer in every room."""

from .reader import BadImage, Reader, check_shape, image_size, is_plain_jpeg, read_file, read_pixels
from .training import training_reader

__all__ = ['BadImage', 'Reader', 'check_shape', 'image_size', 'is_plain_jpeg', 'read_file', 'read_pixels',
           'training_reader']
