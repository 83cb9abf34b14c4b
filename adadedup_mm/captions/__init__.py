"""Captions of images, and features of the captions, to cluster samples by."""

from .annotations import AnnotationCaptioner
from .captioner import Captioner, caption_shards, captions_key
from .file import CaptionFile
from .text import make_encoder, text_shards

__all__ = [
    'AnnotationCaptioner',
    'CaptionFile',
    'Captioner',
    'caption_shards',
    'captions_key',
    'make_encoder',
    'text_shards',
]
