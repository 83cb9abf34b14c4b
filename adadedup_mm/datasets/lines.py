"""From the lines of annotation files to samples: an image with all its lines is one sample."""

import os
from collections.abc import Hashable, Sequence

import numpy as np


def line_key(paths: Sequence[str], name: str, is_frame: bool) -> Hashable:
    """What lines of one sample have in common: the image, or of frames and arrays the name."""
    if is_frame or not paths:
        return False, name
    path = paths[0]
    return True, path if '://' in path or '\0' in path else os.path.abspath(path)


def group_lines(keys: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """Lines of equal keys belong to one sample.

    Returns:
        sample: (L,) int64, the sample of each line, numbered in the order of their first lines.
        first: (N,) int64, the first line of each sample.
    """
    numbers: dict[Hashable, int] = {}
    sample = np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)
    return sample, np.unique(sample, return_index=True)[1]


def merge_objects(
    sample: np.ndarray, counts: np.ndarray, labels: np.ndarray, boxes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The objects of samples from those of their lines.

    What an earlier line of the sample has already counts once.

    Args:
        sample: (L,) int64, from ``group_lines``.
        counts: (L,) int64, how many objects each line has.
        labels: (M,) int32, of all lines' objects.
        boxes: (M, 4) float32.

    Returns:
        counts (N,) int64, labels and boxes of the samples.
    """
    line = np.repeat(np.arange(len(sample)), counts)
    owner = sample[line]
    seen: dict[Hashable, int] = {}
    is_new = np.zeros(len(line), bool)
    for number in range(len(line)):
        key = owner[number], labels[number], bytes(boxes[number])
        is_new[number] = seen.setdefault(key, line[number]) == line[number]
    chosen = np.flatnonzero(is_new)
    chosen = chosen[np.argsort(owner[chosen], kind='stable')]
    samples = int(sample.max(initial=-1)) + 1
    return np.bincount(owner[chosen], minlength=samples), labels[chosen], boxes[chosen]
