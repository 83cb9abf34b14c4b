"""What a captioner is, and its work in pieces."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..base.errors import UserError
from ..base.files import write_json
from ..pool import Pool
from ..stages import Done, Shards

BATCH = 64
RESULT = 'captions.json'


class Captioner(Protocol):
    """What a class registered in ``CAPTIONERS`` must be.

    Its constructor takes the options beside ``type``.

    Three attributes are optional. ``batch_size``: how many samples a call gets (64 by default; None
    for all at once); the captions of a call are on disk before the next one, so that an interrupted
    run goes on from there. ``key``: a dict of everything that the captions depend on besides the
    samples (the options by default); finished captions are used again while it stays the same.
    ``source``: where the captions come from, in words for the report.
    """

    def __call__(self, pool: Pool, samples: np.ndarray, paths: list[str]) -> list[str]:
        """Captions of some samples.

        Args:
            pool: the N samples of the training set, with their annotations.
            samples: (n,) int64, which of them.
            paths: the image file of each: of frames, that of the first camera that
                ``adadedup.views`` names.

        Returns:
            n texts, none of them empty.
        """


def captions_key(captioner: Any, options: dict[str, Any]) -> dict[str, Any]:
    """What a captioner's work depends on besides the samples."""
    return getattr(captioner, 'key', options)


def caption_shards(captioner: Captioner, pool: Pool, paths: Sequence[str]) -> Shards:
    """The work of the stage ``captions``, which writes ``captions.json``, a list of N texts.

    Args:
        captioner: see ``Captioner``.
        pool: N samples.
        paths: N image files.

    Raises:
        UserError: when the work is done, the captioner returns anything but a text for every
            sample.
    """
    count = len(pool)
    size = getattr(captioner, 'batch_size', BATCH) or count
    ends = range(size, count, size)
    parts = np.split(np.arange(count), ends)
    files = [f'part_{number:06d}.json' for number in range(len(parts))]

    def compute(folder: Path, pieces: Sequence[int], done: Done) -> None:
        for piece in pieces:
            samples = parts[piece]
            captions = captioner(pool, samples, [paths[sample] for sample in samples])
            names = [pool.sample_ids[sample] for sample in samples]
            _check(captions, names, type(captioner).__name__)
            done(len(samples))
            write_json(folder / files[piece], list(captions))

    def lead(folder: Path, share: Callable[[], None]) -> None:
        share()
        if (folder / RESULT).exists():
            return
        captions: list[str] = []
        for file in files:
            captions += json.loads((folder / file).read_text(encoding='utf-8'))
        write_json(folder / RESULT, captions)

    sizes = [len(part) for part in parts]

    return Shards(files, sizes, compute, lead, RESULT, label='captions', unit='image')


def _check(captions: Any, sample_ids: list[str], name: str) -> None:
    """Raises UserError unless the captioner of that name gave a text for each sample."""
    is_list = isinstance(captions, Sequence) and not isinstance(captions, str)
    if not is_list or len(captions) != len(sample_ids):
        returned = len(captions) if is_list else type(captions).__name__
        raise UserError(
            f'the captioner {name} must return {len(sample_ids)} captions for {len(sample_ids)} '
            f'images, but returned {returned}'
        )

    for sample, text in zip(sample_ids, captions, strict=True):
        if not isinstance(text, str) or not text.strip():
            raise UserError(
                f'the captioner {name} returned {text!r} for sample {sample!r}; every caption must '
                'be a text that is not empty'
            )
