"""Captions of images, and features of the captions: what the strategy ``vlm_sse`` clusters by."""

from .annotations import AnnotationCaptioner
from .captioner import Captioner, caption_shards, captions_key, merge_captions
from .file import CaptionFile
from .text import make_encoder, merge_text, text_shards

__all__ = [
    'AnnotationCaptioner',
    'CaptionFile',
    'Captioner',
    'caption_shards',
    'captions_key',
    'make_encoder',
    'merge_captions',
    'merge_text',
    'text_shards',
]
