"""The captions stage: what a captioner is, and its work split over processes and resumable."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..base.errors import UserError
from ..base.files import write_json
from ..base.progress import progress
from ..pool import Pool

BATCH = 64


class Captioner(Protocol):
    """What a class registered in ``CAPTIONERS`` must be; its constructor takes the options beside ``type``.

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


def caption_shards(
    captioner: Captioner,
    pool: Pool,
    paths: Sequence[str],
    folder: Path,
    rank: int = 0,
    world: int = 1,
) -> None:
    """Writes this process's share of the captions; shards that are already there stay.

    Args:
        captioner: see ``Captioner``.
        pool: N samples.
        paths: N image files.
        folder: of the stage.
        rank: index of this process.
        world: number of processes.

    Raises:
        UserError: the captioner returns anything but a text for every sample.
    """
    if (folder / 'captions.json').exists():
        return
    shards = _shards(captioner, len(pool), folder)
    with progress(len(pool), 'captions', 'image') as bar:
        for file, samples in list(shards.items())[rank::world]:
            if not file.exists():
                captions = captioner(pool, samples, [paths[sample] for sample in samples])
                _check(
                    captions,
                    [pool.sample_ids[sample] for sample in samples],
                    type(captioner).__name__,
                )
                write_json(file, list(captions))
            bar.update(len(samples) * world)


def merge_captions(
    captioner: Captioner, count: int, folder: Path, wait_for: Callable[[Callable[[], bool]], None]
) -> None:
    """Turns the shards of all processes into ``captions.json``, a list of N texts, and removes them.

    Args:
        captioner: as for ``caption_shards``.
        count: N.
        folder: of the stage.
        wait_for: returns when its argument returns True, such as ``StageStore.wait_for``.
    """
    shards = list(_shards(captioner, count, folder))
    if not (folder / 'captions.json').exists():
        for file in shards:
            wait_for(file.exists)
        write_json(
            folder / 'captions.json',
            [text for file in shards for text in json.loads(file.read_text(encoding='utf-8'))],
        )
    for file in shards:
        file.unlink(missing_ok=True)


def _shards(captioner: Any, count: int, folder: Path) -> dict[Path, np.ndarray]:
    size = getattr(captioner, 'batch_size', BATCH) or count
    return {
        folder / f'part_{i:06d}.json': np.arange(start, min(start + size, count))
        for i, start in enumerate(range(0, count, size))
    }


def _check(captions: Any, sample_ids: list[str], name: str) -> None:
    if (
        not isinstance(captions, Sequence)
        or isinstance(captions, str)
        or len(captions) != len(sample_ids)
    ):
        raise UserError(
            f'the captioner {name} must return {len(sample_ids)} captions for {len(sample_ids)} '
            'images, '
            f'but returned {_what(captions)}'
        )
    for sample, text in zip(sample_ids, captions, strict=True):
        if not isinstance(text, str) or not text.strip():
            raise UserError(
                f'the captioner {name} returned {text!r} for sample {sample!r}; every caption must '
                'be a '
                'text that is not empty'
            )


def _what(value: Any) -> str:
    return (
        f'{len(value)}'
        if isinstance(value, Sequence) and not isinstance(value, str)
        else type(value).__name__
    )
