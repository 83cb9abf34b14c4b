"""From the lines of annotation files to samples: an image with all its lines is one sample."""

import os
from collections.abc import Hashable, Sequence

import numpy as np


def line_key(paths: Sequence[str], name: str, is_frame: bool) -> Hashable:
    """What lines of one sample have in common: the image, or of frames and arrays the name."""
    if is_frame or not paths:
        return False, name
    path = paths[0]
    is_local = '://' not in path and '\0' not in path
    return True, os.path.abspath(path) if is_local else path


def group_lines(keys: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """Lines of equal keys belong to one sample.

    Returns:
        sample: (L,) int64, the sample of each line, numbered in the order of their first lines.
        first: (N,) int64, the first line of each sample.
    """
    numbers: dict[Hashable, int] = {}
    numbered = [numbers.setdefault(key, len(numbers)) for key in keys]
    sample = np.array(numbered, np.int64)
    _, first = np.unique(sample, return_index=True)
    return sample, first


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
        key = (owner[number], labels[number], bytes(boxes[number]))
        first_line = seen.setdefault(key, line[number])
        is_new[number] = first_line == line[number]

    chosen = np.flatnonzero(is_new)
    by_sample = np.argsort(owner[chosen], kind='stable')
    chosen = chosen[by_sample]
    samples = int(sample.max(initial=-1)) + 1
    merged_counts = np.bincount(owner[chosen], minlength=samples)

    return merged_counts, labels[chosen], boxes[chosen]
