"""Whether features tell pictures apart at all."""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from ..images import BadImage, Reader, read_file
from .baselines import Glance
from .decode import decode
from .embedder import ImageEncoder

# Similarity of equal features, up to rounding in the network.
SAME = 0.9999
# From this share of equal features on, similarities say nothing about a dataset.
NEARLY_ALL = 0.9
# Standard deviation of its pixels from which a picture shows anything.
_CONTRAST = 2.0
# Samples that are looked at, and how many of them must differ as files for an answer.
_MOST = 256
_LEAST = 4
# Samples that are looked at anew, with how many of their nearest ones: noise also hides which of
# them is a copy.
_ASKED = 64
_NEAREST = 5
# Shorter features have no direction.
_SHORT = 1e-6


def share_of_same_features(
    features: np.ndarray, usable: np.ndarray, paths: Sequence[Sequence[str]], reader: Reader
) -> float:
    """How many of the samples whose images differ have the same features as most.

    Copies count once, of files as of what they show: their features ought to be the same.

    Args:
        features: (N, d) float32, unit rows or zero.
        usable: (N,) bool, samples whose images were read.
        paths: N tuples of the images that the features are of.
        reader: how the training reads them.

    Returns:
        A share in [0, 1], of up to 256 samples at equal distances; 0 where fewer than four differ.
    """
    rows = _some(np.flatnonzero(usable))
    # Of equal contents the first sample stands for all.
    different: dict[str, int] = {}
    for row in rows.tolist():
        different.setdefault(_content(paths[row], reader), row)
    if len(different) < _LEAST:
        return 0.0
    vectors = features[sorted(different.values())].astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1)
    unit = vectors / np.maximum(lengths, 1e-12)[:, None]
    # Features without a direction, such as those of pictures of one colour, are the same too.
    unit = np.column_stack([unit, lengths < _SHORT])
    same = unit @ unit.T >= SAME

    return float(same.mean(axis=1).max())


def _some(rows: np.ndarray) -> np.ndarray:
    """Up to ``_MOST`` of the rows at equal distances."""
    places = np.linspace(0, len(rows) - 1, min(_MOST, len(rows)))
    return rows[np.unique(places.astype(np.int64))]


def same_features_note(share: float) -> str:
    """What to say about a share of ``NEARLY_ALL`` or more."""
    return (
        f'The features of {share:.0%} of the images are the same, although their files differ, '
        'so that similarities say nothing about redundancy here: the images may be blank or '
        'nearly so as the training reads them, or the embedder sees no difference. Look at the '
        'pictures in the report, and at imdecode_backend and color_type of the training '
        'pipeline, before you train on this selection.'
    )


def share_made_alike(
    features: np.ndarray,
    assignment: np.ndarray,
    paths: Sequence[str],
    encoder: ImageEncoder,
    reader: Reader,
    least: float,
) -> float:
    """How many samples have a near-duplicate in another encoder's eyes only.

    Of some samples at equal distances, each and the most similar ones of its cluster are looked at.

    Args:
        features: (N, d) float32 unit rows, or zero.
        assignment: (N,) int32 clusters.
        paths: an image of each sample.
        encoder: the other one.
        reader: how the training reads the images.
        least: similarity of near-duplicates.

    Returns:
        A share in [0, 1] of up to 64 samples.
    """
    places = np.linspace(0, len(features) - 1, min(_ASKED, len(features))).astype(np.int64)
    transform = dataclasses.replace(encoder.transform, reader=reader)
    alike = 0
    for sample in places.tolist():
        others = np.flatnonzero(assignment == assignment[sample])
        others = others[others != sample]
        similarity = features[others] @ features[sample]
        if not len(others) or similarity.max() >= least:
            continue
        nearest = others[np.argsort(-similarity)[:_NEAREST]].tolist()
        try:
            images = torch.stack([decode(paths[row], transform) for row in (sample, *nearest)])
        except BadImage:  # unreadable, or gone since its features were computed
            continue
        own, *vectors = encoder.encode(images)
        alike += any(own @ vector >= least for vector in vectors)
    return alike / max(1, len(places))


def _content(paths: Sequence[str], reader: Reader) -> str:
    """Hash of what a sample's images show; of their files where they show nothing."""
    digest = hashlib.sha256()
    transform = dataclasses.replace(Glance.transform, reader=reader)
    for path in paths:
        try:
            pixels = decode(path, transform).numpy()
            shows_something = pixels.std() >= _CONTRAST
            content = pixels.tobytes() if shows_something else read_file(path)
        except BadImage:  # gone since its features were computed
            content = path.encode(errors='surrogateescape')

        digest.update(hashlib.sha256(content).digest())

    return digest.hexdigest()
